"""What one step of training knows, passed from one part of the method to the next. No equation.

B, B'   labeled images of a step, unlabeled images of each half      C classes, H x W crop
N       any number of images
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from rrn import config
from rrn.data.batches import Batch
from rrn.models.functional import one_hot

Losses = dict[str, Tensor]
"""Weighted losses by name, scalars; their sum is what is minimized."""


@dataclass(frozen=True)
class Denominators:
    """What losses and measures are divided by: int64 scalars, summed over all processes, at least 1."""

    labeled: Tensor  # labeled pixels of the labeled images
    unlabeled: Tensor  # valid pixels of both un-mixed halves
    mixed: Tensor  # valid pixels of the mixed images
    labeled_regions: Tensor  # regions with a labeled pixel
    unlabeled_regions: Tensor  # regions of both halves with a valid pixel


@dataclass(frozen=True)
class Answers:
    """What both segmenters say of labeled images, as they are or mixed."""

    images: Tensor  # normalized [N, 3, H, W]
    labels: Tensor  # int64 [N, H, W]
    logits: Tensor  # [2, N, C, H, W]
    count: Tensor  # regions with a labeled pixel, over all processes, at least 1

    @cached_property
    def valid(self) -> Tensor:
        """1 where there is a label, float [N, 1, H, W]."""
        return (self.labels != config.IGNORE_INDEX).unsqueeze(1).to(self.images.dtype)

    @cached_property
    def right(self) -> Tensor:
        """Where each segmenter is right: float [2, N, 1, H, W], 0 where the label is void."""
        return (self.logits.argmax(2) == self.labels).unsqueeze(2).to(self.images.dtype)


@dataclass
class Step:
    """What one step knows, without gradient. What has no value at the beginning is left here by who computes it."""

    batch: Batch
    number: int  # in the stage, from 0
    denominators: Denominators
    images: Tensor  # labeled, normalized [B, 3, H, W]
    labeled_logits: list[Tensor] = field(default_factory=list)  # of each student, in turn [B, C, H, W]; its teacher's
    unlabeled: Tensor = field(init=False)  # un-mixed, u0 before u1, normalized [2B', 3, H, W]
    valid: Tensor = field(init=False)  # 0 in their padding, float [2B', 1, H, W]
    teacher_logits: Tensor = field(init=False)  # both segmenters' of them [2, 2B', C, H, W]
    labels: Tensor = field(init=False)  # pseudo-labels of them, int64 [2, 2B', 1, H, W]
    agreement: Tensor = field(init=False)  # 1 where both predict the same class of them, float [2B', 1, H, W]
    scores: Tensor = field(init=False)  # logits of `score_regions` of them
    ranking: Tensor = field(init=False)  # by what they are filtered: of FILTER_SCORES [2, 2B', rows, columns]
    answers: Answers | None = None  # of both segmenters on labeled images, asked once: what discriminators learn from
    measures: Losses = field(default_factory=dict)  # coverage, weight, agreement; a process's share of the batch's


@dataclass(frozen=True)
class PseudoLabels:
    """What each teacher asks of its student on mixed images, the same of every view."""

    images: Tensor  # mixed, normalized, view by view [views * B', 3, H, W]
    labels: Tensor  # int64 [2, B', 1, H, W]
    weights: Tensor  # W, at least 0 [2, B', 1, H, W]
    valid: Tensor  # float [B', 1, H, W]
    rejected: Tensor | None = None  # classes that a student is told to avoid, bool [2, B', C, H, W]


def pair_real_and_fake(step: Step, valid: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pair labeled images with unlabeled ones, of `valid` [B', 1, H, W], so that both have the same void and padding.

    The smaller of the two sets is repeated: n is the size of the larger one. Returns label maps [n, C, H, W] and images
    of the labeled set, indices [n] of the unlabeled one, and what is valid in both.
    """
    labels = step.batch.labels
    index = torch.arange(max(len(labels), len(valid)), device=valid.device)
    real_at, fake_at = index % len(labels), index % len(valid)
    labeled = (labels != config.IGNORE_INDEX).unsqueeze(1).to(valid.dtype)
    return one_hot(labels, classes)[real_at], step.images[real_at], fake_at, labeled[real_at] * valid[fake_at]
