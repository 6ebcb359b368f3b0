"""A compiled step on a GPU: in a file of its own, as it takes longest, and its cache of kernels is the process's.

With RRN_TEST_DEVICE=cpu it runs on the CPU, where `aot_eager` stands in for the compiler.
"""

import gpus
import pytest
import tiny
import torch

pytestmark = pytest.mark.cuda(seconds=60)
NEAR, ALONG = 1e-3, 1e-2
"""Relative distance of losses, and of gradients, of kernels that add in another order; TF32 is off."""


@pytest.fixture(autouse=True)
def full_precision():
    with gpus.without_tf32():
        yield


def test_a_compiled_step_is_the_same_step(device):
    """Networks without dropout, whose draws a compiler makes in its own way."""
    torch._dynamo.reset()
    backend = "inductor" if device.type == "cuda" else "aot_eager"
    changes = [{"method": gpus.EXACT, "speed": {"compile": compiler}} for compiler in (None, backend)]
    plain, compiled = (gpus.without_dropout(gpus.learner_of(device, "rrn", change)) for change in changes)
    batch = tiny.batch().to(device)
    found, expected = (gpus.gradients(of, batch) for of in (compiled, plain))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0, "nothing was compiled"
    assert gpus.apart(found[0], expected[0]) < NEAR and gpus.apart(found[1], expected[1]) < ALONG
    terms = compiled.step(batch, 0)
    compiled.require_finite([terms], 1, "train")
