"""Crops, strong views of them, and CutMix boxes."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import functional

from rrn.config import IGNORE_INDEX, Augment, CutMix, Strong
from rrn.data import transforms
from rrn.data.transforms import _resize, augment, cutmix_boxes, strong_view


def _augment(height: int, width: int, seed: int = 0, label: bool = True, **changes: Any) -> Any:
    values = {"crop": 24, "scales": (0.5, 2.0), "flip": True, "jitter": 0.2, **changes}
    image = torch.full((3, height, width), 200, dtype=torch.uint8)
    target = torch.ones(height, width, dtype=torch.uint8) if label else None
    generator = torch.Generator().manual_seed(seed)
    return augment(image, target, Augment.model_validate(values), generator)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    seed=st.integers(0, 2**32),
    low=st.floats(0.1, 2),
    more=st.floats(0, 2),
)
def test_padding(height: int, width: int, seed: int, low: float, more: float) -> None:
    image, label, valid = _augment(height, width, seed, scales=(low, low + more))
    assert (image.shape, image.dtype) == ((3, 24, 24), torch.uint8)
    assert (label.shape, label.dtype) == ((24, 24), torch.int64)
    assert (valid.shape, valid.dtype) == ((24, 24), torch.bool)
    assert valid.any()
    assert torch.all(image[:, ~valid] == 0)
    assert torch.all(image[:, valid] > 0)
    assert torch.all(label[~valid] == IGNORE_INDEX)
    assert torch.all(label[valid] == 1)
    rows, columns = valid.any(1), valid.any(0)
    assert torch.equal(valid, rows[:, None] & columns[None])


@pytest.mark.parametrize("side", [1, 2, 9, 40])
@pytest.mark.parametrize("target", [1, 2, 24])
def test_resize_agrees_with_floats(side: int, target: int) -> None:
    image = torch.randint(0, 256, (3, 50, 50), dtype=torch.uint8)
    for other in (1, 2, 40):
        patch = image[:, :side, :other]
        exact = interpolate(patch[None].float(), [target, 24], mode="bilinear", antialias=True)[0]
        assert float((_resize(patch, [target, 24]).float() - exact).abs().max()) < 2


def test_small_image_is_all_there_and_anywhere() -> None:
    corners = set()
    for seed in range(20):
        valid = _augment(10, 10, seed, scales=(1.0, 1.0), flip=False)[2]
        assert valid.sum() == 100
        corners.add(tuple(valid.nonzero()[0].tolist()))
    assert len(corners) > 10


def test_large_image_fills_the_crop() -> None:
    assert all(_augment(100, 80, seed)[2].all() for seed in range(20))


def test_unchanged_without_scale_flip_and_jitter() -> None:
    image = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8)
    label = torch.randint(0, 5, (40, 40), dtype=torch.uint8)
    plain = Augment(crop=24, scales=(1.0, 1.0), flip=False, jitter=0)
    crop, target, _ = augment(image, label, plain, torch.Generator().manual_seed(1))
    places = [(y, x) for y in range(17) for x in range(17) if torch.equal(crop, image[:, y : y + 24, x : x + 24])]
    assert len(places) == 1
    y, x = places[0]
    assert torch.equal(target, label[y : y + 24, x : x + 24].long())


def test_mirror_moves_image_label_and_padding_together() -> None:
    kept, mirrored = 0, 0
    image = torch.arange(10, dtype=torch.uint8).expand(3, 10, 10).contiguous() + 1
    flip = Augment(crop=24, scales=(1.0, 1.0), flip=True, jitter=0)
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        crop, label, valid = augment(image, image[0], flip, generator)
        assert torch.equal(crop[0][valid].long(), label[valid])
        row = label[valid][:10]
        kept += int(row[0] == 1)
        mirrored += int(row[0] == 10)
    assert kept + mirrored == 30
    assert min(kept, mirrored) > 5


def test_jitter_changes_colors_and_nothing_else() -> None:
    plain, label, valid = _augment(50, 50, 4, jitter=0)
    changed, same_label, same_valid = _augment(50, 50, 4, jitter=0.3)
    assert torch.equal(label, same_label)
    assert torch.equal(valid, same_valid)
    assert not torch.equal(plain, changed)
    pixel = changed[:, valid].float().mean(1)
    assert 200 * 0.6 < float(pixel.mean()) < 255.5


def test_no_label_is_ignored_everywhere() -> None:
    image, label, valid = _augment(50, 50, label=False)
    with_label = _augment(50, 50)
    assert torch.all(label == IGNORE_INDEX)
    assert torch.equal(image, with_label[0])
    assert torch.equal(valid, with_label[2])


def test_a_draw_depends_on_its_generator_only() -> None:
    first = _augment(50, 60, 5)
    torch.rand(10)
    assert all(torch.equal(a, b) for a, b in zip(first, _augment(50, 60, 5), strict=True))
    assert not torch.equal(first[0], _augment(50, 60, 6)[0])


def test_same_bits_for_any_number_of_threads() -> None:
    image = torch.randint(0, 256, (3, 300, 300), dtype=torch.uint8)
    label = torch.randint(0, 5, (300, 300), dtype=torch.uint8)
    large = Augment(crop=256, scales=(0.5, 2.0), flip=True, jitter=0.4)
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            results.append(augment(image, label, large, torch.Generator().manual_seed(2)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    height=st.integers(8, 64),
    width=st.integers(8, 64),
    boxes=st.integers(1, 5),
    area=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_boxes_cover_no_more_than_asked(
    seed: int, height: int, width: int, boxes: int, area: tuple[float, float]
) -> None:
    low, high = min(area), max(area)
    cutmix = CutMix(boxes=boxes, area=(low, high))
    mask = cutmix_boxes(2, height, width, cutmix, torch.Generator().manual_seed(seed))
    assert (mask.shape, mask.dtype) == ((2, 1, height, width), torch.bool)
    rounding = boxes * (height + width + 1) / 2 / (height * width)
    covered = mask.float().mean((1, 2, 3))
    assert torch.all(covered <= high + rounding)
    if boxes == 1:
        assert torch.all(covered >= low - rounding)


def test_one_box_is_one_rectangle_of_the_area() -> None:
    cutmix = CutMix(boxes=1, area=(0.25, 0.25))
    shapes = set()
    for mask in cutmix_boxes(20, 96, 96, cutmix, torch.Generator().manual_seed(0))[:, 0]:
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns[None])
        assert float(mask.float().mean()) == pytest.approx(0.25, abs=0.02)
        shapes.add((int(rows.sum()), int(columns.sum())))
    assert len(shapes) > 10


def test_boxes_lie_everywhere() -> None:
    cutmix = CutMix(boxes=3, area=(0.25, 0.5))
    masks = cutmix_boxes(400, 16, 16, cutmix, torch.Generator().manual_seed(0)).float()
    share = masks.mean((0, 1))
    assert 0.2 < float(share.mean()) < 0.45
    assert float(share.min()) > 0.005


def test_area_zero_and_one() -> None:
    generator = torch.Generator().manual_seed(0)
    assert not cutmix_boxes(1, 9, 9, CutMix(boxes=2, area=(0, 0)), generator).any()
    assert cutmix_boxes(1, 9, 9, CutMix(boxes=1, area=(1, 1)), generator).all()


@pytest.mark.parametrize(("height", "width"), [(24, 1), (2, 1), (1, 24), (1, 1)])
def test_a_patch_that_becomes_one_pixel_wide_keeps_its_colors(height: int, width: int) -> None:
    """As bytes torch fills such patches with what is no mean of anything."""
    image = torch.randint(0, 256, (3, 40, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    resized = _resize(image, [height, width])
    exact = interpolate(image[None].float(), [height, width], mode="bilinear", antialias=True)[0]
    assert resized.dtype == torch.uint8
    assert float((resized.float() - exact).abs().max()) <= 0.5


def _draws(seed: int) -> list[float]:
    return torch.rand(7, generator=torch.Generator().manual_seed(seed)).tolist()


def _recolored(image: torch.Tensor, strength: float, draws: list[float]) -> torch.Tensor:
    """Shift saturation, then contrast about mid gray, then brightness, one after another, without rounding."""
    brightness, contrast, saturation = (1 - strength + 2 * strength * draw for draw in draws)
    pixels = image.double()
    gray = 0.299 * pixels[0] + 0.587 * pixels[1] + 0.114 * pixels[2]
    pixels = gray + saturation * (pixels - gray)
    pixels = 127.5 + contrast * (pixels - 127.5)
    return (brightness * pixels).clamp(0, 255)


@pytest.mark.parametrize("strength", [0.1, 0.5, 1.0])
def test_colors_are_those_of_the_three_shifts_one_after_another_rounded(strength: float) -> None:
    image = torch.randint(0, 256, (3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image[:, 0, :2] = torch.tensor([0, 255], dtype=torch.uint8)
    settings = Augment(crop=24, scales=(1.0, 1.0), flip=False, jitter=strength)
    black, white = False, False
    for seed in range(12):
        found = augment(image, None, settings, torch.Generator().manual_seed(seed))[0]
        exact = _recolored(image, strength, _draws(seed)[4:])
        assert float((found.double() - exact).abs().max()) <= 0.501
        black, white = black or bool((exact == 0).any()), white or bool((exact == 255).any())
    assert black and white


def test_each_draw_has_one_purpose_whatever_the_settings() -> None:
    """Scale, row, column, mirror and colors: a run repeated after a setting has changed meets the same draws."""
    image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mirrored = set()
    for seed in range(20):
        _, row, column, mirror, *_ = _draws(seed)
        y, x = int(row * 17), int(column * 27)
        for flip in (False, True):
            settings = Augment(crop=24, scales=(1.0, 1.0), flip=flip, jitter=0)
            expected = image[:, y : y + 24, x : x + 24]
            if flip and mirror < 0.5:
                expected = expected.flip(2)
                mirrored.add(seed)
            assert torch.equal(augment(image, None, settings, torch.Generator().manual_seed(seed))[0], expected)
    assert 0 < len(mirrored) < 20


def _columns_seen(scales: tuple[float, float], seed: int) -> torch.Tensor:
    """Return which columns of an image of 200 a crop of 24 shows."""
    label = torch.arange(200, dtype=torch.uint8).expand(100, 200)
    plain = Augment(crop=24, scales=scales, flip=False, jitter=0)
    image = torch.zeros(3, 100, 200, dtype=torch.uint8)
    return augment(image, label, plain, torch.Generator().manual_seed(seed))[1][0]


def test_a_scale_of_two_shows_half_as_much_and_one_of_a_half_twice_as_much() -> None:
    large, small = _columns_seen((2.0, 2.0), 0), _columns_seen((0.5, 0.5), 0)
    assert large.tolist() == [int(large[0]) + i // 2 for i in range(24)]
    assert small.tolist() == [int(small[0]) + 2 * i for i in range(24)]


def test_scales_lie_between_the_smallest_and_the_largest_as_their_own_draw_has_it() -> None:
    sides = []
    for seed in range(40):
        columns = _columns_seen((0.5, 2.0), seed)
        scale = 0.5 + 1.5 * _draws(seed)[0]
        sides.append(float(columns[-1] - columns[0]) * 24 / 23)
        assert sides[-1] == pytest.approx(24 / scale, abs=2)
        assert columns.tolist() == sorted(columns.tolist())
    assert min(sides) < 14 and max(sides) > 40


def test_image_and_label_stay_on_top_of_each_other() -> None:
    """The middle one of three columns is the label of their mean; the first one would shift labels by a pixel."""
    columns = torch.arange(72, dtype=torch.uint8).expand(72, 72)
    third = Augment(crop=24, scales=(1 / 3, 1 / 3), flip=False, jitter=0)
    image, label, _ = augment(columns.expand(3, 72, 72), columns, third, torch.Generator().manual_seed(0))
    assert torch.equal(image[0, :, 1:-1].long(), label[:, 1:-1])
    assert label[0].tolist() == list(range(1, 72, 3))


def test_a_crop_of_less_than_a_pixel_shows_one_pixel() -> None:
    image = torch.randint(0, 256, (3, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    large = Augment(crop=16, scales=(40.0, 40.0), flip=False, jitter=0)
    crop = augment(image, None, large, torch.Generator().manual_seed(0))[0]
    assert torch.equal(crop, crop[:, :1, :1].expand(3, 16, 16))
    assert (image == crop[:, :1, :1]).all(0).any()


def test_an_image_of_one_pixel_is_somewhere_in_the_crop_up_to_its_last_row() -> None:
    rows = set()
    for seed in range(300):
        valid = _augment(1, 1, seed, scales=(0.25, 0.25))[2]
        assert valid.sum() == 1
        rows.add(int(valid.any(1).nonzero()))
    assert rows == set(range(24))


def test_boxes_depend_on_their_generator_only_and_each_image_takes_the_same_number_of_draws() -> None:
    cutmix, generator = CutMix(boxes=3, area=(0.25, 0.5)), torch.Generator().manual_seed(4)
    both = cutmix_boxes(2, 32, 32, cutmix, generator)
    torch.rand(3)
    again = torch.Generator().manual_seed(4)
    assert torch.equal(both[:1], cutmix_boxes(1, 32, 32, cutmix, again))
    other = torch.Generator().manual_seed(4)
    torch.rand(1 + 3 * 3, generator=other)
    assert torch.equal(both[1:], cutmix_boxes(1, 32, 32, cutmix, other))
    assert not torch.equal(both[0], both[1])


# ---- strong views


def _strong_of(image: torch.Tensor, seed: int, valid: torch.Tensor | None = None, **values: float) -> torch.Tensor:
    valid = torch.ones(image.shape[-2:], dtype=torch.bool) if valid is None else valid
    return strong_view(image, valid, Strong(**values), torch.Generator().manual_seed(seed))


def _noise(side: int = 24) -> torch.Tensor:
    return torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@settings(max_examples=60, deadline=None)
@given(
    top=st.integers(0, 23),
    left=st.integers(0, 23),
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    seed=st.integers(0, 2**32),
)
def test_what_is_valid_is_changed_as_an_image_of_its_own(top, left, height, width, seed) -> None:
    """Whatever lies in the padding, none of it gets into the view, and the view's padding is 0."""
    rows, columns = slice(top, min(24, top + height)), slice(left, min(24, left + width))
    valid = torch.zeros(24, 24, dtype=torch.bool)
    valid[rows, columns] = True
    image, strength = _noise(), {"jitter": 1.0, "gray": 0.2, "blur": 1.0}
    view = _strong_of(image, seed, valid, **strength)
    assert (view.shape, view.dtype) == ((3, 24, 24), torch.uint8)
    assert torch.all(view[:, ~valid] == 0)
    assert torch.equal(view, _strong_of(image * valid, seed, valid, **strength))


def test_each_change_has_its_probability() -> None:
    image = _noise()
    grayed = [torch.equal(view[0], view[1]) for view in (_strong_of(image, seed, gray=0.2) for seed in range(1000))]
    shifted = [not torch.equal(_strong_of(image, seed, jitter=0.5), image) for seed in range(1000)]
    assert sum(grayed) / 1000 == pytest.approx(0.2, abs=0.04)
    assert sum(shifted) / 1000 == pytest.approx(0.8, abs=0.04)
    assert all(torch.equal(view[0], view[2]) for view in (_strong_of(image, seed, gray=1.0) for seed in range(20)))


def test_blur_is_drawn_between_two_strengths_that_grow_with_the_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[int, list[float]] = {}
    for side in (321, 642):
        seen: list[float] = []
        monkeypatch.setattr(transforms, "_blur", lambda patch, sigma, seen=seen: seen.append(sigma) or patch)
        for seed in range(300):
            _strong_of(torch.zeros(3, side, side, dtype=torch.uint8), seed, blur=0.5)
        found[side] = seen
    assert 120 < len(found[321]) < 180
    assert 0.1 <= min(found[321]) < 0.2 and 1.9 < max(found[321]) <= 2.0
    assert found[642] == pytest.approx([2 * sigma for sigma in found[321]])


@pytest.mark.parametrize("sigma", [0.02, 0.4, 1.0, 3.2])
def test_a_blur_is_that_of_the_library_in_both_directions_at_once(sigma: float) -> None:
    image = _noise(48)
    whole = functional.gaussian_blur(image, [21, 21], [sigma, sigma]).float()
    assert float((transforms._blur(image, sigma).float() - whole).abs().max()) <= 2


@pytest.mark.parametrize("strength", [0.2, 0.5, 1.0])
def test_colors_shift_by_no_more_than_the_strength(strength: float, monkeypatch: pytest.MonkeyPatch) -> None:
    factors: dict[str, list[float]] = {}
    order = set()
    for name in ("brightness", "contrast", "saturation", "hue"):

        def note(patch: torch.Tensor, factor: float, name: str = name) -> torch.Tensor:
            factors.setdefault(name, []).append(factor)
            called.append(name)
            return patch

        monkeypatch.setattr(functional, f"adjust_{name}", note)
    for seed in range(200):
        called: list[str] = []
        _strong_of(_noise(), seed, jitter=strength)
        order.add(tuple(called))
    *others, hue = (factors[name] for name in ("brightness", "contrast", "saturation", "hue"))
    for found in others:
        assert 1 - strength <= min(found) < 1 - 0.9 * strength and 1 + 0.9 * strength < max(found) <= 1 + strength
    assert -strength / 2 <= min(hue) < -0.45 * strength and 0.45 * strength < max(hue) <= strength / 2
    assert order - {()} > {
        ("brightness", "contrast", "saturation", "hue"),
        ("hue", "saturation", "contrast", "brightness"),
    }


def test_a_strong_view_depends_on_its_generator_only_and_each_takes_the_same_number_of_draws() -> None:
    image, valid = _noise(), torch.ones(24, 24, dtype=torch.bool)
    ends = set()
    for values in ({}, {"jitter": 0.5}, {"jitter": 0.5, "gray": 0.2, "blur": 0.5}):
        generator = torch.Generator().manual_seed(3)
        state = torch.get_rng_state()
        view = strong_view(image, valid, Strong(**values), generator)
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(5)
        assert torch.equal(view, _strong_of(image, 3, **values))
        ends.add(float(torch.rand(1, generator=generator)))
    assert len(ends) == 1


def test_a_strong_view_leaves_the_crop_as_it_is() -> None:
    image = _noise()
    before = image.clone()
    for seed in range(20):
        _strong_of(image, seed, jitter=1.0, gray=0.5, blur=0.5)
    assert torch.equal(image, before)
