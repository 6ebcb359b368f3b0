import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rrn.models import regions


@given(st.integers(1, 300), st.data())
def test_every_position_lies_in_one_cell_and_no_cell_is_empty(size, data):
    grid = data.draw(st.integers(1, size))
    cells = regions.cells(size, grid)
    counts = cells.bincount(minlength=grid)
    assert counts.sum() == size and len(counts) == grid and counts.min() >= 1
    assert counts.max() - counts.min() <= 1 and (cells.diff() >= 0).all()


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40))
def test_padding_reaches_whole_regions_and_no_further(height, width, region):
    rows, columns = regions.grid_of(height, width, region)
    padded = regions.pad(torch.ones(2, height, width), region)
    assert padded.shape == (2, rows * region, columns * region)
    assert rows * region - height < region and columns * region - width < region
    assert padded.sum() == 2 * height * width


@pytest.mark.parametrize(
    ("size", "grid"), [((10, 10), (2, 2)), ((20, 10), (3, 3)), ((7, 13), (3, 5)), ((32, 32), (5, 4))]
)
def test_sums_and_means_against_loops(size, grid):
    draw = torch.Generator().manual_seed(0)
    values = torch.rand(2, 3, *size, generator=draw, dtype=torch.float64)
    weight = torch.rand(2, 1, *size, generator=draw, dtype=torch.float64).round()
    weight[:, :, : size[0] // grid[0]] = 0
    total, mean = torch.zeros(2, 3, *grid).double(), torch.zeros(2, 3, *grid).double()
    for r in range(grid[0]):
        for c in range(grid[1]):
            inside = torch.tensor(
                [
                    [y * grid[0] // size[0] == r and x * grid[1] // size[1] == c for x in range(size[1])]
                    for y in range(size[0])
                ]
            )
            total[..., r, c] = values[..., inside].sum(-1)
            kept = weight[..., inside]
            mean[..., r, c] = (values[..., inside] * kept).sum(-1) / kept.sum(-1).where(kept.sum(-1) > 0, 1)
    torch.testing.assert_close(regions.cell_sum(values, grid), total)
    torch.testing.assert_close(regions.cell_mean(values, weight, grid), mean)


def test_spread_gives_each_pixel_its_region():
    values = torch.arange(6.0).view(1, 2, 3)
    pixels = regions.to_cells(values, 4, 9)
    assert pixels.shape == (1, 4, 9)
    assert all(pixels[0, y, x] == values[0, y // 2, x // 3] for y in range(4) for x in range(9))
    torch.testing.assert_close(regions.cell_sum(pixels, (2, 3)), 6 * values)


def test_counts_are_exact_under_autocast():
    ones = torch.ones(1, 1, 301, 301)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert regions.cell_sum(ones, (1, 1)).item() == 301 * 301
