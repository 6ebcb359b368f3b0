"""What a finished run and its folder promise, to the byte and to the word."""

import json
import os
from pathlib import Path

import pytest
import tiny
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rrn import config
from rrn.config import SettingsError
from rrn.runs import finished
from rrn.runs.finished import RunCard
from rrn.runtime.atomic_io import WriteError

SETTINGS = tiny.settings("cps")
CARD = RunCard(
    stage="train",
    partition="1of4",
    method="cps",
    seed=3,
    step=7,
    settings="0123",
    classes=("one", "two", "three"),
    colours=(),
    size=(20, 28),
    networks=finished.networks_of(SETTINGS),
    evaluate=SETTINGS.evaluate,
)


def changed(folder, **values):
    """Write the card with other values, None for none; return the folder."""
    finished.write_card(CARD, folder)
    path = folder / "run.json"
    laid = json.loads(path.read_text(encoding="utf-8")) | values
    path.write_text(json.dumps({k: v for k, v in laid.items() if v is not None}), encoding="utf-8")
    return folder


def test_a_card_comes_back_and_is_laid_out_for_people(tmp_path):
    finished.write_card(CARD, tmp_path)
    text = (tmp_path / "run.json").read_text(encoding="utf-8")
    assert text.startswith('{\n  "stage": "train",\n  "partition": "1of4",\n  "method": "cps",\n  "seed": 3,\n')
    assert '\n  "classes": [\n    "one",\n' in text and text.endswith("}\n")
    assert finished.read_card(tmp_path) == CARD


def test_a_card_of_an_earlier_version_is_read(tmp_path):
    held = json.loads(CARD.model_dump_json())["evaluate"]
    assert finished.read_card(changed(tmp_path, evaluate=held | {"batch": 1, "evidence": 0})) == CARD
    with pytest.raises(SettingsError, match=r"evaluate.more: Extra inputs"):
        finished.read_card(changed(tmp_path, evaluate=held | {"batch": 1, "more": 0}))


def test_a_card_from_before_a_setting_has_its_default(tmp_path):
    networks = json.loads(CARD.model_dump_json())["networks"]
    later = ("strong", "labels_from", "teacher", "teacher_decay")
    assert [networks["method"].pop(key) for key in later] == [None, "other", "current", 0.99]
    assert [networks["method"]["filter"].pop(key) for key in ("per", "floor")] == ["batch", 0.0]
    assert finished.read_card(changed(tmp_path, networks=networks)) == CARD


@pytest.mark.parametrize("number", [1, config.IGNORE_INDEX])
def test_from_one_class_to_as_many_as_a_byte_beside_void_can_be_described(tmp_path, number):
    classes = [f"c{i}" for i in range(number)]
    assert finished.read_card(changed(tmp_path, classes=classes)).classes == tuple(classes)


@pytest.mark.parametrize(
    ("classes", "problem"),
    [
        ([], "Tuple should have at least 1 item"),
        (["c"] * 256, "Tuple should have at most 255 items"),
        (None, "Field required"),
    ],
)
def test_classes_that_no_label_can_have_are_refused(tmp_path, classes, problem):
    with pytest.raises(SettingsError, match=f"classes: {problem}"):
        finished.read_card(changed(tmp_path, classes=classes))


def test_each_problem_of_a_card_has_a_line_that_begins_with_its_place(tmp_path):
    changed(tmp_path, size=[20, "x"], seed="y")
    with pytest.raises(SettingsError) as caught:
        finished.read_card(tmp_path)
    first, *problems = str(caught.value).splitlines()
    assert first == f"{tmp_path}/run.json is damaged or was written by another version; repeat the run that made it:"
    assert [line.split(": ")[0] for line in problems] == ["  seed", "  size.1"]


def test_what_is_no_training_is_refused_with_an_example_or_the_way_on(tmp_path):
    changed(tmp_path, stage="warmup").joinpath("segmenters.safetensors").touch()
    text = (tmp_path / "run.json").read_text(encoding="utf-8")
    (tmp_path / "run.json").write_text(json.dumps(json.loads(text) | {"networks": None}), encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        finished.load_finished(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is a warmup, which says nothing of the method: name a training, such as "
        "runs/shapes/train/1of16-supervised-0"
    )
    (tmp_path / "run.json").unlink()
    with pytest.raises(SettingsError) as caught:
        finished.load_finished(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is no finished run: it has no run.json; name the folder of one run, "
        "and if that was interrupted, give its command again"
    )


def test_a_finished_run_is_on_the_disk_before_it_counts(tmp_path, monkeypatch):
    synchronized = []
    monkeypatch.setattr(os, "fsync", lambda f: synchronized.append(Path(f"/proc/self/fd/{f}").resolve().name))
    finished.write_weights(tiny.model("supervised"), tmp_path)
    finished.write_card(CARD, tmp_path)
    files = (".segmenters.safetensors.part", ".run.json.part")
    assert synchronized == [name for file in files for name in (file, tmp_path.name)]


def test_a_run_is_read_onto_its_device_without_the_weights_its_encoder_began_with(tmp_path):
    finished.write_weights(tiny.model("cps"), tmp_path)
    missing = SETTINGS.model.model_copy(update={"weights": "weights/not-here.safetensors"})
    settings = SETTINGS.model_copy(update={"model": missing, "device": "meta"})
    assert {p.device.type for p in finished.load_model(tmp_path, settings, tiny.CLASSES).parameters()} == {"meta"}


def test_weights_come_back(tmp_path):
    settings = tiny.settings("rrn")
    model = tiny.model("rrn", seed=7)
    finished.write_weights(model, tmp_path)
    again = finished.load_model(tmp_path, settings, tiny.CLASSES)
    found = again.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in model.state_dict().items())
    fresh = tiny.model("cps_cutmix")
    finished.read_segmenters(fresh, tmp_path)
    assert torch.equal(*(next(m.segmenters.parameters()) for m in (fresh, model)))


def test_rows_without_discriminators_write_none(tmp_path):
    finished.write_weights(tiny.model("supervised"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["segmenters.safetensors"]


def test_discriminators_of_another_row_do_not_stay(tmp_path):
    finished.write_weights(tiny.model("rrn"), tmp_path)
    assert (tmp_path / "discriminators.safetensors").exists()
    finished.write_weights(tiny.model("supervised"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["segmenters.safetensors"]


def test_missing_damaged_and_foreign_weights_are_named(tmp_path):
    folder = tmp_path / "1of4-rrn-0"
    folder.mkdir()
    model, path = tiny.model("cps_cutmix"), folder / "segmenters.safetensors"
    with pytest.raises(SettingsError, match=r"1of4-rrn-0 has no segmenters.safetensors: run `dvc repro`"):
        finished.read_segmenters(model, folder)
    finished.write_weights(model, folder)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SettingsError, match=r"1of4-rrn-0/segmenters.safetensors is damaged .* delete it and repeat"):
        finished.read_segmenters(model, folder)
    path.write_bytes(whole)
    tensors = load_file(path)
    save_file({name: value for name, value in tensors.items() if "head" not in name}, path)
    with pytest.raises(SettingsError, match=r"holds other networks than these settings build; repeat the run"):
        finished.read_segmenters(model, folder)


def test_what_safetensors_says_of_a_full_disk_is_said_as_of_any_file(tmp_path, monkeypatch):
    def full(tensors, file):
        file.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(finished, "save_file", full)
    with pytest.raises(
        WriteError, match=r"segmenters.safetensors cannot be written \(No space left on device\): make room there"
    ):
        finished.write_weights(tiny.model("supervised"), tmp_path)
    assert not list(tmp_path.iterdir())
