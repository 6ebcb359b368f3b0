"""The scores of regions, a function each: the name of a function is that of its column in a region table.

A function takes the `RegionInputs` of a batch and returns float64 [2, B, rows, columns], a value for each segmenter's
own pseudo-labels, or [B, rows, columns] where both have the same. `rrn.reliability.scores` says which are written.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rrn.models import regions
from rrn.models.functional import jensen_shannon


@dataclass(frozen=True)
class RegionInputs:
    """What both segmenters, and their discriminators, say of a batch of whole images.

    Attributes:
        logits: float32 [2, B, C, H, W].
        probabilities: the same as probabilities.
        labels: both pseudo-labels, int64 [2, B, H, W].
        valid: bool [B, H, W].
        area: valid pixels of each region, float64 [B, rows, columns].
        judged: float64 [2 branches, 2 discriminators, B, rows, columns], each branch's own first, 0 to 1; NaN without
            discriminators.
        region: side of a region in pixels.
    """

    logits: Tensor
    probabilities: Tensor
    labels: Tensor
    valid: Tensor
    area: Tensor
    judged: Tensor
    region: int

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of values [.., B, H, W] over the valid pixels of each region; 0 where there is none."""
        return region_total(values * self.valid, self.region) / self.area.clamp(min=1)


def region_total(values: Tensor, region: int) -> Tensor:
    """Sum values [..., H, W] over squares of `region` pixels: float64 [..., rows, columns]."""
    return regions.region_sum(values.double(), region)


Function = Callable[[RegionInputs], Tensor]
FUNCTIONS: dict[str, Function] = {}
"""Column -> what computes it."""


def score(function: Function) -> Function:
    """Make a function the one that computes the column of its name."""
    FUNCTIONS[function.__name__] = function
    return function


@score
def region_score(batch: RegionInputs) -> Tensor:
    """Probability of the segmenter's own discriminator [abstract]."""
    return batch.judged[:, 0]


@score
def other_score(batch: RegionInputs) -> Tensor:
    """Probability of the other segmenter's discriminator [ours]."""
    return batch.judged[:, 1]


@score
def product(batch: RegionInputs) -> Tensor:
    """Product of both discriminators' probabilities [ours]."""
    return batch.judged[:, 0] * batch.judged[:, 1]


@score
def confidence(batch: RegionInputs) -> Tensor:
    """Mean max-softmax [ours]."""
    return batch.mean(batch.probabilities.amax(2))


@score
def probability(batch: RegionInputs) -> Tensor:
    """Mean of both segmenters' probability of the pseudo-label: the free rival, as it needs no discriminator [ours]."""
    both = batch.probabilities.mean(0).expand_as(batch.probabilities)
    return batch.mean(both.gather(2, batch.labels.unsqueeze(2)).squeeze(2))


@score
def certainty(batch: RegionInputs) -> Tensor:
    """1 - mean entropy / log C [ours]."""
    entropy = -torch.special.xlogy(batch.probabilities, batch.probabilities).sum(2)
    return 1 - batch.mean(entropy) / math.log(max(2, batch.probabilities.shape[2]))


@score
def agreement(batch: RegionInputs) -> Tensor:
    """Share of the pixels on which the two segmenters agree [ours]."""
    return batch.mean(batch.labels[0] == batch.labels[1])


@score
def divergence(batch: RegionInputs) -> Tensor:
    """Mean Jensen-Shannon divergence of the two segmenters, 0 to log 2 nats: no score, but rho asks for it [ours]."""
    return batch.mean(jensen_shannon(*batch.logits).squeeze(1))
