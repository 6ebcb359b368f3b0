"""An interrupted run: what is kept of it comes back as it was, or not at all, and only to the run that it is of."""

import fcntl
import hashlib
import math
import os
import resource
import threading
from pathlib import Path

import pytest
import tiny
import torch
from conftest import python
from hypothesis import given, settings
from hypothesis import strategies as some
from safetensors.torch import save_file

from rrn.runs import resume
from rrn.runs.resume import DamagedError, DamagedWarning, ResumeError, ResumeFolder
from rrn.runtime.atomic_io import WriteError

BEFORE = {"settings": {"optimizer": {"lr": 0.1}, "threads": 1}, "code": {"rrn": "a", "torch": "1"}}
OTHER_SETTINGS = {"settings": {"optimizer": {"lr": 0.2}, "threads": 1}, "code": {"rrn": "b", "torch": "1"}}
OTHER_CODE = {"settings": {"optimizer": {"lr": 0.1}, "threads": 1}, "code": {"rrn": "b", "torch": "2"}}
UNDER = "run was interrupted under other conditions:"
RESTART = "set RRN_RESUME=restart to begin anew, or "

TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool)
LEAVES = some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | some.text()
VALUES = some.recursive(
    LEAVES, lambda part: some.lists(part, max_size=3) | some.dictionaries(some.text(), part, max_size=3), max_leaves=8
)


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.delenv("RRN_RESUME", raising=False)
    monkeypatch.delenv("RRN_SCRATCH", raising=False)


def leave_states(root, *steps, identity=BEFORE):
    """Be interrupted after some steps; return the folder."""
    with ResumeFolder(root, "run", identity) as scratch:
        for step in steps:
            scratch.save({"step": step, "value": torch.tensor(float(step))})
        return scratch.path


def found(root, identity=BEFORE):
    """Return the step that a run would go on from."""
    with ResumeFolder(root, "run", identity) as scratch:
        state = scratch.load()
        assert state is None or state["value"] == state["step"]
        return state and state["step"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def spoil(path, way):
    """Damage a file as a disk, a crash or a hand does."""
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[-1] ^= 1  # a bit of the checksum
    path.write_bytes({"cut off": whole[: len(whole) // 2], "empty": b"", "changed": bytes(changed)}[way])


def test_state_comes_back_and_goes_when_the_run_is_finished(tmp_path):
    folder = leave_states(tmp_path, 1)
    assert folder == tmp_path / ".scratch" / "run"
    with ResumeFolder(tmp_path, "run", BEFORE) as scratch:
        assert scratch.load() == {"step": 1, "value": torch.tensor(1.0)}
        scratch.remove()
    assert not folder.exists()
    assert found(tmp_path) is None


def test_the_folder_can_be_put_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("RRN_SCRATCH", str(tmp_path / "fast"))
    assert leave_states(tmp_path, 1) == tmp_path / "fast" / "run"


def test_a_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RRN_SCRATCH", str(tmp_path / "file"))
    text = (
        r"file/run cannot be written \(Not a directory\): let it be written, or let RRN_SCRATCH name a folder that has "
        "room and may be written; then give the same command again"
    )
    with pytest.raises(WriteError, match=text):
        ResumeFolder(tmp_path, "run", BEFORE)


def test_the_two_latest_states_are_kept(tmp_path):
    folder = leave_states(tmp_path, 1, 2, 3)
    assert names(folder) == ["lock", "step-00000002.pt", "step-00000003.pt"]
    leave_states(tmp_path, 4)
    assert names(folder)[1:] == ["step-00000003.pt", "step-00000004.pt"]


def test_what_a_killed_process_has_left_half_goes(tmp_path):
    folder = leave_states(tmp_path, 1)
    (folder / ".step-00000002.pt.part").touch()
    leave_states(tmp_path, 3)
    assert names(folder) == ["lock", "step-00000001.pt", "step-00000003.pt"]


def test_a_state_that_is_there_is_not_written_again(tmp_path, monkeypatch):
    leave_states(tmp_path, 1, 2)
    with ResumeFolder(tmp_path, "run", BEFORE) as scratch:
        monkeypatch.setattr(resume, "write_state", None)
        scratch.save({"step": 2})


@pytest.mark.parametrize("way", ["cut off", "empty", "changed"])
def test_where_the_last_state_is_damaged_the_one_before_is_taken(tmp_path, way):
    folder = leave_states(tmp_path, 1, 2)
    spoil(folder / "step-00000002.pt", way)
    text = r"step-00000002.pt is damaged.*; the run goes on from step-00000001.pt"
    with pytest.warns(DamagedWarning, match=text):
        assert found(tmp_path) == 1
    with pytest.warns(DamagedWarning), ResumeFolder(tmp_path, "run", BEFORE) as scratch:
        scratch.save({"step": 3, "value": torch.tensor(3.0)})  # the damaged one goes, the whole one stays
    assert names(folder)[1:] == ["step-00000001.pt", "step-00000003.pt"]
    assert found(tmp_path) == 3


def test_where_all_states_are_damaged_the_run_says_so(tmp_path):
    folder = leave_states(tmp_path, 1, 2)
    for path in folder.glob("step-*"):
        spoil(path, "cut off")
    with pytest.raises(ResumeError) as caught:
        ResumeFolder(tmp_path, "run", BEFORE)
    first, *files, last = str(caught.value).splitlines()
    assert first == "run was interrupted, and none of its states can be read:"
    assert [name in line for name, line in zip(("00000002", "00000001"), files, strict=True)] == [True, True]
    assert last == f"delete the folder {folder} to begin anew"


@pytest.mark.parametrize(
    ("identity", "changed", "way"),
    [
        (OTHER_SETTINGS, ["code.rrn: 'a' -> 'b'", "settings.optimizer.lr: 0.1 -> 0.2"], "undo the change to go on"),
        (
            OTHER_CODE,
            ["code.rrn: 'a' -> 'b'", "code.torch: '1' -> '2'"],
            "RRN_RESUME=accept_code to go on with this code",
        ),
    ],
    ids=["settings", "code"],
)
def test_state_of_other_conditions_is_refused_with_what_changed_and_the_way_on(tmp_path, identity, changed, way):
    leave_states(tmp_path, 1)
    with pytest.raises(ResumeError) as caught:
        ResumeFolder(tmp_path, "run", identity)
    assert str(caught.value).splitlines() == [UNDER, *(f"  {line}" for line in changed), RESTART + way]
    assert found(tmp_path) == 1  # nothing was lost, and the lock is free


@pytest.mark.parametrize(("wish", "step"), [("restart", None), ("accept_code", 1)])
def test_the_user_may_choose(tmp_path, monkeypatch, wish, step):
    folder = leave_states(tmp_path, 1)
    monkeypatch.setenv("RRN_RESUME", wish)
    assert found(tmp_path, OTHER_CODE) == step
    assert len(list(folder.glob("step-*"))) == (step or 0)


def test_accepting_code_accepts_no_other_settings(tmp_path, monkeypatch):
    leave_states(tmp_path, 1)
    monkeypatch.setenv("RRN_RESUME", "accept_code")
    with pytest.raises(ResumeError, match=r"settings.optimizer.lr: 0.1 -> 0.2"):
        ResumeFolder(tmp_path, "run", OTHER_SETTINGS)
    assert found(tmp_path, OTHER_CODE) == 1


def test_what_follows_a_restart_is_of_the_new_conditions(tmp_path, monkeypatch):
    leave_states(tmp_path, 1, 5)
    with monkeypatch.context() as patch:
        patch.setenv("RRN_RESUME", "restart")
        leave_states(tmp_path, 2, identity=OTHER_SETTINGS)
    assert found(tmp_path, OTHER_SETTINGS) == 2


def test_restart_keeps_state_of_the_same_settings(tmp_path, monkeypatch):
    leave_states(tmp_path, 1)
    monkeypatch.setenv("RRN_RESUME", "restart")
    assert found(tmp_path) == 1


def test_other_wishes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("RRN_RESUME", "yes")
    with pytest.raises(ResumeError, match="RRN_RESUME='yes' is neither restart nor accept_code"):
        ResumeFolder(tmp_path, "run", BEFORE)


def test_a_second_run_is_refused_with_the_pid_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "PATIENCE", 0.0)
    text = f"another process \\(pid {os.getpid()}\\) is running run; wait for it or end it"
    with ResumeFolder(tmp_path, "run", BEFORE), pytest.raises(ResumeError, match=text):
        ResumeFolder(tmp_path, "run", BEFORE)
    ResumeFolder(tmp_path, "run", BEFORE).__exit__(None, None, None)


def test_a_run_waits_a_moment_for_one_that_is_about_to_end(tmp_path):
    first = ResumeFolder(tmp_path, "run", BEFORE)
    leaving = threading.Timer(0.3, first.__exit__, (None, None, None))
    leaving.start()
    assert found(tmp_path) is None
    leaving.join()


def test_the_lock_of_a_dead_process_is_free(tmp_path):
    code = (
        "import os, pathlib; from rrn.runs.resume import ResumeFolder; "
        f"s = ResumeFolder(pathlib.Path({str(tmp_path)!r}), 'run', {{}}); s.save({{'step': 5}}); os._exit(9)"
    )
    assert python(tiny.PARAMS.parent, "-c", code).returncode == 9
    with ResumeFolder(tmp_path, "run", {}) as scratch:
        assert scratch.load() == {"step": 5}


def test_differences_names_leaves():
    assert resume.differences({"a": {"b": 1}, "c": [1]}, {"a": {"b": 2}, "d": 1}) == [
        "a.b: 1 -> 2",
        "c: [1] -> None",
        "d: None -> 1",
    ]


def test_a_value_in_place_of_a_section_is_one_difference():
    assert resume.differences({"a": {"b": 1}}, {"a": 3}) == ["a: {'b': 1} -> 3"]
    assert resume.differences({"a": 3}, {"a": {"b": 1}}) == ["a: 3 -> {'b': 1}"]


def test_the_lock_names_its_last_holder_alone_or_nobody(tmp_path, monkeypatch):
    monkeypatch.delenv("RRN_SCRATCH", raising=False)
    monkeypatch.setattr(resume, "PATIENCE", 0.0)
    lock = tmp_path / ".scratch" / "run" / "lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("123456789", encoding="utf-8")  # of a process that died
    with ResumeFolder(tmp_path, "run", {}):
        assert lock.read_text(encoding="utf-8") == str(os.getpid())
    lock.write_text("", encoding="utf-8")
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ResumeError, match=r"another process \(pid unknown\) is running run; wait for it or end it"):
            ResumeFolder(tmp_path, "run", {})


def test_each_damaged_state_has_a_line_of_its_own(tmp_path, monkeypatch):
    monkeypatch.delenv("RRN_SCRATCH", raising=False)
    with ResumeFolder(tmp_path, "run", {}) as scratch:
        for step in (1, 2):
            scratch.save({"step": step})
    for path in scratch.path.glob("step-*"):
        path.write_bytes(b"")
    with pytest.raises(ResumeError) as caught:
        ResumeFolder(tmp_path, "run", {})
    _, *lines, _ = str(caught.value).splitlines()
    assert [line.split(" is damaged: ")[0] for line in lines] == [
        f"  {scratch.path}/step-0000000{step}.pt" for step in (2, 1)
    ]


# ---- files


@settings(derandomize=True, max_examples=60, deadline=None)
@given(value=some.dictionaries(some.text(), VALUES, max_size=4))
def test_whatever_json_holds_comes_back(value, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "value.pt"
    resume.write_state(path, value)
    assert resume.read_state(path) == value


@pytest.mark.parametrize("kind", TYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4, 5)], ids=str)
def test_tensors_come_back_bit_for_bit(tmp_path, kind, shape):
    value = (torch.rand(shape, dtype=torch.float64) * 100).to(kind)
    last = value.to(memory_format=torch.channels_last) if len(shape) == 4 else value
    resume.write_state(tmp_path / "a", {"deep": [{"here": value}, last], "none": None})
    found = resume.read_state(tmp_path / "a")
    for tensor in (found["deep"][0]["here"], found["deep"][1]):
        assert tensor.dtype == kind and tensor.shape == value.shape and torch.equal(tensor, value)


def test_numbers_that_are_not_finite_come_back(tmp_path):
    resume.write_state(
        tmp_path / "a", {"history": [math.nan, math.inf, -math.inf, 0.1 + 0.2], "t": torch.tensor(math.nan)}
    )
    found = resume.read_state(tmp_path / "a")
    assert math.isnan(found["history"][0]) and found["history"][1:] == [math.inf, -math.inf, 0.1 + 0.2]
    assert found["t"].isnan()


def test_a_file_of_which_any_byte_has_changed_is_not_read(tmp_path):
    path = tmp_path / "a"
    resume.write_state(path, {"step": 12, "weights": torch.arange(3.0), "name": "rrn"})
    whole = path.read_bytes()
    for index in range(len(whole)):
        changed = bytearray(whole)
        changed[index] ^= 8
        path.write_bytes(changed)
        with pytest.raises(DamagedError, match="a is damaged: its checksum is not that of what is in it"):
            resume.read_state(path)


def test_files_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(DamagedError, match=r"weights.safetensors is damaged: "):
        resume.read_state(path)
    torch.save({"step": 1}, path)
    with pytest.raises(DamagedError, match=r"weights.safetensors is damaged: "):
        resume.read_state(path)
    with pytest.raises(DamagedError, match=r"none cannot be read: .*No such file"):
        resume.read_state(tmp_path / "none")


class Command:
    """An object that runs a command where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_file_with_code_in_it_is_refused_whatever_its_checksum_and_runs_nothing(tmp_path):
    path = tmp_path / "a"
    torch.save({"step": Command(tmp_path / "ran")}, path)
    path.write_bytes(path.read_bytes() + hashlib.sha256(path.read_bytes()).hexdigest().encode())
    with pytest.raises(DamagedError, match=r"/a holds more than numbers, strings and tensors, and is not read"):
        resume.read_state(path)
    assert not (tmp_path / "ran").exists()


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    with pytest.raises(DamagedError, match=r"holds more than numbers, strings and tensors, and is not read"):
        resume.write_state(tmp_path / "a", {"version": torch.__version__})
    assert not list(tmp_path.iterdir())


def test_torch_reads_a_state_as_any_file_of_its_own(tmp_path):
    resume.write_state(tmp_path / "a", {"step": 3, "learner": {"weights": torch.ones(2)}})
    found = torch.load(tmp_path / "a", weights_only=True)
    assert found["step"] == 3 and torch.equal(found["learner"]["weights"], torch.ones(2))


@pytest.mark.parametrize("fault", [lambda new, old: new[:-1] + b"?", lambda new, old: new[:99], lambda new, old: old])
def test_what_a_failing_disk_keeps_is_not_put_in_place(tmp_path, monkeypatch, fault):
    path, plain = tmp_path / "a", Path.write_bytes
    resume.write_state(path, {"step": 1})
    former = path.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", lambda self, new: plain(self, fault(bytes(new), former)))
    with pytest.raises(DamagedError, match=r"checksum|/a: what was read back is not what was written; the disk may"):
        resume.write_state(path, {"step": 2})
    assert resume.read_state(path) == {"step": 1} and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one(tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limit[1]))
    try:
        with pytest.raises(WriteError, match=r"/a cannot be written \(File too large\): make room there"):
            resume.write_state(tmp_path / "a", {"weights": torch.zeros(1 << 16)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not list(tmp_path.iterdir())


def test_a_file_and_its_name_are_on_the_disk_before_it_counts(tmp_path, monkeypatch):
    happened, replace = [], Path.replace

    def synchronized(descriptor):
        happened.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)

    monkeypatch.setattr(os, "fsync", synchronized)
    monkeypatch.setattr(Path, "replace", lambda self, to: happened.append("renamed") or replace(self, to))
    resume.write_state(tmp_path / "a", {"step": 1})
    assert happened == [".a.part", "renamed", tmp_path.name]
