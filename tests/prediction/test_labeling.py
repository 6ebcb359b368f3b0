"""Large images are labeled in tiles, each of which sees what lies around it."""

import numpy as np
import pandas as pd
import pytest
import torch
from photos import finished_runs, save_photo
from PIL import Image
from torch import nn

from rrn.prediction import command, labeling
from rrn.prediction.labeling import Wanted
from rrn.runs import finished

CLASSES = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished_runs(tmp_path_factory.mktemp("tiles") / "repository", ["rrn"]) / "rrn"


@pytest.fixture
def card(run):
    return finished.read_card(run)


class Local:
    """What answers by the mean color of 9 x 9 pixels; and of a region by that of the region. Says how much it saw."""

    device, region = torch.device("cpu"), 16
    segmenters = nn.ModuleList()

    def __init__(self):
        self.most = 0

    def logits(self, images):
        self.most = max(self.most, images.shape[-2] * images.shape[-1])
        means = nn.functional.avg_pool2d(images.float(), 9, 1, 4, count_include_pad=False) / 40
        return torch.stack([means, means.flip(1)])

    def region_scores(self, logits, images):
        brightness = images.float().mean(1)[:, None] / 255
        scores = nn.functional.avg_pool2d(brightness, self.region, ceil_mode=True)[:, 0]
        return torch.stack([torch.stack([scores, scores]), torch.stack([1 - scores, scores])])


def picture(height, width):
    coarse = np.random.default_rng(3).integers(0, 256, (height // 20 + 1, width // 20 + 1, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height)))


@pytest.fixture
def smaller(monkeypatch):
    """Tile images that are small, too."""
    for name, value in {"LARGEST": 4000, "TILE": 40, "AROUND": 16}.items():
        monkeypatch.setattr(labeling, name, value)


@pytest.mark.parametrize(("size", "segmenter"), [((120, 131), "ensemble"), ((6, 700), "1"), ((301, 63), "2")])
def test_tiles_say_what_one_look_says_and_need_less_memory(card, smaller, size, segmenter):
    image, wanted = picture(*size), Wanted(segmenter, probabilities=True, regions=True)
    assert labeling.is_tiled(card, size, wanted)
    model = Local()
    found = labeling.predict(labeling.predictor_of(model, card), card, image, wanted)
    assert model.most <= (48 + 2 * 16) ** 2  # 48 is the next multiple of a region
    whole = Local()
    expected = labeling.predict(
        labeling.predictor_of(whole, card), card, image, Wanted(segmenter, True, regions=True, whole=True)
    )
    assert whole.most == size[0] * size[1]
    assert np.array_equal(found.labels, expected.labels) and len(np.unique(found.labels)) == CLASSES
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-3)
    pd.testing.assert_frame_equal(found.regions, expected.regions, rtol=1e-4)


@pytest.mark.parametrize("region", [1, 7, 16, 100, 2000])
@pytest.mark.parametrize("size", [(1, 1), (768, 769), (3000, 1500)])
@pytest.mark.parametrize("window", [0, 1100])
def test_tiles_cover_an_image_once_cut_no_region_and_see_as_much_at_a_border(size, region, window):
    covered = np.zeros(size, np.uint8)
    side, around = (-(-least // region) * region for least in (max(768, window), 128))
    for tile, seen in labeling.tiles(size, region, window):
        covered[tile] += 1
        for part, whole, length in zip(tile, seen, size, strict=True):
            assert part.start % region == 0 and whole.start % region == 0
            assert part.stop == min(part.start + side, length)
            assert whole.start <= max(0, part.start - around)
            assert min(part.stop + around, length) <= whole.stop <= length
            assert whole.stop - whole.start > min(side + 2 * around, length) - region
            assert whole.stop - whole.start <= side + 2 * around
    assert (covered == 1).all()


def test_a_tile_is_no_smaller_than_a_window_of_the_run(card, smaller):
    sliding = {"mode": "sliding", "window": (64, 32), "stride": (32, 16), "last": "shifted"}
    wide = card.model_copy(update={"evaluate": card.evaluate.model_copy(update=sliding)})
    model = Local()
    model.seen = []
    predictor = labeling.predictor_of(model, wide)
    predictor.logits = lambda images: model.seen.append(tuple(images.shape[-2:])) or model.logits(images)
    labeling.predict(predictor, wide, picture(200, 200), Wanted())
    assert {side for size in model.seen for side in size} == {96, 88}, "a window and its surroundings, but for a region"


def test_what_is_resized_when_read_or_small_is_looked_at_in_one_piece(card):
    assert labeling.LARGEST == 4_000_000
    assert not labeling.is_tiled(card, (2000, 2000), Wanted())
    assert labeling.is_tiled(card, (2000, 2001), Wanted())
    assert not labeling.is_tiled(card, (2000, 2001), Wanted(whole=True))
    assert not labeling.is_tiled(card.model_copy(update={"size": (60, 80)}), (2000, 2001), Wanted())


def test_the_command_says_how_many_images_were_tiled(run, smaller, tmp_path, capsys):
    save_photo(tmp_path / "in" / "small.png", 40, 50)
    save_photo(tmp_path / "in" / "large.png", 70, 60)
    assert command.main([str(run), str(tmp_path / "in"), str(tmp_path / "out"), "--regions", "--overlay"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"2 of 2 files labeled: {tmp_path}/out/labels",
        "1 of more than 4000 pixels in tiles; --whole looks at them in one piece",
    ]
    assert Image.open(tmp_path / "out/labels/large.png").size == (60, 70)
    table = pd.read_csv(tmp_path / "out/regions.csv")
    large = table[table["image"] == "large"]
    assert len(large) == 2 * 5 * 4 and not large.duplicated(["segmenter", "row", "column"]).any()
    assert command.main([str(run), str(tmp_path / "in"), str(tmp_path / "again"), "--whole"]) == 0
    assert "tiles" not in capsys.readouterr().out


@pytest.mark.parametrize("part", ["predict_batch", "_at_size"])
def test_too_little_memory_names_the_image_and_the_others_are_labeled(run, tmp_path, monkeypatch, capsys, part):
    save_photo(tmp_path / "in/a.png", 40, 50)
    save_photo(tmp_path / "in/b.png")
    whole = getattr(labeling, part)

    def full(first, *others):
        if 40 in (*getattr(first, "shape", ()), *getattr(getattr(others[0], "images", None), "shape", ())):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(first, *others)

    monkeypatch.setattr(labeling, part, full)
    assert command.main([str(run), str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("1 of 2 files labeled") and (tmp_path / "out/labels/b.png").is_file()
    assert (
        f"error: {tmp_path}/in/a.png does not fit into memory: looking at 50 x 40 pixels does not fit into memory "
        "(CUDA out of memory); what would need less:\n  smaller images" in said.err
    )
    assert "--device cpu" not in said.err, "which it is on"


def test_too_little_memory_for_what_is_written_is_said_too(run, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise MemoryError("Unable to allocate 9 GiB")

    save_photo(tmp_path / "a.png")
    monkeypatch.setattr(command.PredictionWriter, "write", full)
    assert command.main([str(run), str(tmp_path / "a.png"), str(tmp_path / "out")]) == 1
    assert "a.png does not fit into memory: Unable to allocate 9 GiB" in capsys.readouterr().err
