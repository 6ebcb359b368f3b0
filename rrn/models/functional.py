"""Functions of tensors and numbers that are nobody's invention."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def precise(values: Tensor) -> Tensor:
    """Return values in float32 at least: what autocast made shorter is lengthened before it is summed or compared."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Turn int64 [.., H, W] into float [.., C, H, W]; a void pixel is no class."""
    return torch.stack([labels == c for c in range(classes)], dim=-3).float()


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """`probability_divergence` of two logits [N, C, H, W]."""
    return probability_divergence(first.softmax(1), second.softmax(1))


def probability_divergence(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence, in nats, of probabilities [N, C, H, W] at each pixel: [N, 1, H, W], 0 to log 2."""
    middle = ((p + q) / 2).clamp_min(1e-12).log()
    parts = [(r * (r.clamp_min(1e-12).log() - middle)).sum(1, keepdim=True) for r in (p, q)]
    return (parts[0] + parts[1]) / 2


def entropy(p: Tensor) -> Tensor:
    """Entropy, in nats, of probabilities [N, C, H, W] at each pixel: [N, 1, H, W], 0 to log C."""
    return -torch.special.xlogy(p, p).sum(1, keepdim=True)


def logit(probability: float) -> float:
    """Return the logit of a probability, as float32 has it; on the host, so that no device is waited for."""
    return float(torch.tensor(probability).logit())


def sum_over_pair(values: Iterable[Tensor]) -> Tensor:
    """Add the values of the two segmenters; the same to the bit when they swap."""
    first, second = values
    return first + second


def ramp(step: int, length: int) -> float:
    """Rise linearly to 1 over `length` steps; 1 at once if length is 0."""
    return min(1.0, (step + 1) / length) if length else 1.0


def move_towards(average: nn.Module, current: nn.Module, share: Tensor) -> None:
    """Move the weights and running statistics of a network a share (scalar, 0..1) of the way to those of its like.

    Whole numbers, which batch norm counts steps with, are copied.
    """
    pairs = zip((*average.parameters(), *average.buffers()), (*current.parameters(), *current.buffers()), strict=True)
    for kept, new in pairs:
        if kept.is_floating_point():
            kept.lerp_(new, share.to(kept.dtype))
        else:
            kept.copy_(new)
