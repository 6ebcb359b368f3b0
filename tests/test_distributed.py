"""Two processes on the CPU (gloo) against one.

Batch norm takes its statistics from the images of its own process on the CPU, so the losses are compared with networks
in evaluation mode and without dropout: there they must agree up to the order of additions in float32.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
import two_processes

from rrn import distributed, train

SCRIPT = Path(two_processes.__file__)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    out = tmp_path_factory.mktemp("two") / "found.pt"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", SCRIPT, out]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parent)}
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    return torch.load(out, weights_only=True)


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


def test_one_process_sends_nothing():
    found = two_processes.messages()
    expected = {"world": 1, "total": 2.0, "share": 5.0, "gathered": [0, 10], "summed": [[1.0] * 3] * 2}
    assert {name: found[name] for name in expected} == expected and distributed.rank() == 0


def test_a_run_of_two_processes_from_the_front_door(tmp_path, monkeypatch):
    changes = {"nproc": 2, "batch": {"labeled": 4, "unlabeled": 4}, "train": {"steps": 2}}
    root = tiny.repository(tmp_path / "root", changes)
    monkeypatch.chdir(root)
    monkeypatch.delenv("RRN_LAUNCH", raising=False)
    tiny.warm_up(root)
    out = root / "out"
    rows = list(train.run("train", "1of4", "rrn", 0, out))
    assert [row["step"] for row in rows] == [1, 2] and 0 <= rows[-1]["miou_mean"] <= 100
    assert {path.name for path in out.iterdir()} >= {"segmenters.safetensors", "history.csv", "run.json"}
