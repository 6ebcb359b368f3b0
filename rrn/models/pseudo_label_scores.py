"""By what regions of pseudo-labels are filtered, and how rho rates them, while networks learn: a function each.

A function of FILTER_SCORES returns a score [N, rows, columns] of branch k, the best highest; one of RATINGS rates both
branches [2, N, rows, columns], at least 0. The scores of whole images, which are measured, are those of
`rrn.evaluation.scores`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rrn.models import regions
from rrn.models.functional import jensen_shannon, logit
from rrn.runtime import distributed, seeding


@dataclass(frozen=True)
class Candidates:
    """Pseudo-labels of a step, before it is decided which of them are kept.

    Attributes:
        region: side of a region in pixels.
        seed: of the run.
        tau: from which probability on a discriminator accepts a region.
        number: of the step.
        logits: of both teachers, float [2, N, C, H, W].
        labels: what each of them asks its student for, int64 [2, N, 1, H, W].
        valid: 0 in the padding, float [N, 1, H, W].
        agreement: 1 where both predict the same class, float [N, 1, H, W].
        scores: the discriminators' logits [2 branches, 2 or 1 discriminators, N, rows, columns], each branch's own
            first; None without discriminators.
    """

    region: int
    seed: int
    tau: float
    number: int
    logits: Tensor
    labels: Tensor
    valid: Tensor
    agreement: Tensor
    scores: Tensor | None

    def mean(self, values: Tensor) -> Tensor:
        """Mean of float [N, 1, H, W] over the valid pixels of each region: [N, rows, columns]."""
        return regions.region_mean(values, self.valid, self.region).squeeze(1)

    @property
    def judged(self) -> Tensor:
        """What the discriminators say, `scores`; only rows that have discriminators ask."""
        assert self.scores is not None
        return self.scores


# ---- By what the regions of branch k are filtered --------------------------------------------------------------------


def region_score(known: Candidates, k: int) -> Tensor:
    """What the branch's own discriminator says, a logit [abstract]."""
    return known.judged[k, 0]


def confidence(known: Candidates, k: int) -> Tensor:
    """Mean probability of the predicted class [ours]."""
    return known.mean(known.logits[k].softmax(1).amax(1, keepdim=True))


def probability(known: Candidates, k: int) -> Tensor:
    """Mean of both networks' probability of the label in question: the free rival [ours]."""
    return known.mean(known.logits.softmax(2).mean(0).gather(1, known.labels[k]))


def confidence_divergence(known: Candidates, k: int) -> Tensor:
    """Confidence times exp of minus the mean Jensen-Shannon divergence [ours]."""
    return confidence(known, k) * divergence(known)[k]


def pixel_confidence(known: Candidates, k: int) -> Tensor:
    """Probability of the predicted class of each pixel [N, H, W]: what others filter by [FixMatch, UniMatch]."""
    return known.logits[k].softmax(1).amax(1)


def chance(known: Candidates, k: int) -> Tensor:
    """Random numbers, drawn for the regions of all processes at once, so that any number of them keeps the same."""
    own = known.judged[k, 0]
    everyone = (len(own) * distributed.world(), *own.shape[1:])
    coins = torch.rand(everyone, generator=seeding.generator(known.seed, "coin", known.number, k))
    return coins[distributed.rank() :: distributed.world()].to(own.device, non_blocking=True)


FILTER_SCORES: dict[str, Callable[[Candidates, int], Tensor]] = {
    "region_score": region_score,
    "confidence": confidence,
    "probability": probability,
    "confidence_divergence": confidence_divergence,
    "pixel_confidence": pixel_confidence,
    "random": chance,
}
"""`filter.by`: a further score is a function here and a word in the schema."""


def as_probability(by: str, ranking: Tensor) -> Tensor:
    """Return what `filter.by` ranks by as 0..1: the region score is a logit, so that none are tied that differ."""
    return ranking.sigmoid() if by == "region_score" else ranking


# ---- How rho rates regions; all candidates [ours] --------------------------------------------------------------------


def votes(known: Candidates) -> Tensor:
    """Share of discriminators that accept the region."""
    return (known.judged >= logit(known.tau)).float().mean(1)


def agreement(known: Candidates) -> Tensor:
    """Share of pixels that have the same class in both branches."""
    return known.mean(known.agreement).expand(2, -1, -1, -1)


def divergence(known: Candidates) -> Tensor:
    """Exp of minus the mean Jensen-Shannon divergence of the branches' probabilities."""
    mean = known.mean(jensen_shannon(*known.logits))
    return (-mean).exp().expand(2, -1, -1, -1)


RATINGS: dict[str, Callable[[Candidates], Tensor]] = {
    "product": lambda known: known.judged.sigmoid().prod(1),  # of both discriminators' probabilities
    "mean": lambda known: known.judged.sigmoid().mean(1),
    "votes": votes,
    "agreement": agreement,
    "divergence": divergence,
    "probability": lambda known: torch.stack([probability(known, k) for k in range(2)]),
}
"""`rho`: a further candidate is a function here and a word in the schema."""
