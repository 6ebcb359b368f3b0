"""Modes that a network is in for a while: teaching, evaluating, frozen, recomputing; and what batch norm counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def teaching(segmenter: nn.Module, statistics: str) -> Iterator[None]:
    """Dropout off; batch norm with the batch's statistics, its running ones untouched, or with the running ones."""
    with evaluating(segmenter):
        if statistics == "running":
            yield
            return
        for norm in _norms(segmenter):
            norm.train()
        with statistics_kept(segmenter):
            yield


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Batch norm that trains uses the batch's statistics as ever, but its running ones stay as they are."""
    norms = _norms(module)
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@contextmanager
def recomputing(module: nn.Module) -> Iterator[None]:
    """Batch norm computes once more what it has computed; its running statistics count it once."""
    norms = _norms(module)
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    spare = next((counter.clone() for _, counter in before if counter is not None), None)  # one serves them all
    for norm, (_, counter) in zip(norms, before, strict=True):
        norm.momentum = 0.0
        norm.num_batches_tracked = spare if counter is not None else None
    try:
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counter


def counted(module: nn.Module) -> list[Tensor]:
    """Return what a step changes of a network beside its weights: the buffers of all batch norms, [channels] or []."""
    return [buffer for norm in _norms(module) for buffer in norm.buffers(recurse=False)]


def _norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every submodule's own mode back afterwards."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for submodule, training in modes:
            submodule.training = training


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Parameters take no gradient inside; what flows through them does."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


class NormStatistics:
    """What batch norm has counted so far, to go back to: some large kernels, however many norms there are.

    Args:
        module: whose norms; their buffers stay the tensors that they are for as long as this lives.
    """

    def __init__(self, module: nn.Module) -> None:
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for buffer in counted(module):
            kinds.setdefault(buffer.dtype, []).append(buffer.view(-1))
        self._kinds = [(buffers, torch.cat(buffers)) for buffers in kinds.values()]

    def keep(self, finite: Tensor) -> None:
        """Go back to them unless `finite`, a bool scalar on their device, which is not waited for."""
        for buffers, before in self._kinds:
            kept = torch.where(finite, torch.cat(buffers), before)  # what is not finite would survive a product
            torch._foreach_copy_(buffers, kept.split([len(buffer) for buffer in buffers]))
