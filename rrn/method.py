"""RRN, the Region Relevance Network: two segmenters teach each other, region discriminators say what to believe.

    Semi-Supervised Semantic Segmentation With Region Relevance. Chen, Chen, Wang, Yao. ICME 2023, arXiv 2304.11539.

This file is the method, in the order of the paper; every row of the ablation table is a switch in it. Marks say where a
part comes from: [abstract] of the paper, [released] code of its authors, [ours]; docs/method.md has the mathematics.

    B, B'   labeled images of a step, unlabeled images of each half      C classes, H x W crop
    k, j    a segmenter (or discriminator) and the other one             rows x columns regions of a crop
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrn import config
from rrn.data.batches import Batch
from rrn.models import regions
from rrn.models.segmenter import RegionDiscriminator, Segmenter, evaluating, frozen, teaching
from rrn.runtime import distributed, seeding

CROSS = ("product", "mean", "votes")
"""The candidates of rho that ask both discriminators about each branch."""

Terms = dict[str, Tensor]
"""Weighted loss terms by name; their sum is the loss."""


@dataclass(frozen=True)
class Counts:
    """What losses and measures are divided by: counted over all processes, int64, at least 1.

    Attributes:
        labeled: labeled pixels of the labeled images.
        unlabeled: valid pixels of both un-mixed halves.
        mixed: valid pixels of the mixed images.
        labeled_regions: regions with a labeled pixel.
        unlabeled_regions: regions of both halves with a valid pixel.
    """

    labeled: Tensor
    unlabeled: Tensor
    mixed: Tensor
    labeled_regions: Tensor
    unlabeled_regions: Tensor


@dataclass
class Evidence:
    """What one step knows of its batch. All without gradient.

    Attributes:
        counts: of the batch.
        labels: of the labeled images, int64 [B, H, W].
        images: the labeled images, normalized [B, 3, H, W].
        said: of the labeled images, the logits [B, C, H, W] of each segmenter that has had its turn.
        unlabeled: un-mixed unlabeled images, u0 before u1, [2B', 3, H, W].
        teachers: both segmenters' logits of them [2, 2B', C, H, W].
        valid: float [2B', 1, H, W].
        measures: scalars coverage, weight, agreement; those of all processes sum to that of the batch.
    """

    counts: Counts
    labels: Tensor
    images: Tensor
    said: list[Tensor] = field(default_factory=list)
    unlabeled: Tensor | None = None
    teachers: Tensor | None = None
    valid: Tensor | None = None
    measures: Terms = field(default_factory=dict)

    @cached_property
    def logits(self) -> Tensor:
        """Both segmenters' logits of the labeled images [2, B, C, H, W]."""
        return torch.stack(self.said)

    @cached_property
    def right(self) -> Tensor:
        """Where each segmenter is right on the labeled images: float [2, B, 1, H, W], 0 where the label is void."""
        return (self.logits.argmax(2) == self.labels).unsqueeze(2).to(self.images.dtype)


@dataclass(frozen=True)
class Lesson:
    """What the teachers ask of the students on mixed images.

    Attributes:
        images: mixed, normalized [B', 3, H, W].
        pseudo_labels: of each teacher, int64 [2, B', 1, H, W].
        weights: W of each teacher's pseudo-labels [2, B', 1, H, W].
        valid: float [B', 1, H, W].
    """

    images: Tensor
    pseudo_labels: Tensor
    weights: Tensor
    valid: Tensor


class RRN(nn.Module):
    """Two segmenters, two region discriminators, and their losses under one row of the ablation table.

    Args:
        settings: all settings, or the part that a finished run keeps; `settings.method` is the row.
        classes: number of classes C.
        seed: of the initial weights and of dropout.
        pretrained: whether the encoders begin with `model.weights`; not where trained weights follow.
    """

    def __init__(
        self, settings: config.Settings | config.Networks, classes: int, seed: int, pretrained: bool = True
    ) -> None:
        super().__init__()
        self.row, self.region, self.seed, self.classes = settings.method, settings.region, seed, classes
        self.segmenters, self.discriminators = nn.ModuleList(), nn.ModuleList()
        for k in range(2):
            with seeding.seeded(seed, "initial segmenter", index=k):
                self.segmenters.append(Segmenter(settings.model, classes, pretrained))
        for k in range(2 * self.row.uses_discriminators):
            with seeding.seeded(seed, "initial discriminator", index=k):
                self.discriminators.append(RegionDiscriminator(self.row.discriminator, classes))

    def normalize(self, images: Tensor) -> Tensor:
        """Turn uint8 images into the input of the segmenters and, the same for real and fake, of the discriminators."""
        return self._first.normalize(images)

    def grid(self, maps: Tensor) -> regions.Grid:
        """Return the rows and columns of regions that cover [.., H, W]."""
        return regions.grid_of(maps.shape[-2], maps.shape[-1], self.region)

    # ---- 0. What a step is divided by ----------------------------------------------------------------------------

    def count(self, batch: Batch) -> Counts:
        """Count, over all processes, what the losses and measures of a batch are divided by."""
        labeled = (batch.labels != config.IGNORE_INDEX).unsqueeze(1)
        unlabeled = torch.cat(batch.unlabeled_valid)
        pixels = (labeled, unlabeled, mix(unlabeled, self._boxes(batch)))
        judged = (labeled, unlabeled)
        here = torch.stack([v.sum() for v in pixels] + [self._relevant(v).sum() for v in judged])
        return Counts(*distributed.total(here).clamp(min=1))

    def _relevant(self, valid: Tensor) -> Tensor:
        """Mark the regions that hold a valid pixel, bool [N, 1, rows, columns], of bool or float [N, 1, H, W]."""
        padded = regions.pad_to_regions(valid.to(self.dtype), self.region)
        return regions.region_sum(padded, self.grid(valid)) > 0

    def evidence(self, batch: Batch) -> Evidence:
        """Begin the evidence of a batch."""
        return Evidence(self.count(batch), batch.labels, self.normalize(batch.images))

    # ---- 1. Consistency: two segmenters teach each other on mixed images -----------------------------------------

    def segmenter_losses(self, batch: Batch, evidence: Evidence, step: int, merged: bool = False) -> Iterator[Terms]:
        """Yield the weighted loss terms of one step, pass by pass, and fill the evidence; the sum of all is the loss.

        Every pass of a segmenter has a graph of its own: whoever takes its gradient at once and lets go of it has the
        activations of one pass in memory, not of four.

        Args:
            batch: the images.
            evidence: of `evidence`, for the same images.
            step: of the stage.
            merged: whether labeled and mixed images go through a segmenter in one pass, and so share the statistics of
                batch norm [ours]; otherwise in two [released].

        Yields:
            `supervised`, and where the row has them `consistency` and `feature_matching`.
        """
        if merged and self.row.consistency:
            lesson = self.lesson(batch, evidence, step)
            images = torch.cat([evidence.images, lesson.images])
            for k, logits in self._passes(images, "segmenter dropout", evidence, step):
                labeled, student = logits.split([len(evidence.images), len(lesson.images)])
                yield self._supervised(labeled, evidence) | self._consistency(k, student, lesson, evidence, step)
            return
        for _, labeled in self._passes(evidence.images, "segmenter dropout", evidence, step):
            yield self._supervised(labeled, evidence)
        if self.row.consistency:
            lesson = self.lesson(batch, evidence, step)
            for k, student in self._passes(lesson.images, "student dropout", evidence, step):
                yield self._consistency(k, student, lesson, evidence, step)

    def _passes(self, images: Tensor, dropout: str, evidence: Evidence, step: int) -> Iterator[tuple[int, Tensor]]:
        """Yield each segmenter's number and its logits [N, C, H, W]; the draws of `dropout` go on between the two."""
        with seeding.seeded(self.seed, dropout, step, distributed.rank()):
            for k, segmenter in enumerate(self.segmenters):
                yield k, segmenter(images)

    def _supervised(self, logits: Tensor, evidence: Evidence) -> Terms:
        """Return the supervised term of one segmenter, and note what it said."""
        evidence.said.append(logits.detach())
        return {"supervised": supervised_loss(logits, evidence.labels, evidence.counts.labeled)}

    def _consistency(self, k: int, student: Tensor, lesson: Lesson, evidence: Evidence, step: int) -> Terms:
        """Return what segmenter k, the `student`, learns from the other one: logits [B', C, H, W] of mixed images."""
        labels, weight = lesson.pseudo_labels[1 - k], lesson.weights[1 - k]
        loss = weighted_cross_entropy(student, labels, weight, lesson.valid, evidence.counts.mixed)
        terms = {"consistency": self.row.lambda_u * ramp(step, self.row.lambda_u_ramp) * loss}
        strength = self.row.discriminator.feature_matching
        if self.discriminators and strength:
            terms["feature_matching"] = strength * self.feature_matching(k, student, lesson, evidence)
        return terms

    def lesson(self, batch: Batch, evidence: Evidence, step: int) -> Lesson:
        """Let the teachers label un-mixed unlabeled images, weigh their labels, and mix; note it all in `evidence`."""
        unlabeled = self.normalize(torch.cat(batch.unlabeled))
        valid = torch.cat(batch.unlabeled_valid).to(unlabeled.dtype)
        teachers = self.teach(unlabeled)
        evidence.unlabeled, evidence.valid, evidence.teachers = unlabeled, valid, teachers
        pseudo_labels = teachers.argmax(2, keepdim=True)
        weights = self.weights(evidence, pseudo_labels, step)
        boxes = self._boxes(batch)
        pseudo_labels, weights = (torch.stack([mix(v, boxes) for v in both]) for both in (pseudo_labels, weights))
        return Lesson(mix(unlabeled, boxes), pseudo_labels, weights, mix(valid, boxes))

    def _boxes(self, batch: Batch) -> Tensor:
        """Return the boxes of CutMix, bool [B', 1, H, W]; all False where the row does not mix."""
        return batch.mix if self.row.cutmix else torch.zeros_like(batch.mix)

    @torch.no_grad()
    def teach(self, images: Tensor) -> Tensor:
        """Return both segmenters' logits [2, 2B', C, H, W] of un-mixed unlabeled images, as teachers.

        Batch norm uses the statistics of the batch [released] or the running ones [ours]; neither is changed, and
        dropout is off [ours].
        """
        predictions = []
        for segmenter in self.segmenters:
            with teaching(segmenter, self.row.teacher_statistics):
                predictions.append(precise(segmenter(images)))
        return torch.stack(predictions)

    # ---- 2. Local pseudo-label filtering: discriminators judge regions -------------------------------------------

    def class_maps(self, logits: Tensor) -> Tensor:
        """Return what a discriminator sees of both branches' logits [2, B, C, H, W], fp32.

        Probabilities, or one-hot labels; where the discriminator sees both [ours], each branch's own and behind
        them the other's, [2, B, 2C, H, W].
        """
        judge = self.row.discriminator
        maps = precise(logits).softmax(2) if judge.maps == "soft" else one_hot(logits.argmax(2), self.classes)
        return torch.cat([maps, maps.flip(0)], dim=2) if judge.sees_both else maps

    @torch.no_grad()
    def judge(self, maps: Tensor, images: Tensor, valid: Tensor, cross: bool = True) -> Tensor:
        """Score the branches' class maps by their own discriminator and by the other's, dropout off, fp32.

        Args:
            maps: of `class_maps`, one a branch.
            images: normalized [B, 3, H, W].
            valid: float [B, 1, H, W].
            cross: whether the other's is asked too.

        Returns:
            Logits [2 branches, 2 or 1 discriminators, B, rows, columns]: s_kk first, then s_kj.
        """
        grid = self.grid(maps)
        maps, images, valid = (regions.pad_to_regions(precise(v), self.region) for v in (maps, images, valid))
        scores = []
        with evaluating(self.discriminators):
            for k, own in enumerate(self.discriminators):
                judges = [own, self.discriminators[1 - k]] if cross else [own]
                scores.append(torch.stack([judge(maps[k], images, valid, grid)[0] for judge in judges]))
        return precise(torch.stack(scores))

    def weights(self, evidence: Evidence, pseudo_labels: Tensor, step: int) -> Tensor:
        """Return the weight W_k of every pixel of both branches' pseudo-labels, on un-mixed images; note the measures.

        Args:
            evidence: with unlabeled images, valid and teachers.
            pseudo_labels: the teachers' classes, int64 [2, N, 1, H, W].
            step: the filter starts at `filter.start`; before, W = 1.

        Returns:
            W [2, N, 1, H, W], at least 0.
        """
        assert evidence.unlabeled is not None and evidence.teachers is not None and evidence.valid is not None
        images, teachers, valid, counts = evidence.unlabeled, evidence.teachers, evidence.valid, evidence.counts
        height, width = valid.shape[-2:]
        grid = self.grid(valid)
        padded = regions.pad_to_regions(valid, self.region)
        area = regions.region_sum(padded, grid).squeeze(1)
        same = (pseudo_labels[0] == pseudo_labels[1]).float()
        kept = (area > 0).expand(2, *area.shape)
        weight = kept.float()
        if self.row.filter.by != "none" and step >= self.row.filter.start:
            scores = self.judge(self.class_maps(teachers), images, valid, self.row.rho in CROSS)
            kept = torch.stack([self.keep(k, scores, teachers, valid, area, step) for k in range(2)])
            weight = kept.float()
            if self.row.rho != "none":
                weight = regions.normalized(self.rho(scores, teachers, same, valid), kept, area)
        evidence.measures = {
            "coverage": kept.sum() / (2 * counts.unlabeled_regions),
            "weight": (weight * area).sum() / (2 * counts.unlabeled),
            "agreement": (same * valid).sum() / counts.unlabeled,
        }
        return regions.spread(weight.unsqueeze(2), *padded.shape[-2:])[..., :height, :width]

    def keep(self, k: int, scores: Tensor, teachers: Tensor, valid: Tensor, area: Tensor, step: int) -> Tensor:
        """Decide which regions of branch k's pseudo-labels are kept: bool [N, rows, columns].

        The region score decides alone [abstract]; the controls keep as many regions as it would, but those of the
        highest confidence, or at random [ours].
        """
        rule, relevant = self.row.filter, area > 0
        own = scores[k, 0]
        if rule.keep == "threshold":
            passed = relevant & (own >= logit(rule.tau))
            count = distributed.total(passed.sum())
        else:
            count = (rule.fraction * distributed.total(relevant.sum()).double() + 0.5).floor()
        if rule.by == "region_score":
            return passed if rule.keep == "threshold" else regions.best(own, relevant, count)
        if rule.by == "confidence":
            confidence = teachers[k].softmax(1).amax(1, keepdim=True)
            return regions.best(self._region_mean(confidence, valid), relevant, count)
        everyone = (len(own) * distributed.world(), *own.shape[1:])
        coins = torch.rand(everyone, generator=seeding.generator(self.seed, "coin", step, k))
        coins = coins[distributed.rank() :: distributed.world()]
        return regions.best(coins.to(own.device, non_blocking=True), relevant, count)

    # ---- 3. Dynamic region loss: the networks' diversity rates what is kept --------------------------------------

    def rho(self, scores: Tensor, teachers: Tensor, same: Tensor, valid: Tensor) -> Tensor:
        """Rate every region by the diversity of the two networks: [2, N, rows, columns], at least 0. Candidates [ours].

        product, mean: of both discriminators' probabilities; votes: share of discriminators that accept the region;
        agreement: share of its pixels that have the `same` class in both branches (float [N, 1, H, W]); divergence: exp
        of minus its mean Jensen-Shannon divergence.
        """
        kind = self.row.rho
        if kind in ("product", "mean"):
            accepted = scores.sigmoid()
            return accepted.prod(1) if kind == "product" else accepted.mean(1)
        if kind == "votes":
            return (scores >= logit(self.row.filter.tau)).float().mean(1)
        if kind == "agreement":
            rating = self._region_mean(same, valid)
        else:
            rating = (-self._region_mean(jensen_shannon(*teachers), valid)).exp()
        return rating.expand(2, *rating.shape)

    def _region_mean(self, values: Tensor, valid: Tensor) -> Tensor:
        """Mean of float [N, 1, H, W] over the valid pixels of each region: [N, rows, columns]."""
        grid = self.grid(values)
        values, valid = (regions.pad_to_regions(v, self.region) for v in (values, valid))
        return regions.region_mean(values, valid, grid).squeeze(1)

    # ---- 4. The discriminators' own objectives -------------------------------------------------------------------

    def discriminator_losses(self, evidence: Evidence, step: int) -> Iterator[Terms]:
        """Yield the losses `discriminator_1` and `discriminator_2` on what the segmenters said; none without them.

        adversarial: maps of labels are real, teachers' maps of unlabeled images fake [released]. accuracy: the share of
        a region's pixels that a segmenter got right on labeled images [ours]. Both discriminators learn both branches'
        maps [ours]; fakes of the first come from u0, of the second from u1.
        """
        loss = self._adversarial if self.row.discriminator.objective == "adversarial" else self._accuracy
        for k, discriminator in enumerate(self.discriminators):
            with seeding.seeded(self.seed, "discriminator dropout", step, 2 * distributed.rank() + k):
                yield {f"discriminator_{k + 1}": loss(discriminator, evidence, k)}

    def _adversarial(self, discriminator: nn.Module, evidence: Evidence, half: int) -> Tensor:
        """Binary cross-entropy of real against fake regions; both are blind to the other's void and padding."""
        assert evidence.unlabeled is not None and evidence.teachers is not None and evidence.valid is not None
        everything = (evidence.teachers, evidence.unlabeled, evidence.valid)
        logits, images, valid = (v.chunk(2, dim=-4)[half] for v in everything)
        reals, real_images, fake_at, valid = pair(evidence, valid, self.classes)
        count = distributed.total(self._relevant(valid).sum()).clamp(min=1)
        real = self._region_loss(discriminator, reals, real_images, valid, 1.0, count)
        fake = sum_over_pair(
            self._region_loss(discriminator, maps[fake_at], images[fake_at], valid, 0.0, count)
            for maps in self.class_maps(logits)
        )
        return (real + fake / 2) / 2

    def _accuracy(self, discriminator: nn.Module, evidence: Evidence, _: int) -> Tensor:
        """Binary cross-entropy against the share of right pixels of each region, on labeled images."""
        images, count = evidence.images, evidence.counts.labeled_regions
        valid = (evidence.labels != config.IGNORE_INDEX).unsqueeze(1).to(images.dtype)
        branches = zip(self.class_maps(evidence.logits), evidence.right, strict=True)
        return sum_over_pair(self._region_loss(discriminator, m, images, valid, r, count) for m, r in branches) / 2

    def _region_loss(
        self,
        discriminator: nn.Module,
        maps: Tensor,
        images: Tensor,
        valid: Tensor,
        target: Tensor | float,
        count: Tensor,
    ) -> Tensor:
        """Binary cross-entropy, summed over the regions that hold a valid pixel, over `count`, the number of them.

        A target by pixel is averaged by region.
        """
        grid = self.grid(maps)
        logits, _ = discriminator(maps, images, valid, grid)
        logits = precise(logits)
        if isinstance(target, Tensor):
            wanted = regions.region_mean(target, valid, grid).squeeze(1)
        else:
            wanted = torch.full_like(logits, target)
        relevant = (regions.region_sum(valid, grid).squeeze(1) > 0).to(logits.dtype)
        losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        return (losses * relevant).sum() / count

    def feature_matching(self, k: int, student: Tensor, lesson: Lesson, evidence: Evidence) -> Tensor:
        """Pull a discriminator's mean features of segmenter k's predictions to those of labels [released].

        The only gradient a segmenter gets through a discriminator; the discriminator, frozen, gets none.

        Args:
            k: the segmenter, and its own discriminator.
            student: its logits [B', C, H, W] of the mixed images, with gradient.
            lesson: of these images.
            evidence: of the labeled images.
        """
        reals, real_images, fake_at, valid = pair(evidence, lesson.valid, self.classes)
        discriminator, grid = self.discriminators[k], self.grid(valid)
        relevant = self._relevant(valid).to(valid.dtype)
        with evaluating(discriminator), frozen(discriminator):
            maps = precise(student).softmax(1)[fake_at]
            _, fake = discriminator(maps, lesson.images[fake_at], valid, grid)
            with torch.no_grad():
                _, real = discriminator(reals, real_images, valid, grid)
        count = distributed.total(relevant.sum()).clamp(min=1)
        difference = distributed.total(((real - fake) * relevant).sum((0, 2, 3))) / count
        return distributed.share(difference.abs().mean())

    # ---- What a trained model answers ----------------------------------------------------------------------------

    @property
    def _first(self) -> Segmenter:
        """The segmenter that stands for both where they do not differ."""
        first = self.segmenters[0]
        assert isinstance(first, Segmenter)
        return first

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._first.mean.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self._first.mean.dtype

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return fp32 logits [2, B, C, H, W] of uint8 images [B, 3, H, W] of any size, in evaluation mode."""
        with evaluating(self.segmenters):
            normalized_images = self.normalize(images.to(self.device))
            return torch.stack([segmenter(normalized_images).float() for segmenter in self.segmenters])

    def region_scores(self, logits: Tensor, images: Tensor) -> Tensor | None:
        """Return probabilities [2 branches, 2 discriminators, B, rows, columns], each branch's own first; or None."""
        if not self.discriminators:
            return None
        normalized_images = self.normalize(images.to(self.device))
        valid = torch.ones_like(normalized_images[:, :1])
        return self.judge(self.class_maps(logits), normalized_images, valid).sigmoid()


# ---- Formulas, each a pure function ------------------------------------------------------------------------------


def sum_over_pair(values: Iterator[Tensor] | list[Tensor]) -> Tensor:
    """Add the values of the two segmenters; the same to the bit when they swap."""
    first, second = values
    return first + second


def logit(probability: float) -> float:
    """Return the logit of a probability, as float32 has it; on the host, so that no device is waited for."""
    return float(torch.tensor(probability).logit())


def ramp(step: int, length: int) -> float:
    """Rise linearly to 1 over `length` steps; 1 at once if length is 0."""
    return min(1.0, (step + 1) / length) if length else 1.0


def precise(values: Tensor) -> Tensor:
    """Return values in float32 at least: what autocast made shorter is lengthened before it is summed or compared."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def supervised_loss(logits: Tensor, labels: Tensor, count: Tensor) -> Tensor:
    """Cross-entropy of logits [B, C, H, W], summed over the labeled pixels of int64 [B, H, W], over `count` of them."""
    return F.cross_entropy(precise(logits), labels, ignore_index=config.IGNORE_INDEX, reduction="sum") / count


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weight: Tensor, valid: Tensor, count: Tensor) -> Tensor:
    """Cross-entropy of each pixel times its weight, over the number of valid, not of kept, pixels.

    Args:
        logits: [B, C, H, W].
        labels: pseudo-labels int64 [B, 1, H, W].
        weight: [B, 1, H, W], at least 0.
        valid: float [B, 1, H, W].
        count: of the valid pixels.
    """
    losses = F.cross_entropy(precise(logits), labels.squeeze(1), reduction="none").unsqueeze(1)
    return (valid * weight * losses).sum() / count


def mix(halves: Tensor, boxes: Tensor) -> Tensor:
    """CutMix: paste the boxes of the second half of [2B', .., H, W] into the first; boxes bool [B', 1, H, W]."""
    first, second = halves.chunk(2)
    return torch.where(boxes, second, first)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Turn int64 [.., H, W] into float [.., C, H, W]; a void pixel is no class."""
    return torch.stack([labels == c for c in range(classes)], dim=-3).float()


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """Jensen-Shannon divergence, in nats, of two logits [N, C, H, W] at each pixel: [N, 1, H, W], 0 to log 2."""
    p, q = first.softmax(1), second.softmax(1)
    middle = ((p + q) / 2).clamp_min(1e-12).log()
    parts = [(r * (r.clamp_min(1e-12).log() - middle)).sum(1, keepdim=True) for r in (p, q)]
    return (parts[0] + parts[1]) / 2


def pair(evidence: Evidence, valid: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pair labeled with unlabeled images so that real and fake have the same void and padding.

    The smaller of the two sets is repeated.

    Args:
        evidence: labels and images of the labeled set.
        valid: float [B', 1, H, W] of the unlabeled set.
        classes: number of classes.

    Returns:
        Label maps [n, C, H, W] and images of the labeled, indices [n] of the unlabeled, and their common valid.
    """
    count = max(len(evidence.labels), len(valid))
    index = torch.arange(count, device=valid.device)
    real_at, fake_at = index % len(evidence.labels), index % len(valid)
    labeled = (evidence.labels != config.IGNORE_INDEX).unsqueeze(1).to(valid.dtype)
    maps = one_hot(evidence.labels, classes)
    return maps[real_at], evidence.images[real_at], fake_at, labeled[real_at] * valid[fake_at]
