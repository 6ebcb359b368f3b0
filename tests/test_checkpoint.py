import os
import threading

import pytest
import tiny
import torch
from conftest import python
from safetensors.torch import load_file, save_file

from rrn.config import SettingsError
from rrn.runs import checkpoint
from rrn.runs.checkpoint import DamagedWarning, ResumeError, Scratch
from rrn.runtime.atomic_io import WriteError

BEFORE = {"settings": {"optimizer": {"lr": 0.1}, "threads": 1}, "code": {"rrn": "a", "torch": "1"}}
OTHER_SETTINGS = {"settings": {"optimizer": {"lr": 0.2}, "threads": 1}, "code": {"rrn": "b", "torch": "1"}}
OTHER_CODE = {"settings": {"optimizer": {"lr": 0.1}, "threads": 1}, "code": {"rrn": "b", "torch": "2"}}
UNDER = "run was interrupted under other conditions:"
RESTART = "set RRN_RESUME=restart to begin anew, or "


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.delenv("RRN_RESUME", raising=False)
    monkeypatch.delenv("RRN_SCRATCH", raising=False)


def leave_states(root, *steps, identity=BEFORE):
    """Be interrupted after some steps; return the folder."""
    with Scratch(root, "run", identity) as scratch:
        for step in steps:
            scratch.save({"step": step, "value": torch.tensor(float(step))})
        return scratch.folder


def found(root, identity=BEFORE):
    """Return the step that a run would go on from."""
    with Scratch(root, "run", identity) as scratch:
        state = scratch.load()
        assert state is None or state["value"] == state["step"]
        return state and state["step"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def spoil(path, way):
    """Damage a file as a disk, a crash or a hand does."""
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[-1] ^= 1  # a bit of the last tensor
    path.write_bytes({"cut off": whole[: len(whole) // 2], "empty": b"", "changed": bytes(changed)}[way])


def test_state_comes_back_and_goes_when_the_run_is_finished(tmp_path):
    folder = leave_states(tmp_path, 1)
    assert folder == tmp_path / ".scratch" / "run"
    with Scratch(tmp_path, "run", BEFORE) as scratch:
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
        Scratch(tmp_path, "run", BEFORE)


def test_the_two_latest_states_are_kept(tmp_path):
    folder = leave_states(tmp_path, 1, 2, 3)
    assert names(folder) == ["lock", "step-00000002.safetensors", "step-00000003.safetensors"]
    leave_states(tmp_path, 4)
    assert names(folder)[1:] == ["step-00000003.safetensors", "step-00000004.safetensors"]


def test_what_a_killed_process_has_left_half_goes(tmp_path):
    folder = leave_states(tmp_path, 1)
    (folder / ".step-00000002.safetensors.part").touch()
    leave_states(tmp_path, 3)
    assert names(folder) == ["lock", "step-00000001.safetensors", "step-00000003.safetensors"]


def test_a_state_that_is_there_is_not_written_again(tmp_path, monkeypatch):
    leave_states(tmp_path, 1, 2)
    with Scratch(tmp_path, "run", BEFORE) as scratch:
        monkeypatch.setattr(checkpoint, "write", None)
        scratch.save({"step": 2})


@pytest.mark.parametrize("way", ["cut off", "empty", "changed"])
def test_where_the_last_state_is_damaged_the_one_before_is_taken(tmp_path, way):
    folder = leave_states(tmp_path, 1, 2)
    spoil(folder / "step-00000002.safetensors", way)
    text = r"step-00000002.safetensors (is damaged|cannot be read).*; the run goes on from step-00000001.safetensors"
    with pytest.warns(DamagedWarning, match=text):
        assert found(tmp_path) == 1
    with pytest.warns(DamagedWarning), Scratch(tmp_path, "run", BEFORE) as scratch:
        scratch.save({"step": 3, "value": torch.tensor(3.0)})  # the damaged one goes, the whole one stays
    assert names(folder)[1:] == ["step-00000001.safetensors", "step-00000003.safetensors"]
    assert found(tmp_path) == 3


def test_where_all_states_are_damaged_the_run_says_so(tmp_path):
    folder = leave_states(tmp_path, 1, 2)
    for path in folder.glob("step-*"):
        spoil(path, "cut off")
    with pytest.raises(ResumeError) as caught:
        Scratch(tmp_path, "run", BEFORE)
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
        Scratch(tmp_path, "run", identity)
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
        Scratch(tmp_path, "run", OTHER_SETTINGS)
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
        Scratch(tmp_path, "run", BEFORE)


def test_a_second_run_is_refused_with_the_pid_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "PATIENCE", 0.0)
    text = f"another process \\(pid {os.getpid()}\\) is running run; wait for it or end it"
    with Scratch(tmp_path, "run", BEFORE), pytest.raises(ResumeError, match=text):
        Scratch(tmp_path, "run", BEFORE)
    Scratch(tmp_path, "run", BEFORE).__exit__(None, None, None)


def test_a_run_waits_a_moment_for_one_that_is_about_to_end(tmp_path):
    first = Scratch(tmp_path, "run", BEFORE)
    leaving = threading.Timer(0.3, first.__exit__, (None, None, None))
    leaving.start()
    assert found(tmp_path) is None
    leaving.join()


def test_the_lock_of_a_dead_process_is_free(tmp_path):
    code = (
        "import os, pathlib; from rrn.runs.checkpoint import Scratch; "
        f"s = Scratch(pathlib.Path({str(tmp_path)!r}), 'run', {{}}); s.save({{'step': 5}}); os._exit(9)"
    )
    assert python(tiny.PARAMS.parent, "-c", code).returncode == 9
    with Scratch(tmp_path, "run", {}) as scratch:
        assert scratch.load() == {"step": 5}


def test_differences_names_leaves():
    assert checkpoint.differences({"a": {"b": 1}, "c": [1]}, {"a": {"b": 2}, "d": 1}) == [
        "a.b: 1 -> 2",
        "c: [1] -> None",
        "d: None -> 1",
    ]


def test_digest_depends_on_content_and_order(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"1")
    second.write_bytes(b"2")
    digest = checkpoint.digest(first, second)
    assert digest != checkpoint.digest(second, first) and len(digest) == 12
    second.write_bytes(b"3")
    assert digest != checkpoint.digest(first, second)


def test_weights_come_back(tmp_path):
    settings = tiny.settings("rrn")
    model = tiny.model("rrn", seed=7)
    checkpoint.write_weights(model, tmp_path)
    again = checkpoint.load(tmp_path, settings, tiny.CLASSES)
    found = again.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in model.state_dict().items())
    fresh = tiny.model("cps_cutmix")
    checkpoint.read_segmenters(fresh, tmp_path)
    assert torch.equal(*(next(m.segmenters.parameters()) for m in (fresh, model)))


def test_rows_without_discriminators_write_none(tmp_path):
    checkpoint.write_weights(tiny.model("supervised"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["segmenters.safetensors"]


def test_discriminators_of_another_row_do_not_stay(tmp_path):
    checkpoint.write_weights(tiny.model("rrn"), tmp_path)
    assert (tmp_path / "discriminators.safetensors").exists()
    checkpoint.write_weights(tiny.model("supervised"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["segmenters.safetensors"]


def test_missing_damaged_and_foreign_weights_are_named(tmp_path):
    folder = tmp_path / "1of4-rrn-0"
    folder.mkdir()
    model, path = tiny.model("cps_cutmix"), folder / "segmenters.safetensors"
    with pytest.raises(SettingsError, match=r"1of4-rrn-0 has no segmenters.safetensors: run `dvc repro`"):
        checkpoint.read_segmenters(model, folder)
    checkpoint.write_weights(model, folder)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SettingsError, match=r"1of4-rrn-0/segmenters.safetensors is damaged .* delete it and repeat"):
        checkpoint.read_segmenters(model, folder)
    path.write_bytes(whole)
    tensors = load_file(path)
    save_file({name: value for name, value in tensors.items() if "head" not in name}, path)
    with pytest.raises(SettingsError, match=r"holds other networks than these settings build; repeat the run"):
        checkpoint.read_segmenters(model, folder)


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert checkpoint.device_of("auto").type == "cpu"
    assert checkpoint.device_of("meta").type == "meta"
    with pytest.raises(SettingsError, match=r"device: cuda:1, but torch sees no GPU here; set device: auto or cpu"):
        checkpoint.device_of("cuda:1")
    with pytest.raises(SettingsError, match=r"device: 'gpu' is none of auto, cpu, cuda, cuda:0, cuda:1"):
        checkpoint.device_of("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert checkpoint.device_of("auto").type == "cuda"
    assert checkpoint.device_of("cuda:1").index == 1
    with pytest.raises(SettingsError, match=r"device: cuda:3, but torch sees 2 GPUs here, the first is cuda:0"):
        checkpoint.device_of("cuda:3")
