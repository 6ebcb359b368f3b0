"""Two and four processes on the CPU (gloo) against one.

Batch norm takes its statistics from the images of its own process on the CPU (SyncBatchNorm needs a GPU), and dropout
is drawn by process, so losses are compared with networks in evaluation mode: there they must agree up to the order of
additions. Not tested: that on GPUs, with SyncBatchNorm, they agree in training mode, too. The running statistics of
batch norm are averaged after every step, so that a checkpoint of process 0 is the state of all.
"""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import processes
import pytest
import tiny
import torch
from conftest import PATIENCE

from rrn.config import SettingsError
from rrn.runtime import distributed

SCRIPT = Path(processes.__file__)
TWO = {"nproc": 2, "batch": {"labeled": 4, "unlabeled": 4}}

MEASURES = ("coverage", "weight", "agreement")
"""Shares of regions and pixels; a count is divided by another in float32, whatever the networks are."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A tiny repository for two processes with a finished warmup; teachers depend on the running statistics."""
    changes = {"train": {"steps": 4}, "method": {"teacher_statistics": "running"}}
    folder = tiny.repository(tmp_path_factory.mktemp("two") / "repository", TWO | changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny.warm_up(folder, nproc=1)
    return folder


def several(repository, nproc):
    """Run processes.py in `nproc` processes; return what process 0 saved."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={nproc}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for variable in ("RRN_LAUNCH", "RRN_RESUME", "RRN_SCRATCH"):
        environment.pop(variable, None)
    options = {
        "capture_output": True,
        "text": True,
        "check": False,
        "env": environment,
        "cwd": repository,
    }
    run = subprocess.run([*command, str(SCRIPT), f"found-{nproc}.pt"], timeout=PATIENCE, **options)
    assert run.returncode == 0, run.stderr[-3000:]
    return torch.load(repository / f"found-{nproc}.pt", weights_only=True)


@pytest.fixture(scope="module")
def two(repository):
    return several(repository, 2)


@pytest.fixture(scope="module")
def four(repository):
    return several(repository, 4)


@pytest.fixture(scope="module")
def one(repository):
    """What one process finds, in place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        return processes.everything()


@pytest.fixture(params=[2, 4])
def dealt(request):
    """How many processes, and what they found."""
    return request.param, request.getfixturevalue({2: "two", 4: "four"}[request.param])


@pytest.mark.parametrize("name", processes.COURSES)
@pytest.mark.parametrize("kind, steps, tolerance", [("", 20, 1e-8), (", fp32", 3, 1e-4)], ids=["float64", "float32"])
def test_the_same_seed_gives_the_same_losses(one, dealt, name, kind, steps, tolerance):
    """Float64 with frozen batch norm over 20 steps; float32, with fixed pseudo-labels too, over 3."""
    found, expected = (courses[name + kind]["steps"] for courses in (dealt[1]["courses"], one["courses"]))
    assert len(found) == len(expected) == steps
    for step, (terms, wanted) in enumerate(zip(found, expected, strict=True)):
        assert terms.keys() == wanted.keys() and all(value.isfinite() for value in wanted.values())
        for term, value in wanted.items():
            error, allowed = abs(float(terms[term]) - float(value)), 1e-6 if term in MEASURES else tolerance
            assert error <= allowed * abs(float(value)), f"{term} of step {step}: {terms[term]} instead of {value}"


@pytest.mark.parametrize("name", processes.COURSES)
def test_gradient_and_learning_rate_do_not_depend_on_the_number_of_processes(one, dealt, name):
    """What the optimizers receive: the batch is a global one, and nothing is divided or multiplied by `nproc`."""
    found, expected = dealt[1]["courses"][name], one["courses"][name]
    assert [float(row["lr"]) for row in found["steps"]] == [float(row["lr"]) for row in expected["steps"]]
    assert len({float(row["lr"]) for row in expected["steps"]}) == 20
    assert found["gradients"].keys() == expected["gradients"].keys()
    assert {key.partition(".")[0] for key in expected["gradients"]} >= {"segmenters"}
    for parameter, gradient in expected["gradients"].items():
        torch.testing.assert_close(found["gradients"][parameter], gradient, rtol=1e-8, atol=1e-12)


def test_evaluation_is_the_same_to_the_last_digit(one, dealt, repository):
    nproc, found = dealt
    found, expected = found["evaluated"], one["evaluated"]
    table = pd.DataFrame(expected["reliability"])
    assert set(table["split"]) == {"val", "unlabeled"} and set(table["segmenter"]) == {1, 2}
    assert found["row"] == expected["row"] and found["tables"] == expected["tables"] and len(found["tables"]) == 2
    pd.testing.assert_frame_equal(pd.DataFrame(found["reliability"]), table, check_exact=True)
    for name in ("history.csv", "reliability.csv"):
        files = [repository / f"evaluated-{count}" / name for count in (1, nproc)]
        assert files[0].read_bytes() == files[1].read_bytes(), name


@pytest.mark.parametrize("row", processes.ROWS)
def test_losses_measures_and_gradients_are_those_of_one_process(two, row):
    found, expected = two["losses"][row], processes.losses(row)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_the_confusion_matrix_is_that_of_one_process(two):
    assert torch.equal(two["matrices"], processes.matrices())


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
        "undealt": ["a", "b", "c", "d"],
        "object": {"from": 0},
    }


def test_running_statistics_are_the_mean_over_the_processes(two):
    together, alone = two["statistics"]["together"], two["statistics"]["alone"]
    assert together.shape == alone.shape and not torch.equal(alone[0], alone[1])
    assert torch.equal(together[0], together[1])
    torch.testing.assert_close(together[0], alone.mean(0), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("run", "step", "done"), [("resumed", "checkpoint", 2), ("asked", "asked", 2)])
def test_a_resumed_run_of_two_processes_equals_the_uninterrupted_one(two, repository, run, step, done):
    assert two[step] == done
    for name in ("segmenters.safetensors", "discriminators.safetensors", "history.csv", "reliability.csv"):
        assert (repository / run / name).read_bytes() == (repository / "whole" / name).read_bytes(), name


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SettingsError, match=r"nproc: more processes than the 1 GPUs of this machine; lower nproc"):
        distributed.start(torch.device("cuda"))


def test_one_process_sends_nothing():
    found = processes.messages()
    expected = {
        "world": 1,
        "total": 2.0,
        "share": 5.0,
        "gathered": [0, 10],
        "summed": [[1.0] * 3] * 2,
        "undealt": ["a", "c", "d"],
    }
    assert {name: found[name] for name in expected} == expected and distributed.rank() == 0
    buffer = torch.tensor([1.0, 2.0])
    distributed.all_reduce_mean([buffer])
    assert buffer.tolist() == [1.0, 2.0]
