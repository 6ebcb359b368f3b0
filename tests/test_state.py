"""What is kept of a run: tensors and numbers come back as they were, or not at all."""

import json
import math
import os
import resource
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from safetensors import SafetensorError
from safetensors.torch import save_file

from rrn.runs import state
from rrn.runs.state import DamagedError
from rrn.runtime.atomic_io import WriteError

TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool)
LEAVES = some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | some.text()
VALUES = some.recursive(
    LEAVES, lambda part: some.lists(part, max_size=3) | some.dictionaries(some.text(), part, max_size=3), max_leaves=8
)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(value=some.dictionaries(some.text(), VALUES, max_size=4))
def test_whatever_json_holds_comes_back(value, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "value.safetensors"
    state.write(path, value)
    assert state.read(path) == value


@pytest.mark.parametrize("kind", TYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4, 5)], ids=str)
def test_tensors_come_back_bit_for_bit(tmp_path, kind, shape):
    value = (torch.rand(shape, dtype=torch.float64) * 100).to(kind)
    last = value.to(memory_format=torch.channels_last) if len(shape) == 4 else value
    state.write(tmp_path / "a", {"deep": [{"here": value}, last], "none": None})
    found = state.read(tmp_path / "a")
    for tensor in (found["deep"][0]["here"], found["deep"][1]):
        assert tensor.dtype == kind and tensor.shape == value.shape and torch.equal(tensor, value)


def test_numbers_that_are_not_finite_come_back(tmp_path):
    state.write(tmp_path / "a", {"history": [math.nan, math.inf, -math.inf, 0.1 + 0.2], "t": torch.tensor(math.nan)})
    found = state.read(tmp_path / "a")
    assert math.isnan(found["history"][0]) and found["history"][1:] == [math.inf, -math.inf, 0.1 + 0.2]
    assert found["t"].isnan()


def test_a_file_of_which_any_byte_has_changed_is_not_read(tmp_path):
    path = tmp_path / "a"
    state.write(path, {"step": 12, "weights": torch.arange(3.0), "name": "rrn"})
    whole = path.read_bytes()
    for index in range(len(whole)):
        changed = bytearray(whole)
        changed[index] ^= 8
        path.write_bytes(changed)
        try:
            found = state.read(path)
        except DamagedError as error:
            assert str(path) in str(error)
        else:  # white space of the header, or the like
            assert found["step"] == 12 and found["name"] == "rrn" and torch.equal(found["weights"], torch.arange(3.0))


@pytest.mark.parametrize("values", ["swapped", "of another shape", "of another name"])
def test_tensors_that_were_exchanged_are_noticed(tmp_path, values):
    path = tmp_path / "a"
    state.write(path, {"a": torch.ones(2, 3), "b": torch.zeros(2, 3)})
    with state.safe_open(path, "pt") as file:
        about = file.metadata()
    ones, zeros = torch.ones(2, 3), torch.zeros(2, 3)
    tensors = {
        "swapped": {"/a": zeros, "/b": ones},
        "of another shape": {"/a": ones.reshape(3, 2), "/b": zeros},
        "of another name": {"/a": ones, "/c": zeros},
    }[values]
    save_file(tensors, path, about)
    with pytest.raises(DamagedError, match="a is damaged: its checksum is not that of what is in it"):
        state.read(path)


def test_files_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(DamagedError, match=r"weights.safetensors is no state of a run"):
        state.read(path)
    torch.save({"step": 1}, path)
    with pytest.raises(DamagedError, match=r"weights.safetensors cannot be read: "):
        state.read(path)
    with pytest.raises(DamagedError, match=r"none cannot be read: .*No such file"):
        state.read(tmp_path / "none")


def test_what_was_not_written_as_it_was_is_not_put_in_place(tmp_path, monkeypatch):
    path = tmp_path / "a"
    state.write(path, {"step": 1})
    plain = save_file

    def failing_disk(tensors, file, about):
        plain({name: tensor + 1 for name, tensor in tensors.items()}, file, about)

    monkeypatch.setattr(state, "save_file", failing_disk)
    with pytest.raises(DamagedError, match="checksum"):
        state.write(path, {"step": 2, "a": torch.zeros(3)})
    assert state.read(path) == {"step": 1} and list(tmp_path.iterdir()) == [path]


def test_a_disk_that_keeps_the_former_contents_is_noticed(tmp_path, monkeypatch):
    path = tmp_path / "a"
    state.write(path, {"step": 1})
    former = path.read_bytes()
    monkeypatch.setattr(state, "save_file", lambda tensors, file, about: file.write_bytes(former))
    with pytest.raises(DamagedError, match=r"/a: what was read back is not what was written; the disk may be failing"):
        state.write(path, {"step": 2})
    assert state.read(path) == {"step": 1} and list(tmp_path.iterdir()) == [path]


def test_what_safetensors_says_of_a_full_disk_is_said_as_of_any_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    state.write(path, {"step": 1})

    def full(tensors, file, about):
        file.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(state, "save_file", full)
    with pytest.raises(WriteError, match=r"/a cannot be written \(No space left on device\): make room there"):
        state.write(path, {"step": 2})
    assert state.read(path) == {"step": 1} and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one(tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limit[1]))
    try:
        with pytest.raises(WriteError, match=r"/a cannot be written \(File too large\): make room there"):
            state.write(tmp_path / "a", {"weights": torch.zeros(1 << 16)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not list(tmp_path.iterdir())


def test_a_file_and_its_name_are_on_the_disk_before_it_counts(tmp_path, monkeypatch):
    happened, replace = [], Path.replace

    def synchronised(descriptor):
        happened.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)

    monkeypatch.setattr(os, "fsync", synchronised)
    monkeypatch.setattr(Path, "replace", lambda self, to: happened.append("renamed") or replace(self, to))
    state.write(tmp_path / "a", {"step": 1})
    assert happened == [".a.part", "renamed", tmp_path.name]


def test_the_json_is_what_it_says(tmp_path):
    state.write(tmp_path / "a", {"step": 3, "learner": {"weights": torch.zeros(2)}})
    with state.safe_open(tmp_path / "a", "pt") as file:
        assert json.loads(file.metadata()["state"]) == {
            "step": 3,
            "learner": {"weights": {"tensor": "/learner/weights"}},
        }
        assert list(file.keys()) == ["/learner/weights"]
