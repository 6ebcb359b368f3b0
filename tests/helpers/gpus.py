"""What the tests of a GPU have in common: learners on a device, and what a GPU alone can tell.

They import only what is there without the environment: no DVC, Jupyter or papermill.
"""

import math
from contextlib import contextmanager
from typing import Any

import tiny
import torch
from torch import Tensor

from rrn import config
from rrn.data.batches import Batch
from rrn.method import RRN, Losses
from rrn.training.learner import Learner, prepare_for

ROWS = config.read(tiny.PARAMS)["methods"]
"""Those of params.yaml."""
PRECISIONS = ("fp32", "bf16", "fp16")
EXACT = {"teacher_statistics": "running", "discriminator": {"dropout": 0.0}}
"""A method of which nothing is drawn, and nothing depends on the other images, once the networks are in eval mode."""


def learner_of(device: torch.device, row: str, changes: dict[str, Any] | None = None) -> Learner:
    """Return the learner of a row of params.yaml, with tiny networks on a device, in train mode."""
    settings = config.resolve(tiny.params() | {"methods": ROWS}, row, {"device": device.type, **(changes or {})})
    model = prepare_for(RRN(settings, tiny.CLASSES, 0), device, settings.speed).train()
    of = Learner(model, settings, settings.train, decay=True)
    if of.half:  # the first scale is so large that the scaler skips steps until it has found a better one
        of.scaler.scale(torch.zeros((), device=device))
        of.scaler.update(1.0)
    return of


def without_dropout(of: Learner) -> Learner:
    """Let the networks of a learner draw nothing, and train as ever."""
    for module in of.model.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
    return of


def gradients(of: Learner, batch: Batch) -> tuple[Losses, dict[str, Tensor]]:
    """Return the terms, and the gradient of every parameter, of one batch."""
    for optimizer in of.optimizers.values():
        optimizer.zero_grad()
    terms = of._gradients(batch, 0)
    return terms, {name: p.grad for name, p in of.model.named_parameters() if p.grad is not None}


def weights(of: Learner) -> dict[str, Tensor]:
    """Return a copy of all weights and statistics."""
    return {name: value.detach().clone() for name, value in of.model.state_dict().items()}


def apart(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return how far the tensors of two dictionaries lie apart: the norm of the difference to that of what is expected.

    All tensors of floats are one vector for it: one of which the true value is 0 holds nothing but rounding. Those of
    integers are the same, or it is infinite.
    """
    assert found.keys() == expected.keys()
    floats = [name for name, value in expected.items() if value.is_floating_point()]
    if not all(torch.equal(found[name], expected[name]) for name in expected.keys() - set(floats)):
        return math.inf
    one, other = (torch.cat([each[name].double().cpu().flatten() for name in floats]) for each in (found, expected))
    return float((one - other).norm() / other.norm())


@contextmanager
def without_tf32():
    """Let a GPU compute in float32 what is of float32, not with 10 bits of mantissa; where tensors are compared."""
    places = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = False
    try:
        yield
    finally:
        for place, allowed in zip(places, before, strict=True):
            place.allow_tf32 = allowed


@contextmanager
def waiting_for_nothing(device: torch.device):
    """Let whatever the host waits for be an error; the CPU has nobody to wait for."""
    if device.type == "cpu":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@contextmanager
def no_more_memory(device: torch.device):
    """Let a GPU have no more memory than it holds; on the CPU `many_pixels` alone are too many."""
    if device.type == "cpu":
        yield
        return
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def many_pixels(device: torch.device, *shape: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    """Return zeros [*shape, side, side], which need no memory of their own; what is computed from them needs much.

    A side has 2048 pixels on a GPU, which has to be kept from having the memory; on the CPU it has so many that there
    are no addresses for them.
    """
    side = 1 << (11 if device.type == "cuda" else 28)
    return torch.zeros((), dtype=dtype, device=device).expand(*shape, side, side)
