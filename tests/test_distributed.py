"""Two processes on the CPU (gloo) against one.

Batch norm takes its statistics from the images of its own process on the CPU, so the losses are compared with networks
in evaluation mode and without dropout: there they must agree up to the order of additions in float32. Its running
statistics are averaged after every step, so that a checkpoint of process 0 is the state of all.
"""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import tiny
import torch
import two_processes

from rrn import distributed, train
from rrn.config import SettingsError

SCRIPT = Path(two_processes.__file__)
TWO = {"nproc": 2, "batch": {"labeled": 4, "unlabeled": 4}}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A tiny repository for two processes with a finished warmup; teachers depend on the running statistics."""
    changes = {"train": {"steps": 4}, "method": {"teacher_statistics": "running"}}
    folder = tiny.repository(tmp_path_factory.mktemp("two") / "repository", TWO | changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny.warm_up(folder, nproc=1)
    return folder


@pytest.fixture(scope="module")
def two(repository):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", SCRIPT, "found.pt"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parent)}
    for variable in ("RRN_LAUNCH", "RRN_RESUME", "RRN_SCRATCH"):
        environment.pop(variable, None)
    options = {"capture_output": True, "text": True, "check": False, "env": environment, "cwd": repository}
    run = subprocess.run(list(map(str, command)), **options)
    assert run.returncode == 0, run.stderr[-3000:]
    return torch.load(repository / "found.pt", weights_only=True)


@pytest.mark.parametrize("row", two_processes.ROWS)
def test_losses_measures_and_gradients_are_those_of_one_process(two, row):
    found, expected = two["losses"][row], two_processes.losses(row)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_the_confusion_matrix_is_that_of_one_process(two):
    assert torch.equal(two["matrices"], two_processes.matrices())


def test_messages(two):
    assert two["messages"] == {
        "world": 2,
        "total": 5.0,
        "total gradient": 3.0,
        "share": 5.0,
        "share gradient": 1.0,
        "gathered": [0, 10, 1, 11],
        "summed": [[3.0] * 3] * 2,
        "unused": None,
        "object": {"from": 0},
    }


def test_running_statistics_are_the_mean_over_the_processes(two):
    together, alone = two["statistics"]["together"], two["statistics"]["alone"]
    assert together.shape == alone.shape and not torch.equal(alone[0], alone[1])
    assert torch.equal(together[0], together[1])
    torch.testing.assert_close(together[0], alone.mean(0), rtol=1e-6, atol=0)


def test_a_resumed_run_of_two_processes_equals_the_uninterrupted_one(two, repository):
    assert two["checkpoint"] == 2
    for name in ("segmenters.safetensors", "discriminators.safetensors", "history.csv", "reliability.csv"):
        assert (repository / "resumed" / name).read_bytes() == (repository / "whole" / name).read_bytes(), name


def test_reliability_is_that_of_one_process(two, repository, monkeypatch):
    monkeypatch.chdir(repository)
    alone, together = pd.DataFrame(two_processes.reliability()), pd.DataFrame(two["reliability"])
    assert set(alone["split"]) == {"val", "unlabeled"} and set(alone["segmenter"]) == {1, 2}
    pd.testing.assert_frame_equal(together, alone, rtol=1e-6)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SettingsError, match=r"nproc: more processes than the 1 GPUs of this machine; lower nproc"):
        distributed.start(torch.device("cuda"))


def test_one_process_sends_nothing():
    found = two_processes.messages()
    expected = {"world": 1, "total": 2.0, "share": 5.0, "gathered": [0, 10], "summed": [[1.0] * 3] * 2}
    assert {name: found[name] for name in expected} == expected and distributed.rank() == 0
    buffer = torch.tensor([1.0, 2.0])
    distributed.average([buffer])
    assert buffer.tolist() == [1.0, 2.0]


def test_a_run_of_two_processes_from_the_front_door(tmp_path, monkeypatch):
    root = tiny.repository(tmp_path / "root", TWO | {"train": {"steps": 2}})
    monkeypatch.chdir(root)
    monkeypatch.delenv("RRN_LAUNCH", raising=False)
    tiny.warm_up(root)
    out = root / "out"
    rows = list(train.run("train", "1of4", "rrn", 0, out))
    assert [row["step"] for row in rows] == [1, 2] and 0 <= rows[-1]["miou_mean"] <= 100
    assert {path.name for path in out.iterdir()} >= {"segmenters.safetensors", "history.csv", "run.json"}
