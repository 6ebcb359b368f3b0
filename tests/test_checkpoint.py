import json
import os

import pytest
import tiny
import torch
from conftest import python
from safetensors.torch import load_file, save_file

from rrn import checkpoint
from rrn.checkpoint import ResumeError, Scratch
from rrn.config import SettingsError

BEFORE = {"settings": {"optimizer": {"lr": 0.1}, "threads": 1}, "code": "a"}
AFTER = {"settings": {"optimizer": {"lr": 0.2}, "threads": 1}, "code": "b"}


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.delenv("RRN_RESUME", raising=False)
    monkeypatch.delenv("RRN_SCRATCH", raising=False)


def leave_state(root, identity=BEFORE, value=1):
    with Scratch(root, "run", identity) as scratch:
        scratch.save({"step": value})
        return scratch.folder


def test_state_comes_back_and_goes_when_the_run_is_finished(tmp_path):
    folder = leave_state(tmp_path)
    assert folder == tmp_path / ".scratch" / "run"
    with Scratch(tmp_path, "run", BEFORE) as scratch:
        assert scratch.load() == {"step": 1}
        scratch.remove()
    assert not folder.exists()
    with Scratch(tmp_path, "run", BEFORE) as scratch:
        assert scratch.load() is None


def test_the_folder_can_be_put_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("RRN_SCRATCH", str(tmp_path / "fast"))
    assert leave_state(tmp_path) == tmp_path / "fast" / "run"


def test_state_of_other_settings_is_refused_with_what_changed(tmp_path):
    leave_state(tmp_path)
    with pytest.raises(ResumeError) as caught:
        Scratch(tmp_path, "run", AFTER)
    assert str(caught.value).splitlines() == [
        "run was interrupted under other conditions:",
        "  code: 'a' -> 'b'",
        "  settings.optimizer.lr: 0.1 -> 0.2",
        "set RRN_RESUME=restart to begin anew, or RRN_RESUME=accept to go on all the same",
    ]
    with Scratch(tmp_path, "run", BEFORE) as scratch:  # nothing was lost, and the lock is free
        assert scratch.load() == {"step": 1}


@pytest.mark.parametrize(("wish", "state"), [("restart", None), ("accept", {"step": 1})])
def test_the_user_may_choose(tmp_path, monkeypatch, wish, state):
    leave_state(tmp_path)
    monkeypatch.setenv("RRN_RESUME", wish)
    with Scratch(tmp_path, "run", AFTER) as scratch:
        assert scratch.load() == state
        assert json.loads((scratch.folder / "identity.json").read_text(encoding="utf-8")) == AFTER


def test_restart_keeps_state_of_the_same_settings(tmp_path, monkeypatch):
    leave_state(tmp_path)
    monkeypatch.setenv("RRN_RESUME", "restart")
    with Scratch(tmp_path, "run", BEFORE) as scratch:
        assert scratch.load() == {"step": 1}


def test_other_wishes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("RRN_RESUME", "yes")
    with pytest.raises(ResumeError, match="RRN_RESUME='yes' is neither restart nor accept"):
        Scratch(tmp_path, "run", BEFORE)


def test_a_second_run_is_refused_with_the_pid_of_the_first(tmp_path):
    text = f"another process \\(pid {os.getpid()}\\) is running run; wait for it or end it"
    with Scratch(tmp_path, "run", BEFORE), pytest.raises(ResumeError, match=text):
        Scratch(tmp_path, "run", BEFORE)
    Scratch(tmp_path, "run", BEFORE).__exit__(None, None, None)


def test_the_lock_of_a_dead_process_is_free(tmp_path):
    code = (
        "import os, pathlib; from rrn.checkpoint import Scratch; "
        f"s = Scratch(pathlib.Path({str(tmp_path)!r}), 'run', {{}}); s.save({{'step': 5}}); os._exit(9)"
    )
    assert python(tiny.PARAMS.parent, "-c", code).returncode == 9
    with Scratch(tmp_path, "run", {}) as scratch:
        assert scratch.load() == {"step": 5}


def test_a_crash_while_saving_leaves_the_former_state(tmp_path, monkeypatch):
    with Scratch(tmp_path, "run", BEFORE) as scratch:
        scratch.save({"step": 1})

        def crash(state, file):
            file.write(b"half")
            raise OSError("disk full")

        monkeypatch.setattr(torch, "save", crash)
        with pytest.raises(OSError, match="disk full"):
            scratch.save({"step": 2})
        assert scratch.load() == {"step": 1}


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


@pytest.mark.parametrize("name", ["checkpoint.pt", "identity.json"])
def test_damaged_state_is_named_with_what_to_do(tmp_path, name):
    folder = leave_state(tmp_path)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    text = rf"run was interrupted, and its {name} cannot be read \(.*\): delete the folder .*run to begin anew"
    with pytest.raises(ResumeError, match=text), Scratch(tmp_path, "run", BEFORE) as scratch:
        scratch.load()
