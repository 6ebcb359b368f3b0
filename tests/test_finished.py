"""What a finished run and its folder promise, to the byte and to the word."""

import fcntl
import json
import os
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from conftest import ROOT

from rrn import config
from rrn.config import SettingsError
from rrn.runs import checkpoint
from rrn.runs.checkpoint import Description, ResumeError, Scratch

SETTINGS = tiny.settings("cps")
DESCRIPTION = Description(
    stage="train",
    partition="1of4",
    method="cps",
    seed=3,
    step=7,
    settings="0123",
    classes=("one", "two", "three"),
    colours=(),
    size=(20, 28),
    networks=checkpoint.networks_of(SETTINGS),
    evaluate=SETTINGS.evaluate.model_copy(update=checkpoint.NO_MATTER),
)


def changed(folder, **values):
    """Write the description with other values, None for none; return the folder."""
    checkpoint.write_description(DESCRIPTION, folder)
    path = folder / "run.json"
    laid = json.loads(path.read_text(encoding="utf-8")) | values
    path.write_text(json.dumps({k: v for k, v in laid.items() if v is not None}), encoding="utf-8")
    return folder


def test_a_description_comes_back_and_is_laid_out_for_people(tmp_path):
    checkpoint.write_description(DESCRIPTION, tmp_path)
    text = (tmp_path / "run.json").read_text(encoding="utf-8")
    assert text.startswith('{\n  "stage": "train",\n  "partition": "1of4",\n  "method": "cps",\n  "seed": 3,\n')
    assert '\n  "classes": [\n    "one",\n' in text and text.endswith("}\n")
    assert checkpoint.read_description(tmp_path) == DESCRIPTION


@pytest.mark.parametrize("number", [1, config.IGNORE_INDEX])
def test_from_one_class_to_as_many_as_a_byte_beside_void_can_be_described(tmp_path, number):
    classes = [f"c{i}" for i in range(number)]
    assert checkpoint.read_description(changed(tmp_path, classes=classes)).classes == tuple(classes)


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
        checkpoint.read_description(changed(tmp_path, classes=classes))


def test_each_problem_of_a_description_has_a_line_that_begins_with_its_place(tmp_path):
    changed(tmp_path, size=[20, "x"], seed="y")
    with pytest.raises(SettingsError) as caught:
        checkpoint.read_description(tmp_path)
    first, *problems = str(caught.value).splitlines()
    assert first == f"{tmp_path}/run.json is damaged or was written by another version; repeat the run that made it:"
    assert [line.split(": ")[0] for line in problems] == ["  seed", "  size.1"]


def test_what_is_no_training_is_refused_with_an_example_or_the_way_on(tmp_path):
    changed(tmp_path, stage="warmup").joinpath("segmenters.safetensors").touch()
    text = (tmp_path / "run.json").read_text(encoding="utf-8")
    (tmp_path / "run.json").write_text(json.dumps(json.loads(text) | {"networks": None}), encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        checkpoint.load_finished(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is a warmup, which says nothing of the method: name a training, such as "
        "runs/shapes/train/1of16-supervised-0"
    )
    (tmp_path / "run.json").unlink()
    with pytest.raises(SettingsError) as caught:
        checkpoint.load_finished(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is no finished run: it has no run.json; name the folder of one run, "
        "and if that was interrupted, give its command again"
    )


def test_a_finished_run_is_on_the_disk_before_it_counts(tmp_path, monkeypatch):
    synchronised = []
    monkeypatch.setattr(os, "fsync", lambda f: synchronised.append(Path(f"/proc/self/fd/{f}").resolve().name))
    checkpoint.write_weights(tiny.model("supervised"), tmp_path)
    checkpoint.write_description(DESCRIPTION, tmp_path)
    files = (".segmenters.safetensors.part", ".run.json.part")
    assert synchronised == [name for file in files for name in (file, tmp_path.name)]


def test_a_run_is_read_onto_its_device_without_the_weights_its_encoder_began_with(tmp_path):
    checkpoint.write_weights(tiny.model("cps"), tmp_path)
    missing = SETTINGS.model.model_copy(update={"weights": "weights/not-here.safetensors"})
    settings = SETTINGS.model_copy(update={"model": missing, "device": "meta"})
    assert {p.device.type for p in checkpoint.load(tmp_path, settings, tiny.CLASSES).parameters()} == {"meta"}


def test_one_gpu_is_the_first_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert checkpoint.device_of("cuda") == torch.device("cuda")
    assert checkpoint.device_of("cuda:0").index == 0
    with pytest.raises(SettingsError, match=r"^device: cuda:1, but torch sees 1 GPUs here, the first is cuda:0$"):
        checkpoint.device_of("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SettingsError, match=r"auto or cpu, or install a driver and a CUDA build of torch$"):
        checkpoint.device_of("cuda")


def test_the_code_is_all_source_of_the_package_without_remarks_and_the_version_of_torch(tmp_path, monkeypatch):
    assert checkpoint.PACKAGE == ROOT / "rrn"
    monkeypatch.setattr(checkpoint, "PACKAGE", shutil.copytree(ROOT / "rrn", tmp_path / "rrn"))
    found = [checkpoint.code()]
    path = tmp_path / "rrn" / "runtime" / "seeding.py"
    for text in (f'"""Other words."""\n# and more\n{path.read_text()}\n# at the end', path.read_text() + "more = 1\n"):
        path.write_text(text)
        found.append(checkpoint.code())
    assert found[0] == found[1] != found[2]
    assert {one["torch"] for one in found} == {torch.__version__}


def test_a_value_in_place_of_a_section_is_one_difference():
    assert checkpoint.differences({"a": {"b": 1}}, {"a": 3}) == ["a: {'b': 1} -> 3"]
    assert checkpoint.differences({"a": 3}, {"a": {"b": 1}}) == ["a: 3 -> {'b': 1}"]


def test_the_lock_names_its_last_holder_alone_or_nobody(tmp_path, monkeypatch):
    monkeypatch.delenv("RRN_SCRATCH", raising=False)
    monkeypatch.setattr(checkpoint, "PATIENCE", 0.0)
    lock = tmp_path / ".scratch" / "run" / "lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("123456789", encoding="utf-8")  # of a process that died
    with Scratch(tmp_path, "run", {}):
        assert lock.read_text(encoding="utf-8") == str(os.getpid())
    lock.write_text("", encoding="utf-8")
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ResumeError, match=r"another process \(pid unknown\) is running run; wait for it or end it"):
            Scratch(tmp_path, "run", {})


def test_each_damaged_state_has_a_line_of_its_own(tmp_path, monkeypatch):
    monkeypatch.delenv("RRN_SCRATCH", raising=False)
    with Scratch(tmp_path, "run", {}) as scratch:
        for step in (1, 2):
            scratch.save({"step": step})
    for path in scratch.folder.glob("step-*"):
        path.write_bytes(b"")
    with pytest.raises(ResumeError) as caught:
        Scratch(tmp_path, "run", {})
    _, *lines, _ = str(caught.value).splitlines()
    assert [line.split(" cannot be read")[0] for line in lines] == [
        f"  {scratch.folder}/step-0000000{step}.safetensors" for step in (2, 1)
    ]
