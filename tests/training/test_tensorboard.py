"""`log.tensorboard`: what is written beside a run, that a resumed one goes on, and that no output differs."""

import errno
import shutil
import sys
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
import tiny
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import IMAGES, SCALARS, EventAccumulator
from torch.utils.tensorboard.writer import SummaryWriter

from rrn import config, train
from rrn.config import SettingsError
from rrn.data.image_set import ImageSet
from rrn.training import tensorboard

KEY = ("train", "1of4", "rrn", 0)
ON = {"log": {"tensorboard": True}}


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    folder = tiny.repository(tmp_path_factory.mktemp("board") / "repository")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny.warm_up(folder)
    return folder


@pytest.fixture(autouse=True)
def inside(warm, monkeypatch):
    monkeypatch.chdir(warm)
    for variable in ("RRN_RESUME", "RRN_SCRATCH"):
        monkeypatch.delenv(variable, raising=False)


def events(folder):
    """Return what TensorBoard would show of a run."""
    return EventAccumulator(str(folder), {SCALARS: 0, IMAGES: 0}).Reload()


def curve(shown, tag):
    return {event.step: event.value for event in shown.Scalars(tag)}


def tiles(shown, name, step):
    """Return the pictures of an image, uint8 [2 segmenters, 5, H, W, 3]."""
    held = next(event for event in shown.Images(f"val/{name}") if event.step == step)
    lines = np.split(np.asarray(Image.open(BytesIO(held.encoded_image_string))), 2)
    frame = slice(None, -tensorboard.GAP)
    return np.array([[tile[frame, frame] for tile in np.split(line, 5, axis=1)] for line in lines])


@pytest.fixture(scope="module")
def watched(warm):
    """What is shown of a training that was interrupted behind a checkpoint, and of the same one without TensorBoard."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(warm)
        list(train.run(*KEY, warm / "plain"))
        run = train.run(*KEY, warm / "watched", ON)
        for _ in range(3):
            next(run)
        run.close()
        list(train.run(*KEY, warm / "watched", ON))
    return events(warm / "watched" / "tensorboard")


def test_no_byte_of_a_run_depends_on_being_watched(watched, warm):
    plain, seen = ({p.name: p.read_bytes() for p in (warm / name).glob("*.*")} for name in ("plain", "watched"))
    assert plain == seen and len(plain) == 5


def test_each_step_is_shown_once_although_the_run_was_interrupted(watched, warm):
    history = pd.read_csv(warm / "plain" / "history.csv").set_index("step")
    for name, column in history.items():
        assert [event.step for event in watched.Scalars(f"history/{name}")] == column.dropna().index.tolist()
        assert curve(watched, f"history/{name}") == pytest.approx(column.dropna().to_dict(), rel=1e-5)
    reliability = pd.read_csv(warm / "plain" / "reliability.csv").query("split == 'val' and score == 'region_score'")
    last = reliability.query("step == 6 and segmenter == 2 and `class` == '(all)'")["auroc"].item()
    assert curve(watched, "reliability_auroc_val/region_score_2")[6] == pytest.approx(last, rel=1e-5)


def test_pictures_show_image_label_pseudo_labels_scores_and_what_is_kept(watched, warm):
    dataset = ImageSet.open(config.load(root=warm), warm)
    name = dataset.ids("val")[0]
    image, label = dataset.pair("val", name)
    for step in (3, 6):
        shown = tiles(watched, name, step)
        assert shown.shape == (2, 5, *image.shape)
        for own in shown:
            assert np.array_equal(own[0], image)
            assert len(np.unique(own[1][label == 1], axis=0)) == 1
            kept = (own[4] == own[0]).all(-1)
            assert np.array_equal(own[4][~kept], (own[0][~kept] * 0.25).astype(np.uint8))


def test_the_better_half_of_the_regions_of_all_pictures_is_kept(watched, warm):
    names = [tag.removeprefix("val/") for tag in watched.Tags()["images"]]
    assert len(names) == tensorboard.PICTURES
    shown = np.array([tiles(watched, name, 6)[0] for name in names])
    kept = (shown[:, 4] == shown[:, 0]).all(-1)
    assert 0 < kept.mean() < 1 and shown[:, 3][kept].min() >= shown[:, 3][~kept].max() - 1


def test_a_warmup_keeps_all_and_shows_what_both_networks_say(warm):
    tiny.warm_up(warm, **ON)
    shown = events(warm / "runs/tiny/tensorboard/warmup/1of4-0")
    assert set(curve(shown, "history/supervised")) == {1, 2}
    for name in shown.Tags()["images"]:
        both = tiles(shown, name.removeprefix("val/"), 2)
        assert np.array_equal(both[:, 4], both[:, 0]) and both[:, 3].min() > 0


def test_an_image_without_a_label_is_shown_with_nothing_kept(warm, tmp_path, monkeypatch):
    """It comes alone, so that no region of its batch has a valid pixel."""
    folder = shutil.copytree(warm, tmp_path / "copy", ignore=shutil.ignore_patterns(".scratch", "plain", "watched"))
    monkeypatch.chdir(folder)
    dataset = ImageSet.open(config.load(root=folder), folder)
    name = dataset.ids("val")[0]
    void = np.full(dataset.label("val", name).shape, 255, np.uint8)
    Image.fromarray(void).save(dataset.label_path("val", name))
    list(train.run(*KEY, tmp_path / "out", {**ON, "loading": {"evaluation_batch": 1}}))
    shown = tiles(events(tmp_path / "out" / "tensorboard"), name, 6)
    assert (shown[:, 3] == 0).all() and (shown[:, 4] != shown[:, 0]).any()


def test_events_that_cannot_be_written_are_said_once_and_end_nothing(warm, monkeypatch, capsys):
    (warm / "full").mkdir()
    (warm / "full" / "tensorboard").write_text("in the way")
    rows = list(train.run(*KEY, warm / "full", ON))
    assert rows[-1]["step"] == 6 and (warm / "full" / "run.json").is_file()
    said = capsys.readouterr().err
    assert said.count("full/tensorboard is not written") == 1 and "TensorBoard shows no more of this run" in said

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", fail)
    list(train.run(*KEY, warm / "fuller", ON))
    said = capsys.readouterr().err
    assert said.count("fuller/tensorboard is not written (No space left on device)") == 1


def test_large_pictures_are_thinned():
    picture = np.zeros((700, 300, 3), np.uint8)
    step = tensorboard.thinning(picture.shape[:2])
    assert step == 3 and max(picture[::step, ::step].shape) <= tensorboard.TILE


def test_without_the_package_it_says_how_to_get_it(warm, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(
        SettingsError, match=r"log.tensorboard: true needs a package .*'.\[tensorboard\]', or set it to"
    ):
        next(train.run(*KEY, warm / "without", ON))
