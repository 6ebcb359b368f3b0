"""A training on a GPU from end to end: resumed, on a named device, with NCCL, and beside another stage.

With RRN_TEST_DEVICE=cpu the device is the CPU, gloo stands in for NCCL, and batch norm is not synchronized, which
torch does on GPUs alone.
"""

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import gpus
import pandas as pd
import pytest
import tiny
import torch
import torch.distributed as dist
from conftest import PATIENCE, ROOT
from safetensors.torch import load_file
from timm.layers import SyncBatchNormAct, convert_sync_batchnorm

from rrn import train
from rrn.evaluation.inference import Predictor
from rrn.runs import finished, resume
from rrn.runtime import distributed

pytestmark = pytest.mark.cuda
KEY = ("train", "1of4", "rrn", 0)
SAME = 1e-3
"""Relative: losses two steps after a resume, and one step with messages, where additions come in another order."""


@pytest.fixture(autouse=True)
def full_precision():
    with gpus.without_tf32():
        yield


# ---- Runs --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def named(device):
    """The device as settings name it, one of several."""
    return {"device": "cuda:0" if device.type == "cuda" else "cpu"}


@pytest.fixture(scope="module")
def warm(tmp_path_factory, named):
    """A tiny repository with a warmup that the device has finished."""
    folder = tiny.repository(tmp_path_factory.mktemp("gpu") / "repository")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny.warm_up(folder, **named)
    return folder


@pytest.fixture(autouse=True)
def own_scratch(monkeypatch):
    for variable in ("RRN_RESUME", "RRN_SCRATCH", "RRN_LAUNCH"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="module")
def whole(warm, named):
    """The outputs of a training that nothing interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(warm)
        list(train.run(*KEY, warm / "whole", named))
    return warm / "whole"


def test_a_named_device_trains_and_predicts(device, named, whole):
    history = pd.read_csv(whole / "history.csv")
    assert history["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert history.drop(columns=[name for name in history if "miou" in name]).notna().all(axis=None)
    assert history["miou_mean"].notna().tolist() == [False, False, True, False, False, True]
    found, card = finished.load_finished(whole, named["device"])
    expected, _ = finished.load_finished(whole, "cpu")
    assert found.device.type == device.type and found.device.index in (0, None)
    assert all(value.device.type == "cpu" for value in load_file(whole / "segmenters.safetensors").values())
    images = tiny.batch().images
    answers = [Predictor(model, card.evaluate).logits(images) for model in (found, expected)]
    torch.testing.assert_close(answers[0].cpu(), answers[1], rtol=1e-4, atol=1e-4)


def test_a_resumed_run_goes_on_as_the_uninterrupted_one(device, named, warm, whole, monkeypatch):
    """It takes up weights, moments and statistics bit for bit; from there a GPU does not promise the same bits."""
    monkeypatch.chdir(warm)
    out = warm / "resumed"
    rows = train.run(*KEY, out, named)
    for _ in range(3):
        next(rows)
    rows.close()
    torch.manual_seed(99)  # no draw depends on what the generators of torch were left at
    (kept,) = (warm / ".scratch" / "tiny-train-1of4-rrn-0").glob("step-*.pt")
    saved = resume.read_state(kept)["state"]
    again = train.Training(train.job(*KEY, out, named))
    taken, learn = [], again.learner.step

    def step(batch, number):
        if not taken:
            found = again.learner.state()
            assert all(torch.equal(value.cpu(), wanted) for value, wanted in leaves(found, saved["learner"]))
        taken.append(number)
        return learn(batch, number)

    again.learner.step = step
    list(again.fit())
    assert saved["step"] == 2 and taken == [2, 3, 4, 5]
    found, expected = (pd.read_csv(folder / "history.csv").set_index("step") for folder in (out, whole))
    assert list(found.columns) == list(expected.columns) and found.index.tolist() == expected.index.tolist()
    losses = ["supervised", "consistency", "discriminator_1", "discriminator_2"]
    near = (found.loc[:4, losses] - expected.loc[:4, losses]).abs() / expected.loc[:4, losses].abs()
    assert float(near.max(axis=None)) < SAME, near
    assert found[losses].notna().all(axis=None) and bool(found["miou_mean"].notna()[6])
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}


def leaves(found, expected):
    """Yield the tensors of two nested states, side by side."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            yield from leaves(found[key], expected[key])
    elif isinstance(expected, torch.Tensor):
        yield found, expected


# ---- Messages ----------------------------------------------------------------------------------------------------


class Alone(int):
    """A world of one process in which all is done that is done in a world of several."""

    def __new__(cls):
        """Be one."""
        return super().__new__(cls, 1)

    def __eq__(self, other):
        return False

    def __gt__(self, other):
        return True

    __hash__ = int.__hash__


@pytest.fixture
def group(device, tmp_path, monkeypatch):
    """A process group of this process alone that sends its messages, by NCCL or gloo."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    if device.type == "cuda":
        monkeypatch.setattr(dist, "get_world_size", lambda *_: Alone())  # batch norm asks there, too
    else:
        monkeypatch.setattr(distributed, "world", Alone)
    yield backend
    monkeypatch.undo()
    distributed.stop()


def test_messages(device, group):
    value = torch.tensor(2.0, device=device, requires_grad=True)
    total = distributed.all_reduce_sum(value)
    (3 * total).backward()
    assert (total.item(), value.grad.item()) == (2.0, 3.0)
    assert distributed.split_value(value).item() == 2.0
    assert distributed.all_gather(torch.tensor([1, 2], device=device)).tolist() == [1, 2]
    assert distributed.all_gather_object({"from": 0}) == [{"from": 0}] and distributed.broadcast_object([1, "a"]) == [
        1,
        "a",
    ]
    assert distributed.interleave_shards(["a", "b"]) == ["a", "b"]
    weight = torch.nn.Parameter(torch.zeros(2, 3, 1, 1, device=device).to(memory_format=torch.channels_last))
    gradient = torch.arange(6.0, device=device).view(2, 3, 1, 1)
    weight.grad = gradient.clone()
    distributed.reduce_gradients([weight, torch.nn.Parameter(torch.zeros(1, device=device))])
    assert torch.equal(weight.grad, gradient)
    buffer = torch.tensor([1.0, 2.0], device=device)
    distributed.all_reduce_mean([buffer])
    assert buffer.tolist() == [1.0, 2.0]


@pytest.fixture
def synchronized(request, device, monkeypatch):
    """Make a learner whose batch norm is synchronized; call it in the process group, which begins with that."""

    def made(changes):
        request.getfixturevalue("group")
        of = gpus.without_dropout(gpus.learner_of(device, "rrn", changes))
        if device.type == "cpu":  # the layers of synchronized batch norm, which do without it outside of a group
            of.model.segmenters = convert_sync_batchnorm(of.model.segmenters)
            monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)
            monkeypatch.setattr(distributed, "rank", lambda: 0)
        assert any(isinstance(module, SyncBatchNormAct) for module in of.model.segmenters.modules())
        return of

    return made


@pytest.mark.parametrize(("precision", "near", "along"), [("fp32", SAME, SAME), ("bf16", 0.01, 0.5)])
def test_a_step_with_synchronized_batch_norm_is_the_plain_step(device, synchronized, precision, near, along):
    """Loss terms lie `near` each other, and what the step changes `along`: with bf16 a bit more or less tells there."""
    changes = {"precision": precision, "method": {"discriminator": {"dropout": 0.0}}}
    plain, batch = gpus.without_dropout(gpus.learner_of(device, "rrn", changes)), tiny.batch().to(device)
    before = gpus.weights(plain)
    expected = plain.step(batch, 0)
    several = synchronized(changes)
    assert gpus.apart(gpus.weights(several), before) == 0
    found = several.step(batch, 0)
    assert gpus.apart(found, expected) < near
    moved, wanted = (
        {name: value - before[name] for name, value in gpus.weights(of).items()} for of in (several, plain)
    )
    assert gpus.apart(moved, wanted) < along


# ---- Stages ------------------------------------------------------------------------------------------------------

STAGE = """
import json, os, select, sys
from rrn.pipeline import gpus

with gpus.reserve() as taken:
    import torch

    device = torch.device(sys.argv[1])
    answer = {"taken": taken, "seen": os.environ["CUDA_VISIBLE_DEVICES"], "gpus": torch.cuda.device_count()}
    answer["sum"] = torch.ones(64, 64, device=device).matmul(torch.ones(64, device=device)).sum().item()
    print(json.dumps(answer), flush=True)
    select.select([sys.stdin], [], [], float(sys.argv[2]))
"""


def test_two_stages_share_a_gpu_one_after_the_other(device, tmp_path, monkeypatch):
    """The first holds it until it is told to end, which is after the second has said that it waits."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # locks that no training of this machine holds
    monkeypatch.setenv("RRN_DEVICES", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), *sys.path])))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    stage = [sys.executable, "-c", STAGE, device.type]
    with subprocess.Popen([*stage, str(PATIENCE)], **pipes) as first, ended(first):
        answers = [first.stdout.readline() or first.stderr.read()]
        with subprocess.Popen([*stage, "0"], **pipes) as second, ended(second):
            assert second.stderr.readline() == "waiting for a free device of RRN_DEVICES=0\n"
            assert first.poll() is None, "it holds its device as long as it lives"
            first.communicate("end\n", PATIENCE)
            answers.append(second.stdout.readline() or second.stderr.read())
            second.wait(PATIENCE)
    assert [first.returncode, second.returncode] == [0, 0]
    known = min(1, torch.cuda.device_count())
    assert [json.loads(answer) for answer in answers] == [{"taken": "0", "seen": "0", "gpus": known, "sum": 4096.0}] * 2


@contextmanager
def ended(process):
    """Let a process not outlive a test that fails."""
    try:
        yield
    finally:
        process.kill()
