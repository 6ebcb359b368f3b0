import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from conftest import ROOT, python
from photos import SIZES, finished_runs, save_photo, save_photos
from PIL import Image
from safetensors.torch import load_file, save_file

from rrn import config, train
from rrn.config import SettingsError
from rrn.data.palette import palette
from rrn.evaluation.inference import Predictor
from rrn.prediction import command, labeling
from rrn.prediction.labeling import Wanted
from rrn.runs import finished

COLORS = [[10, 20, 30], [200, 0, 0], [0, 0, 250]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs of a few steps: the warmup 1of4-0, and trainings named by their row."""
    folder = finished_runs(tmp_path_factory.mktemp("predict") / "repository")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        student = {"method": {"networks": "student_teacher"}, "train": {"steps": 3}}
        list(train.run("train", "1of4", "rrn", 0, folder / "student", student))
    return folder


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of images of several sizes, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return save_photos(tmp_path / "photos")


def copy(run, target):
    return shutil.copytree(run, target)


def change(run, **values):
    """Change keys of the run.json of a copy."""
    path = run / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")
    return run


def loaded(runs):
    """Return the networks of the run `rrn`, built from the settings of the repository and not from run.json."""
    settings = config.load("rrn", root=runs)
    return finished.load_model(runs / "rrn", settings, tiny.CLASSES)


def both(model, path):
    """Return the logits and the probabilities [2, 1, C, H, W] of an image, by hand, and the image."""
    images = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None]
    logits = model.logits(images)
    return logits, logits.softmax(2), images


def call(*arguments):
    return command.main([str(argument) for argument in arguments])


def names(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_typed_as_a_newcomer_would(runs, photos, tmp_path):
    shown = python(ROOT, "-m", "rrn.predict", runs / "rrn", photos, tmp_path / "out")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout == f"3 of 3 files labeled: {tmp_path}/out/labels\n" and "3/3" in shown.stderr
    assert names(tmp_path / "out") == ["labels/a.png", "labels/deep/b.png", "labels/deep/c.png"]


@pytest.mark.parametrize("segmenter", ["ensemble", "1", "2"])
def test_labels_and_probabilities(runs, photos, tmp_path, segmenter):
    assert call(runs / "rrn", photos, "out", "--probabilities", "--segmenter", segmenter) == 0
    model = loaded(runs)
    for name, size in SIZES.items():
        _, probabilities, _ = both(model, photos / f"{name}.png")
        chosen = probabilities.mean(0) if segmenter == "ensemble" else probabilities[int(segmenter) - 1]
        with Image.open(tmp_path / "out" / "labels" / f"{name}.png") as label:
            assert label.mode == "P" and np.array_equal(np.asarray(label), chosen[0].argmax(0).numpy())
            shown = np.asarray(label.convert("RGB"))
        assert np.array_equal(shown, palette(3)[chosen[0].argmax(0).numpy()])
        written = np.load(tmp_path / "out" / "probabilities" / f"{name}.npz")["probabilities"]
        assert written.dtype == np.float16 and written.shape == (3, *size)
        assert np.abs(written.astype(float) - chosen[0].numpy()).max() < 1e-3
        assert np.abs(written.astype(float).sum(0) - 1).max() < 2e-3


def test_segmenters_differ(runs, photos):
    for segmenter in ("ensemble", "1", "2"):
        assert call(runs / "rrn", photos, segmenter, "--probabilities", "--segmenter", segmenter) == 0
    found = {np.load(photos.parent / s / "probabilities" / "a.npz")["probabilities"].tobytes() for s in ("1", "2")}
    assert len(found) == 2


def test_the_same_twice_gives_the_same_bytes(runs, photos, tmp_path):
    for out in ("first", "second"):
        assert call(runs / "rrn", photos, out, "--probabilities", "--overlay", "--regions") == 0
    first, second = tmp_path / "first", tmp_path / "second"
    assert names(first) == names(second) and len(names(first)) == 4 * 3 + 1
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names(first))


def test_regions(runs, photos, tmp_path):
    assert call(runs / "rrn", photos, "out", "--regions") == 0
    table = pd.read_csv(tmp_path / "out" / "regions.csv")
    assert tuple(table) == command.REGION_COLUMNS and set(table["image"]) == set(SIZES)
    model = loaded(runs)
    for name, (height, width) in SIZES.items():
        logits, probabilities, images = both(model, photos / f"{name}.png")
        part = table[table["image"] == name]
        scores = model.region_scores(logits, images)[:, 0, 0]
        assert part["score"].to_numpy() == pytest.approx(scores.flatten().numpy(), rel=1e-5)
        assert (part["row"].max() + 1, part["column"].max() + 1) == (-(-height // 16), -(-width // 16))
        last = part[(part["segmenter"] == 2) & (part["row"] == 1) & (part["column"] == 1)].iloc[0]
        cut = probabilities[:, 0, :, 16:32, 16:32]
        assert last["confidence"] == pytest.approx(float(cut[1].amax(0).mean()), rel=1e-5)
        same = (cut[0].argmax(0) == cut[1].argmax(0)).float().mean()
        assert last["agreement"] == pytest.approx(float(same), rel=1e-5)
        with Image.open(tmp_path / "out" / "regions" / f"{name}.png") as drawn:
            assert drawn.size == (3 * width, 3 * height)


def test_overlay_is_the_mean_of_image_and_colors(runs, photos, tmp_path):
    assert call(runs / "cps_cutmix", photos / "a.png", "out", "--overlay") == 0
    assert names(tmp_path / "out") == ["labels/a.png", "overlays/a.png"]
    arrays = [
        np.asarray(Image.open(p).convert("RGB")).astype(float)
        for p in (photos / "a.png", tmp_path / "out/labels/a.png")
    ]
    drawn = np.asarray(Image.open(tmp_path / "out" / "overlays" / "a.png"))
    assert np.abs(drawn - (arrays[0] + arrays[1]) / 2).max() <= 1


def test_colors_of_the_data_set_are_those_of_the_labels(runs, photos, tmp_path):
    run = change(copy(runs / "rrn", tmp_path / "run"), colours=COLORS)
    assert call(run, photos / "a.png", "out") == 0
    with Image.open(tmp_path / "out" / "labels" / "a.png") as label:
        assert np.array_equal(np.asarray(label.convert("RGB")), np.array(COLORS)[np.asarray(label)])


def test_images_are_resized_as_in_training_and_labels_have_the_size_of_the_image(runs, photos, tmp_path):
    run = change(copy(runs / "rrn", tmp_path / "run"), size=[32, 48])
    assert call(run, photos, "out", "--probabilities", "--regions") == 0
    small = tmp_path / "small.png"
    Image.open(photos / "deep" / "c.png").resize((48, 32), Image.Resampling.BILINEAR).save(small)
    logits, probabilities, images = both(loaded(runs), small)
    expected = torch.nn.functional.interpolate(probabilities.mean(0), (97, 64), mode="bilinear")[0]
    label = np.asarray(Image.open(tmp_path / "out" / "labels" / "deep" / "c.png"))
    assert np.array_equal(label, expected.argmax(0).numpy())
    table = pd.read_csv(tmp_path / "out" / "regions.csv")
    scores = loaded(runs).region_scores(logits, images)[:, 0, 0]
    found = table[table["image"] == "deep/c"]["score"].to_numpy()
    assert scores.shape == (2, 2, 3) and found == pytest.approx(scores.flatten().numpy(), rel=1e-5)


def test_images_larger_than_the_window_that_a_run_was_evaluated_in(runs):
    _, description = finished.load_finished(runs / "rrn")
    assert labeling.protocol_of(description) == description.evaluate
    padded = description.evaluate.model_copy(update={"mode": "pad", "window": (16, 24), "stride": None})
    found = labeling.protocol_of(description.model_copy(update={"evaluate": padded}))
    assert (found.mode, found.window, found.stride, found.last) == ("sliding", (16, 24), (16, 24), "shifted")


def test_a_warmup_names_a_training_instead(runs, photos, capsys):
    assert call(runs / "runs" / "tiny" / "warmup" / "1of4-0", photos, "out") == 1
    assert "1of4-0 is a warmup, which says nothing of the method: name a training" in capsys.readouterr().err


def test_photographs_are_turned_upright_and_gray_ones_read(runs, photos, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save_photo(tmp_path / "in" / "turned.jpg", 24, 40, exif=exif)
    Image.fromarray(np.arange(600, dtype=np.uint16).astype(np.uint8).reshape(20, 30)).save(tmp_path / "in" / "gray.png")
    assert call(runs / "rrn", "in", "out") == 0
    sizes = {name: Image.open(tmp_path / "out" / "labels" / f"{name}.png").size for name in ("turned", "gray")}
    assert sizes == {"turned": (24, 40), "gray": (30, 20)}


def test_broken_images_are_listed_and_the_others_done(runs, photos, tmp_path, capsys):
    (photos / "broken.jpg").write_bytes(b"no image")
    Image.new("CMYK", (20, 20)).save(photos / "print.jpg")
    assert call(runs / "rrn", photos, "out", "--regions") == 1
    assert names(tmp_path / "out" / "labels") == ["a.png", "deep/b.png", "deep/c.png"]
    shown = capsys.readouterr()
    assert shown.out == "3 of 5 files labeled: out/labels\n"
    errors = [line for line in shown.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert "broken.jpg cannot be read" in errors[0] and "it is broken or incomplete" in errors[0]
    assert "print.jpg has pixels of mode CMYK; save it as 8-bit RGB or gray" in errors[1]


def test_an_image_beyond_the_memory_is_named(runs, photos, monkeypatch, capsys):
    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Predictor, "_logits", full)
    assert call(runs / "rrn", photos / "a.png", photos / "deep" / "b.png", "out") == 1
    shown = capsys.readouterr()
    assert shown.out.startswith("0 of 2 files labeled") and shown.err.count("error: ") == 2
    what = "looking at images of shape [1, 3, 20, 28] does not fit into memory (CUDA out of memory)"
    assert f"a.png does not fit into memory: {what}; what would need less:" in shown.err


def test_files_that_are_left_out_are_counted_and_named(runs, photos, capsys):
    for name in ("c.gif", "deep/d.heic", ".hidden.gif"):
        (photos / name).touch()
    assert call(runs / "cps_cutmix", photos, "out") == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "3 of 3 files labeled: out/labels\n2 files left out: c.gif, deep/d.heic (images end in .jpg, "
    )
    for number in range(20):
        (photos / f"{number:02}.txt").touch()
    assert call(runs / "cps_cutmix", photos, "again") == 0
    assert "22 files left out: 00.txt, 01.txt, " in (out := capsys.readouterr().out) and "09.txt ... (" in out


def test_images_of_other_formats_are_labeled_or_called_by_their_format(runs, photos, capsys):
    for suffix in ("webp", "bmp", "tif"):
        save_photo(photos / f"{suffix}.{suffix}")
    (photos / "film.mp4").write_bytes(b"\0\0\0 ftypisom" + bytes(200))
    save_photo(photos / "still.gif")
    assert call(runs / "cps_cutmix", photos, photos / "film.mp4", photos / "still.gif", "out") == 1
    shown = capsys.readouterr()
    assert shown.out.startswith("6 of 8 files labeled") and "still.gif is a GIF" in shown.err
    assert "film.mp4 cannot be read (" in shown.err and "): it is broken, or no video" in shown.err


@pytest.mark.parametrize("device", ["mps", "xpu", "mps:0", "meta", "gpu", "cuda:-1", "cuda:x", "tpu", ""])
def test_a_device_that_is_none_is_one_sentence(runs, photos, tmp_path, capsys, device):
    assert call(runs / "cps_cutmix", photos, "out", "--device", device) == 1
    assert capsys.readouterr().err == f"error: device: {device!r} is none of auto, cpu, cuda, cuda:0, cuda:1 ...\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fresh", [False, True])
def test_a_run_that_is_not_there_yet_is_answered_with_what_makes_it(photos, capsys, fresh):
    assert call("runs/mine/train/1of4-rrn-7", "data/not/fetched" if fresh else photos, "out") == 1
    assert capsys.readouterr().err == (
        "error: there is no folder runs/mine/train/1of4-rrn-7: `make repro` makes all runs of params.yaml, "
        "`python -m rrn.repro train@1of4-rrn-7` this one, where params.yaml says name: mine\n"
    )


def test_results_are_replaced_only_by_force(runs, photos, tmp_path, capsys):
    assert call(runs / "rrn", photos / "a.png", "out") == 0
    before = (tmp_path / "out" / "labels" / "a.png").read_bytes()
    assert call(runs / "rrn", photos / "a.png", "--segmenter", "1", "out") == 1
    assert "error: out is not empty: name a new folder, or give --force" in capsys.readouterr().err
    assert (tmp_path / "out" / "labels" / "a.png").read_bytes() == before
    assert call(runs / "rrn", photos / "a.png", photos / "deep", "--force", "out") == 0
    assert call(runs / "rrn", photos / "deep", photos / "a.png") == 1
    assert "a.png is a file; the last argument is the folder for the results" in capsys.readouterr().err


def test_what_the_system_says_of_a_folder_comes_with_what_to_do(runs, photos, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command.Labeler, "label_all", full)
    assert call(runs / "rrn", photos / "a.png", "out") == 1
    assert capsys.readouterr().err == (
        "error: [Errno 28] No space left on device; make room in out or name a folder that can be written\n"
    )


def test_a_row_without_discriminators_has_no_region_scores(runs, photos, tmp_path, capsys):
    assert call(runs / "cps_cutmix", photos, "out", "--regions") == 1
    assert capsys.readouterr().err == f"error: {labeling.NO_DISCRIMINATORS}\n" and not (tmp_path / "out").exists()
    model, description = finished.load_finished(runs / "cps_cutmix")
    predictor = labeling.predictor_of(model, description)
    with pytest.raises(SettingsError, match="this run has no region discriminators"):
        labeling.predict(predictor, description, np.zeros((20, 20, 3), np.uint8), Wanted(regions=True))


def test_no_finished_run(runs, photos, tmp_path, capsys):
    assert call("nowhere", photos, "out") == 1
    text = "error: there is no folder nowhere: name that of a finished run, such as runs/shapes/train/1of16-rrn-0\n"
    assert capsys.readouterr().err == text
    assert call(photos, photos, "out") == 1
    assert "photos is no finished run: it has no run.json; name the folder of one run" in capsys.readouterr().err
    assert call(runs / "rrn", photos, "out", "--device", "cuda:77") == 1
    assert "device: cuda:77, but torch sees" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_damaged_descriptions(runs, tmp_path):
    run = copy(runs / "rrn", tmp_path / "run")
    whole = (run / "run.json").read_text(encoding="utf-8")
    (run / "run.json").write_text(whole[:100], encoding="utf-8")
    with pytest.raises(SettingsError, match=r"run.json is damaged or was written by another version; repeat the run"):
        finished.load_finished(run)
    values = json.loads(whole)
    values.pop("networks")
    (run / "run.json").write_text(json.dumps(values | {"seed": "x", "more": 1}), encoding="utf-8")
    with pytest.raises(SettingsError, match=r"seed: Input should be(.|\n)*networks: Field required(.|\n)*more: Extra"):
        finished.load_finished(run)
    (run / "run.json").write_text(json.dumps(json.loads(whole) | {"colours": COLORS[:2]}), encoding="utf-8")
    with pytest.raises(SettingsError, match="2 colors for 3 classes"):
        finished.load_finished(run)


def test_weights_of_other_networks(runs, tmp_path):
    run = copy(runs / "rrn", tmp_path / "run")
    change(run, classes=["one", "two"])
    with pytest.raises(
        SettingsError, match=r"run/segmenters.safetensors holds other networks than these settings build"
    ):
        finished.load_finished(run)
    run = copy(runs / "rrn", tmp_path / "again")
    tensors = load_file(run / "discriminators.safetensors")
    save_file({name: value[:1].contiguous() for name, value in tensors.items()}, run / "discriminators.safetensors")
    with pytest.raises(SettingsError, match=r"again/discriminators.safetensors holds other networks"):
        finished.load_finished(run)
    (run / "discriminators.safetensors").unlink()
    with pytest.raises(SettingsError, match=r"again has no discriminators.safetensors"):
        finished.load_finished(run)


def test_pretrained_weights_are_not_asked_for_again(runs, tmp_path):
    run = copy(runs / "rrn", tmp_path / "run")
    values = json.loads((run / "run.json").read_text(encoding="utf-8"))
    values["networks"]["model"]["weights"] = "weights/not-here.safetensors"
    model, description = finished.load_finished(change(run, networks=values["networks"]))
    assert description.networks.model.weights == "weights/not-here.safetensors"
    expected = load_file(run / "segmenters.safetensors")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.segmenters.state_dict().items())


def test_a_student_its_teacher_or_their_ensemble_label(runs, photos, tmp_path):
    path, probabilities = photos / "a.png", {}
    for who in ("1", "2", "ensemble"):
        out = tmp_path / f"out-{who}"
        assert call(runs / "student", path, out, "--segmenter", who, "--probabilities", "--regions") == 0
        probabilities[who] = np.load(out / "probabilities" / "a.npz")["probabilities"].astype(float)
    np.testing.assert_allclose((probabilities["1"] + probabilities["2"]) / 2, probabilities["ensemble"], atol=1e-3)
    assert not np.allclose(probabilities["1"], probabilities["2"], atol=1e-3)
