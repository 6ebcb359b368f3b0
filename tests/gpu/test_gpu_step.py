"""One step of learning on a GPU: every row, every precision, the ways to make it fast, and what goes wrong in one.

With RRN_TEST_DEVICE=cpu all of it runs on the CPU, where a step has nobody to wait for, and the memory that does not
suffice is more than there are addresses for.
"""

import copy
from contextlib import nullcontext

import gpus
import pytest
import tiny
import torch

from rrn.runtime.memory import MemoryShortage
from rrn.training.learner import LossError

pytestmark = pytest.mark.cuda
SAME = 1e-3
"""Relative distance of gradients that are the same but for the order of additions, which a GPU does not promise."""


@pytest.fixture(autouse=True)
def full_precision():
    with gpus.without_tf32():
        yield


@pytest.mark.parametrize("precision", gpus.PRECISIONS)
@pytest.mark.parametrize("row", gpus.ROWS)
def test_a_step_learns_and_waits_for_nothing(device, row, precision):
    of, batch = gpus.learner_of(device, row, {"precision": precision}), tiny.batch().to(device)
    of.step(batch, 0)  # builds what is built once
    before = gpus.weights(of)
    with nullcontext() if of.half else gpus.waiting_for_nothing(device):  # the scaler of fp16 reads back
        terms = of.step(batch, 1)
    assert all(value.device.type == device.type and value.shape == () for value in terms.values())
    assert all(bool(value.isfinite()) for value in terms.values()), terms
    assert all(p.device.type == device.type and p.dtype == torch.float32 for p in of.model.parameters())
    after = gpus.weights(of)
    assert all(bool(value.isfinite().all()) for value in after.values())
    for part in ("segmenters", "discriminators"):
        for k in range(len(getattr(of.model, part))):
            names = [name for name in after if name.startswith(f"{part}.{k}.")]
            assert any(not torch.equal(after[name], before[name]) for name in names), f"{part}.{k} learned nothing"


def test_waiting_would_be_found(device):
    value = torch.ones((), device=device)
    found = pytest.raises(RuntimeError, match="synchroniz") if device.type == "cuda" else nullcontext()
    with found, gpus.waiting_for_nothing(device):
        value.item()


@pytest.mark.parametrize("speed", [{"merged": True}, {"checkpointing": True}], ids=["merged", "checkpointing"])
def test_a_fast_or_small_step_waits_for_nothing(device, speed):
    of, batch = gpus.learner_of(device, "rrn", {"speed": speed}), tiny.batch().to(device)
    of.step(batch, 0)
    with gpus.waiting_for_nothing(device):
        terms = of.step(batch, 1)
    assert all(bool(value.isfinite()) for value in terms.values()), terms


def test_checkpointing_gives_the_same_gradients(device):
    plain, small = (gpus.learner_of(device, "rrn", {"speed": {"checkpointing": c}}) for c in (False, True))
    found, expected = (gpus.gradients(of, tiny.batch().to(device)) for of in (small, plain))
    assert gpus.apart(found[0], expected[0]) < SAME and gpus.apart(found[1], expected[1]) < SAME
    assert gpus.apart(gpus.weights(small), gpus.weights(plain)) < SAME, "statistics count a pass once"


def test_merged_passes_give_the_same_gradients_where_batch_norm_is_frozen(device):
    changes = [{"method": gpus.EXACT, "speed": {"merged": merged}} for merged in (False, True)]
    plain, merged = (gpus.learner_of(device, "rrn", change) for change in changes)
    for of in (plain, merged):
        tiny.still(of.model)
    found, expected = (gpus.gradients(of, tiny.batch().to(device)) for of in (merged, plain))
    assert gpus.apart(found[0], expected[0]) < SAME and gpus.apart(found[1], expected[1]) < SAME


SPOILED = [*(("consistency", precision) for precision in gpus.PRECISIONS), ("gradient", "fp32"), ("gradient", "bf16")]
"""A loss that is NaN, and a gradient that is infinite, which in fp16 is no fault: the scaler skips its step."""


@pytest.mark.parametrize(("what", "precision"), SPOILED)
def test_a_spoiled_step_leaves_all_as_it_was(device, what, precision):
    """Statistics go back by a branch of their own on the CPU, and the optimizers of a GPU ask on the device."""
    of = gpus.learner_of(device, "rrn", {"precision": precision})
    batches = [tiny.batch(seed=seed).to(device) for seed in range(3)]
    history, plain = [of.step(batches[0], 0)], of._gradients
    before = copy.deepcopy(of.state())

    def spoiled(batch, step):
        terms = plain(batch, step)
        if what in terms:
            return terms | {what: terms[what] * float("nan")}
        next(of.model.segmenters.parameters()).grad.fill_(float("inf"))
        return terms

    of._gradients = spoiled
    with nullcontext() if of.half else gpus.waiting_for_nothing(device):
        history.append(of.step(batches[1], 1))
    of._gradients = plain
    history.append(of.step(batches[2], 2))  # good, and not applied either
    assert unlike(of.state(), before) == []
    said = "loss 'consistency' is nan" if what == "consistency" else "a gradient is not finite"
    with pytest.raises(LossError, match=rf"^{said} at step 1 of train; its update was not applied$"):
        of.require_finite(history, 3, "train")


def unlike(found, expected, where=""):
    """Return the names of the leaves of nested states that are not the same, bit for bit."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        return [name for key in expected for name in unlike(found[key], expected[key], f"{where}/{key}")]
    same = torch.equal(found, expected) if isinstance(expected, torch.Tensor) else found == expected
    return [] if same else [where]


def test_a_step_that_does_not_fit_says_what_needs_less_and_the_next_one_works(device):
    of, batch = gpus.learner_of(device, "cps"), tiny.batch().to(device)
    of.step(batch, 0)
    before = copy.deepcopy(of.state())
    images, valid = gpus.many_pixels(device, 2, 3), gpus.many_pixels(device, 2, 1, dtype=torch.bool)
    labels = gpus.many_pixels(device, 2, dtype=torch.int64)
    large = type(batch)(images, labels, (images, images), (valid, valid), valid, (), ((), ()))
    with gpus.no_more_memory(device), pytest.raises(MemoryShortage) as caught:
        of.step(large, 1)
    said = "CUDA out of memory" if device.type == "cuda" else "can't allocate memory"
    first, *ways = str(caught.value).splitlines()
    assert first.startswith("a step does not fit into memory (") and said in first and first.endswith("need less:")
    assert ways[0] == "  speed.checkpointing: true computes activations twice"
    assert unlike(of.state(), before) == []
    del caught  # the traceback holds what the step had
    history = [of.step(batch, 1)]
    of.require_finite(history, 2, "train")
    assert unlike(of.state(), before) != []
