"""A model.onnx labels as the run that it was made of, and says what it cannot do."""

import shutil

import numpy as np
import onnx
import pandas as pd
import pytest
from onnxruntime import InferenceSession
from onnxruntime.capi.onnxruntime_pybind11_state import Fail
from photos import SIZES, finished_runs, save_photos
from PIL import Image

from rrn.config import SettingsError
from rrn.exporting.command import export_run
from rrn.prediction import command
from rrn.prediction.exported import ExportedModel

SLIDING = {"mode": "sliding", "window": (32, 32), "stride": (24, 24), "last": "shifted", "flip": True}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished_runs(tmp_path_factory.mktemp("exported") / "repository", ["rrn"]) / "rrn"


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "out"
    export_run(run, out, "ensemble")
    return out


@pytest.fixture(scope="module")
def second(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("second") / "out"
    export_run(run, out, "2")
    return out


def label(*arguments):
    return command.main([str(argument) for argument in arguments])


def same_probabilities(first, second):
    for name in SIZES:
        one, two = (np.load(folder / "probabilities" / f"{name}.npz")["probabilities"] for folder in (first, second))
        np.testing.assert_allclose(one.astype(float), two.astype(float), atol=2e-3)


def same_regions(first, second, segmenters=(1, 2)):
    one, two = (pd.read_csv(folder / "regions.csv") for folder in (first, second))
    two = two[two["segmenter"].isin(segmenters)].reset_index(drop=True)
    assert set(one["segmenter"]) == set(segmenters) and set(one["image"]) == set(SIZES)
    if segmenters != (1, 2):
        assert one.pop("agreement").isna().all() and two.pop("agreement").notna().all()
    pd.testing.assert_frame_equal(one, two, atol=1e-4, rtol=0)
    for name in SIZES:
        drawn, own = (np.asarray(Image.open(folder / f"regions/{name}.png")) for folder in (first, second))
        assert drawn.shape == own.shape and (drawn != own).mean() < 0.01


@pytest.mark.parametrize("named", ["folder", "file"])
def test_an_export_labels_as_its_run(run, exported, tmp_path, named):
    photos = save_photos(tmp_path / "photos")
    model = exported if named == "folder" else exported / "model.onnx"
    assert label(model, photos, tmp_path / "onnx", "--probabilities", "--overlay") == 0
    assert label(run, photos, tmp_path / "own", "--probabilities") == 0
    same_probabilities(tmp_path / "onnx", tmp_path / "own")
    assert Image.open(tmp_path / "onnx/overlays/a.png").size == SIZES["a"][::-1]


def test_an_export_judges_regions_as_its_run(run, exported, tmp_path):
    photos = save_photos(tmp_path / "photos")
    assert label(exported, photos, tmp_path / "onnx", "--regions", "--probabilities") == 0
    assert label(run, photos, tmp_path / "own", "--regions", "--probabilities") == 0
    same_regions(tmp_path / "onnx", tmp_path / "own")
    same_probabilities(tmp_path / "onnx", tmp_path / "own")


def test_an_export_of_one_segmenter_judges_its_regions_alone(run, second, tmp_path):
    photos = save_photos(tmp_path / "photos")
    assert label(second, photos, tmp_path / "onnx", "--regions", "--probabilities") == 0
    assert label(run, photos, tmp_path / "own", "--regions", "--probabilities", "--segmenter", "2") == 0
    same_regions(tmp_path / "onnx", tmp_path / "own", segmenters=(2,))
    same_probabilities(tmp_path / "onnx", tmp_path / "own")


def test_the_file_alone_is_all_that_is_needed(exported, tmp_path):
    shutil.copy(exported / "model.onnx", tmp_path / "mine.onnx")
    photos = save_photos(tmp_path / "photos")
    assert label(tmp_path / "mine.onnx", photos / "a.png", tmp_path / "out") == 0
    assert (tmp_path / "out/labels/a.png").is_file()


def saying(exported, path, **said):
    """Save an export that says something else of itself."""
    model = onnx.load(exported / "model.onnx")
    known = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, known | {f"rrn.{name}": value for name, value in said.items()})
    onnx.save(model, path)
    return path


def test_images_are_looked_at_as_the_run_was_evaluated(run, exported, tmp_path):
    photos = save_photos(tmp_path / "photos")
    copy = shutil.copytree(run, tmp_path / "run")
    card = ExportedModel(exported / "model.onnx").card
    changed = card.model_copy(update={"size": (48, 40), "evaluate": card.evaluate.model_copy(update=SLIDING)})
    (copy / "run.json").write_text(changed.model_dump_json())
    model = saying(exported, tmp_path / "sliding.onnx", run=changed.model_dump_json())
    for options in (["--probabilities"], ["--probabilities", "--regions", "--force"]):
        assert label(model, photos, tmp_path / "onnx", *options) == 0
        assert label(copy, photos, tmp_path / "own", *options) == 0
        same_probabilities(tmp_path / "onnx", tmp_path / "own")
    same_regions(tmp_path / "onnx", tmp_path / "own")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--segmenter", "2"], "made to answer as `--segmenter ensemble`: leave --segmenter out, or export"),
        (["--device", "cuda"], "--device cuda: an exported model is run on the CPU; leave --device out"),
    ],
)
def test_what_only_a_run_can_do_is_refused(exported, tmp_path, capsys, options, message):
    photos = save_photos(tmp_path / "photos")
    assert label(exported, photos, tmp_path / "out", *options) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_region_scores_of_an_export_without_them_are_refused(exported, tmp_path, capsys):
    model = onnx.load(exported / "model.onnx")
    del model.graph.output[1]
    onnx.save(model, tmp_path / "older.onnx")
    assert label(tmp_path / "older.onnx", save_photos(tmp_path / "photos"), tmp_path / "out", "--regions") == 1
    message = "this export has no region scores, since its run has no region discriminators, or it was made before"
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_an_export_of_one_segmenter_takes_its_number_and_no_other(second, tmp_path, capsys):
    photos, model = save_photos(tmp_path / "photos"), second
    assert label(model, photos / "a.png", tmp_path / "out", "--segmenter", "2") == 0
    assert label(model, photos / "a.png", tmp_path / "again", "--segmenter", "1") == 1
    assert "made to answer as `--segmenter 2`: leave --segmenter out" in capsys.readouterr().err


def test_files_that_are_none_of_ours_are_refused(exported, tmp_path):
    with pytest.raises(SettingsError, match=r"gone\.onnx is missing or damaged \(.*\): export the run again"):
        ExportedModel(tmp_path / "gone.onnx")
    for name, contents in {"text.onnx": b"text", "empty.onnx": b"", "cut.onnx": b""}.items():
        whole = (exported / "model.onnx").read_bytes()
        (tmp_path / name).write_bytes(whole[:5000] if name == "cut.onnx" else contents)
        with pytest.raises(SettingsError, match=rf"{name} is missing or damaged \(.*\): export the run again"):
            ExportedModel(tmp_path / name)
    for said in ({"run": ""}, {"segmenter": "3"}):
        saying(exported, tmp_path / "other.onnx", **said)
        with pytest.raises(SettingsError, match=r"does not say which run it is of: it was not made by `python -m rrn"):
            ExportedModel(tmp_path / "other.onnx")
    model = onnx.load(exported / "model.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "silent.onnx")
    with pytest.raises(SettingsError, match=r"silent\.onnx does not say which run it is of"):
        ExportedModel(tmp_path / "silent.onnx")


def test_too_little_memory_names_the_image(exported, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise Fail("[ONNXRuntimeError] : 1 : FAIL : Failed to allocate memory for requested buffer of size 9")

    photos = save_photos(tmp_path / "photos")
    monkeypatch.setattr(InferenceSession, "run", full)
    assert label(exported, photos / "a.png", tmp_path / "out") == 1
    assert "a.png does not fit into memory" in (said := capsys.readouterr().err) and "Failed to allocate" in said
