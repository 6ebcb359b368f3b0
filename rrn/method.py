"""RRN, the Region Relevance Network: two segmenters teach each other, region discriminators say what to believe.

    Semi-Supervised Semantic Segmentation With Region Relevance. Chen, Chen, Wang, Yao. ICME 2023, arXiv 2304.11539.

This file is the method, in the order of the paper; every row of the ablation table is a switch in it. Marks say where a
part comes from: [abstract] of the paper, [released] code of its authors, [ours]; docs/method.md has the mathematics.

    B, B'   labeled images of a step, unlabeled images of each half      C classes, H x W crop
    k, j    a segmenter (or discriminator) and the other one             rows x columns regions of a crop
    N       any number of images: B, B', or 2B' of both halves
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrn import config
from rrn.data.batches import Batch
from rrn.models import regions
from rrn.models.discriminator import build_discriminator
from rrn.models.functional import logit, move_towards, one_hot, precise, ramp, sum_over_pair
from rrn.models.modes import evaluating, frozen, teaching
from rrn.models.pair import SegmenterPair
from rrn.models.pseudo_label_scores import FILTER_SCORES, RATINGS, Candidates, as_probability
from rrn.models.step import Answers, Denominators, Losses, PseudoLabels, Step, pair_real_and_fake
from rrn.runtime import distributed, seeding


class RRN(SegmenterPair):
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
        super().__init__(settings.model, classes, seed, pretrained)
        self.row, self.region = settings.method, settings.region
        self.discriminators = nn.ModuleList()
        for k in range(2 * self.row.uses_discriminators):
            with seeding.fork(seed, "initial discriminator", index=k):
                self.discriminators.append(build_discriminator(self.row.discriminator, classes))
        self.teachers = nn.ModuleList()  # averages of the segmenters, where the row asks for them: `add_teachers`

    # ---- 1. Consistency: two segmenters teach each other on mixed images -----------------------------------------

    def segmenter_losses(self, step: Step, merged: bool = False) -> Iterator[Losses]:
        """Yield `supervised` and, as the row says, `consistency` and `feature_matching`, pass by pass.

        merged: labeled and mixed images share a pass, and so the statistics of batch norm [ours]; or not [released].
        """
        # A generator, because every pass has a graph of its own. The learner takes the gradient of what is yielded and
        # lets go of it before it asks for more: it holds the activations of one pass, not of all four and of the
        # discriminators. That is 5.8 in place of 25.6 GiB on VOC (ResNet-50, fp32, docs/gpu.md). Two gradients of a
        # weight are added in either order, so the bits are those of one backward pass through the sum.
        if merged and self.row.consistency:
            pseudo = self.pseudo_label(step)
            together = torch.cat([step.images, pseudo.images])  # [B + B', 3, H, W]
            for k, logits in self._passes(together, "segmenter dropout", step):
                labeled, student = logits.split([len(step.images), len(pseudo.images)])
                yield self._supervised(labeled, step) | self._consistency(k, student, pseudo, step)
            return
        for _, labeled in self._passes(step.images, "segmenter dropout", step):
            yield self._supervised(labeled, step)
        if self.row.consistency:
            pseudo = self.pseudo_label(step)
            for k, student in self._passes(pseudo.images, "student dropout", step):
                yield self._consistency(k, student, pseudo, step)

    def _supervised(self, logits: Tensor, step: Step) -> Losses:
        step.labeled_logits.append(logits.detach())
        return {"supervised": supervised_loss(logits, step.batch.labels, step.denominators.labeled)}

    def _passes(self, images: Tensor, dropout: str, step: Step) -> Iterator[tuple[int, Tensor]]:
        """Yield each student's number and its logits [N, C, H, W]; the draws of `dropout` go on between the two."""
        with seeding.fork(self.seed, dropout, step.number, distributed.rank()):
            for k, segmenter in enumerate(self.students):
                yield k, segmenter(images)

    def _consistency(self, k: int, student: Tensor, pseudo: PseudoLabels, step: Step) -> Losses:
        """Return what segmenter k, the `student`, learns from the other one: logits [views * B', C, H, W], the mean."""
        asked = (pseudo.labels[1 - k], pseudo.weights[1 - k], pseudo.valid, step.denominators.mixed)
        views = student.split(len(pseudo.valid))  # of the mixed images
        loss = torch.stack([weighted_cross_entropy(view, *asked) for view in views]).mean()  # [UniMatch]
        lambda_u = self.row.lambda_u * ramp(step.number, self.row.lambda_u_ramp)
        losses = {"consistency": lambda_u * loss}
        if self.row.negative and pseudo.rejected is not None:
            rejected = (pseudo.rejected[1 - k], pseudo.valid, step.denominators.mixed)
            terms = torch.stack([negative_learning(view, *rejected) for view in views])
            losses["negative"] = lambda_u * self.row.negative.weight * terms.mean()
        strength = self.row.discriminator.feature_matching
        if self.discriminators and strength:
            losses["feature_matching"] = strength * self.feature_matching(k, student, pseudo, step)
        return losses

    def pseudo_label(self, step: Step) -> PseudoLabels:
        """Let the teachers label un-mixed unlabeled images, weigh their labels, and mix."""
        step.unlabeled = self.normalize(torch.cat(step.batch.unlabeled))
        step.valid = torch.cat(step.batch.unlabeled_valid).to(step.unlabeled.dtype)
        step.teacher_logits = self.teacher_logits(step.unlabeled)
        step.labels = step.teacher_logits.argmax(2, keepdim=True)
        step.agreement = (step.labels[0] == step.labels[1]).float()
        if self.row.labels_from == "ensemble":
            step.labels = self.ensemble_labels(step)
        weights = self.region_weights(step)
        step.labels = self.corrected_labels(step)
        boxes, strong = self.boxes(step.batch), step.batch.strong or ()
        negative, rejected = self.row.negative, None
        if negative:
            rejected = mix_pair(self.rejected_classes(step, weights, negative.below), boxes)
        views = [self.normalize(torch.cat(halves)) for halves in zip(strong[::2], strong[1::2], strict=True)]
        seen = torch.cat([mix(view, boxes) for view in views or [step.unlabeled]])  # by the students
        asked = (mix_pair(step.labels, boxes), mix_pair(weights, boxes), mix(step.valid, boxes))
        return PseudoLabels(seen, *asked, rejected)

    @property
    def students(self) -> nn.ModuleList:
        """The segmenters that learn: both; or the first, where the second is its teacher [Mean Teacher]."""
        return self.segmenters[: self.row.students]

    @torch.no_grad()
    def teacher_logits(self, images: Tensor, teachers: nn.ModuleList | None = None) -> Tensor:
        """Return both segmenters' logits [2, N, C, H, W] of un-mixed images, as teachers; or those of `teachers`.

        Batch norm uses the statistics of the batch [released] or the running ones [ours]; neither is changed, and
        dropout is off [ours].
        """
        logits = []
        for teacher in teachers or self.teachers or self.segmenters:
            with teaching(teacher, self.row.teacher_statistics):
                logits.append(precise(teacher(images)))
        return torch.stack(logits)

    def add_teachers(self) -> None:
        """Let averages of the students over all steps from now on teach, where the row says so [Mean Teacher]."""
        if self.row.students == 1:  # segmenter 2 is the average
            self.segmenters[1] = copy.deepcopy(self.segmenters[0]).requires_grad_(False)
        elif self.row.teacher == "ema":
            self.teachers = copy.deepcopy(self.segmenters).requires_grad_(False)

    @torch.no_grad()
    def update_teachers(self, number: int, learned: Tensor) -> None:
        """Move the teachers towards the students of after step `number`, if it `learned` anything (bool scalar)."""
        if averages := self.teachers or self.segmenters[self.row.students :]:
            decay = min(self.row.teacher_decay, number / (number + 1))  # at first the plain mean [Mean Teacher]
            move_towards(averages, self.students, (1 - decay) * learned)

    def boxes(self, batch: Batch) -> Tensor:
        """Return the boxes of CutMix, bool [B', 1, H, W]; all False where the row does not mix."""
        return batch.mix if self.row.cutmix else torch.zeros_like(batch.mix)

    def begin_step(self, batch: Batch, number: int) -> Step:
        """Count what the losses and measures of a batch are divided by, and prepare its labeled images."""
        labeled = (batch.labels != config.IGNORE_INDEX).unsqueeze(1)  # [B, 1, H, W]
        unlabeled = torch.cat(batch.unlabeled_valid)  # [2B', 1, H, W]
        counted = [labeled, unlabeled, mix(unlabeled, self.boxes(batch))]
        counted += [regions.any_valid(valid, self.region) for valid in (labeled, unlabeled)]
        counts = distributed.all_reduce_sum(torch.stack([marks.sum() for marks in counted]))
        return Step(batch, number, Denominators(*counts.clamp(min=1)), self.normalize(batch.images))

    # ---- 2. Local pseudo-label filtering: discriminators judge regions -------------------------------------------

    def class_maps(self, logits: Tensor) -> Tensor:
        """Return what a discriminator sees of both branches' logits [2, N, C, H, W], fp32.

        Probabilities, or one-hot labels; where the discriminator sees both [ours], each branch's own and behind
        them the other's, [2, N, 2C, H, W].
        """
        options = self.row.discriminator
        maps = precise(logits).softmax(2) if options.maps == "soft" else one_hot(logits.argmax(2), self.classes)
        return torch.cat([maps, maps.flip(0)], dim=2) if options.sees_both else maps

    @torch.no_grad()
    def score_regions(self, maps: Tensor, images: Tensor, valid: Tensor, cross: bool = True) -> Tensor:
        """Let its own discriminator and, if `cross`, the other one score each branch's `class_maps`; dropout off, fp32.

        Of normalized images [N, 3, H, W], float valid [N, 1, H, W]. Returns logits [2 branches, 2 or 1 discriminators,
        N, rows, columns]: s_kk first, then s_kj.
        """
        maps, images, valid = precise(maps), precise(images), precise(valid)
        scores = []
        with evaluating(self.discriminators):
            for k, own in enumerate(self.discriminators):
                asked = [own, self.discriminators[1 - k]] if cross else [own]
                scores.append(torch.stack([each(maps[k], images, valid, self.region)[0] for each in asked]))
        return precise(torch.stack(scores))

    def region_scores(self, logits: Tensor, images: Tensor) -> Tensor | None:
        """Return what `score_regions` says of uint8 images and their logits, as probabilities; or None without it."""
        if not self.discriminators:
            return None
        normalized_images = self.normalize(images.to(self.device))
        valid = torch.ones_like(normalized_images[:, :1])
        return self.score_regions(self.class_maps(logits), normalized_images, valid).sigmoid()

    def select_regions(self, k: int, step: Step, relevant: Tensor) -> Tensor:
        """Decide which `relevant` regions of branch k's pseudo-labels are kept: bool [N, rows, columns].

        The region score decides alone [abstract]; the controls keep as many regions as it would, but those that
        another of FILTER_SCORES puts first [ours]. A soft rule keeps all. Pixels have a threshold of their own.
        """
        rule, ranking = self.row.filter, step.ranking[k]
        if rule.keep == "soft":
            return relevant
        if rule.keep == "threshold":
            if rule.by == "pixel_confidence":
                return relevant & (ranking >= rule.tau)
            passed = relevant & (step.scores[k, 0] >= logit(rule.tau))
            if rule.by == "region_score":
                return passed
            return regions.best(ranking, relevant, distributed.all_reduce_sum(passed.sum()))  # in each branch
        if rule.per == "class":
            return regions.best_of_classes(ranking, relevant, self.region_classes(step, k), self.classes, rule.fraction)
        return regions.best_share(ranking, relevant, rule.fraction)

    def region_classes(self, step: Step, k: int) -> Tensor:
        """Return the most frequent class of each region of branch k's pseudo-labels, int64 [N, rows, columns]."""
        pixels = one_hot(step.labels[k].squeeze(1), self.classes) * step.valid
        return regions.region_sum(pixels, self.side).argmax(1)

    # ---- 3. Dynamic region loss: the networks' diversity rates what is kept --------------------------------------

    def region_weights(self, step: Step) -> Tensor:
        """Return the weight W_k of every pixel of both branches' pseudo-labels, un-mixed [2, 2B', 1, H, W]."""
        row, divide = self.row, step.denominators
        area = regions.region_sum(step.valid, self.side).squeeze(1)  # valid pixels [2B', rows, columns]
        kept = (area > 0).expand(2, *area.shape)
        weight = kept.float()
        if step.number >= row.filter.start:
            candidates = self.candidates(step)
            if row.filter.by != "none":
                step.ranking = torch.stack([FILTER_SCORES[row.filter.by](candidates, k) for k in range(2)])
                kept = torch.stack([self.select_regions(k, step, area > 0) for k in range(2)])
                weight = kept.float()
            if row.rho != "none" or row.filter.keep == "soft":
                weight = regions.normalized(self.ratings(step, candidates), kept, area)
        n, counted = row.students, divide.unlabeled_regions if self.side == self.region else divide.unlabeled
        step.measures = {  # of the branches that teach: the last one, where one learns
            "coverage": kept[-n:].sum() / (n * counted),
            "weight": (weight * area)[-n:].sum() / (n * divide.unlabeled),
            "agreement": (step.agreement * step.valid).sum() / divide.unlabeled,
        }
        return self.to_pixels(weight.unsqueeze(2), step)

    def candidates(self, step: Step) -> Candidates:
        """Return all that regions are judged by; among it what discriminators, if there are any, say of them."""
        scores = None
        if self.discriminators:
            maps, cross = self.class_maps(step.teacher_logits), self.row.rho in config.JUDGED
            step.scores = scores = self.score_regions(maps, step.unlabeled, step.valid, cross)
        teachers = (step.teacher_logits, step.labels, step.valid, step.agreement, scores)
        return Candidates(self.region, self.seed, self.row.filter.tau, step.number, *teachers)

    def ratings(self, step: Step, candidates: Candidates) -> Tensor:
        """Return what weighs kept regions, at least 0 [2, N, rows, columns]: rho, a soft filter's score, or both."""
        rule = self.row.filter
        soft = rule.floor + (1 - rule.floor) * as_probability(rule.by, step.ranking) if rule.keep == "soft" else None
        if self.row.rho == "none" and soft is not None:
            return soft
        rating = RATINGS[self.row.rho](candidates)
        if self.side != self.region:  # what is filtered are pixels
            rating = regions.to_pixels(rating, self.region, *step.valid.shape[-2:])
        return rating if soft is None else rating * soft

    def ensemble_labels(self, step: Step) -> Tensor:
        """Return the class of the mean of both teachers' probabilities, for both branches [2, 2B', 1, H, W] [ours]."""
        return step.teacher_logits.softmax(2).mean(0).argmax(1, keepdim=True).expand_as(step.labels)

    def corrected_labels(self, step: Step) -> Tensor:
        """Return what students are asked for, where a row says so the ensemble's labels of what is below tau [ours].

        After `region_weights`, which ranks and weighs the teachers' own. int64 [2, 2B', 1, H, W].
        """
        rule = self.row.filter
        if self.row.labels_from != "ensemble_below_tau" or step.number < rule.start:
            return step.labels
        doubted = as_probability(rule.by, step.ranking) < rule.tau  # [2, 2B', rows, columns]
        return torch.where(self.to_pixels(doubted.unsqueeze(2), step), self.ensemble_labels(step), step.labels)

    def rejected_classes(self, step: Step, weights: Tensor, below: float) -> Tensor:
        """Return what a student is told to avoid where a label weighs nothing: bool [2, 2B', C, H, W] [NLNL, ours].

        The classes to which neither teacher gives more than `below`, but for the label itself.
        """
        improbable = step.teacher_logits.softmax(2).amax(0) <= below  # [2B', C, H, W]
        return improbable & (weights == 0) & (one_hot(step.labels.squeeze(2), self.classes) == 0)

    @property
    def side(self) -> int:
        """Side of what the row filters, in pixels: a region, or a pixel."""
        return 1 if self.row.filter.by == "pixel_confidence" else self.region

    def to_pixels(self, values: Tensor, step: Step) -> Tensor:
        """Give the pixels of the unlabeled images the values [.., rows, columns] of what the row filters."""
        return regions.to_pixels(values, self.side, *step.valid.shape[-2:])

    def region_mean(self, values: Tensor, valid: Tensor) -> Tensor:
        """Mean of float [N, 1, H, W] over the valid pixels of each region: [N, rows, columns]."""
        return regions.region_mean(values, valid, self.region).squeeze(1)

    # ---- 4. The discriminators' own objectives -------------------------------------------------------------------

    def discriminator_losses(self, step: Step) -> Iterator[Losses]:
        """Yield the losses `discriminator_1` and `discriminator_2` on what the segmenters answered, if there are any.

        adversarial: maps of labels are real, teachers' maps of unlabeled images fake [released]. accuracy: the share of
        a region's pixels that a segmenter got right on labeled images [ours]. Both discriminators learn both branches'
        maps [ours]; fakes of the first come from u0, of the second from u1.
        """
        loss = self._adversarial if self.row.discriminator.objective == "adversarial" else self._accuracy
        for k, discriminator in enumerate(self.discriminators):
            with seeding.fork(self.seed, "discriminator dropout", step.number, 2 * distributed.rank() + k):
                yield {f"discriminator_{k + 1}": loss(discriminator, step, k)}

    def _adversarial(self, discriminator: nn.Module, step: Step, half: int) -> Tensor:
        """Binary cross-entropy of real against fake regions; both are blind to the other's void and padding."""
        everything = (step.teacher_logits, step.unlabeled, step.valid)
        logits, images, valid = (v.chunk(2, dim=-4)[half] for v in everything)  # 2B' -> B'
        reals, real_images, fake_at, valid = pair_real_and_fake(step, valid, self.classes)
        count = distributed.all_reduce_sum(regions.any_valid(valid, self.region).sum()).clamp(min=1)
        real = self._region_loss(discriminator, reals, real_images, valid, 1.0, count)
        fake = sum_over_pair(
            self._region_loss(discriminator, maps[fake_at], images[fake_at], valid, 0.0, count)
            for maps in self.class_maps(logits)
        )
        return (real + fake / 2) / 2

    def _accuracy(self, discriminator: nn.Module, step: Step, _: int) -> Tensor:
        """Binary cross-entropy against the share of right pixels of each region, on labeled images."""
        known = step.answers = step.answers or self.answers(step)
        asked = (known.images, known.valid)
        branches = zip(self.class_maps(known.logits), known.right, strict=True)
        return sum_over_pair(self._region_loss(discriminator, m, *asked, r, known.count) for m, r in branches) / 2

    def answers(self, step: Step) -> Answers:
        """Return what both segmenters say of labeled images: of these a discriminator learns where they are right.

        As students they have said it already; or they say it as teachers, as where they are judged, of the images as
        they are or of CutMixed ones, which no segmenter has learned by heart [all ours].
        """
        images, labels, count = step.images, step.batch.labels, step.denominators.labeled_regions
        if self.row.discriminator.cutmix:
            boxes = step.batch.mix[torch.arange(len(images), device=images.device) % len(step.batch.mix)]
            images, labels = (mix(torch.cat([v, v.roll(1, 0)]), boxes) for v in (images, labels.unsqueeze(1)))
            labels = labels.squeeze(1)
            marks = regions.any_valid((labels != config.IGNORE_INDEX).unsqueeze(1), self.region)
            count = distributed.all_reduce_sum(marks.sum()).clamp(min=1)
        if self.row.discriminator.answers_of == "teachers":
            return Answers(images, labels, self.teacher_logits(images), count)
        if len(step.labeled_logits) == 1:  # a student's, whose teacher has not been asked yet
            step.labeled_logits += self.teacher_logits(images, self.segmenters[1:])
        return Answers(images, labels, torch.stack(step.labeled_logits), count)

    def _region_loss(
        self, judge: nn.Module, maps: Tensor, images: Tensor, valid: Tensor, target: Tensor | float, count: Tensor
    ) -> Tensor:
        """Mean binary cross-entropy of the `count` regions with a valid pixel; a target by pixel is averaged first.

        Wrong regions weigh `wrong_weight` times as much as right ones [ours].
        """
        logits = precise(judge(maps, images, valid, self.region)[0])  # [N, rows, columns]
        wanted = torch.full_like(logits, target) if isinstance(target, float) else self.region_mean(target, valid)
        relevant = regions.any_valid(valid, self.region).squeeze(1).to(logits.dtype)
        losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        if (factor := self.row.discriminator.wrong_weight) != 1:  # errors are few [ELN, ConfidNet]
            losses = losses * (1 + (factor - 1) * (1 - wanted))
        return (losses * relevant).sum() / count

    def feature_matching(self, k: int, student: Tensor, pseudo: PseudoLabels, step: Step) -> Tensor:
        """Pull discriminator k's mean features of segmenter k's predictions to those of labels [released].

        The only gradient a segmenter gets through a discriminator; the discriminator, frozen, gets none.
        `student`: logits [views * B', C, H, W] of the mixed images, with gradient; the first view is looked at.
        """
        reals, real_images, fake_at, valid = pair_real_and_fake(step, pseudo.valid, self.classes)
        discriminator = self.discriminators[k]
        relevant = regions.any_valid(valid, self.region).to(valid.dtype)
        with evaluating(discriminator), frozen(discriminator):
            maps = precise(student).softmax(1)[fake_at]
            _, fake = discriminator(maps, pseudo.images[fake_at], valid, self.region)  # [N, K, rows, columns]
            with torch.no_grad():
                _, real = discriminator(reals, real_images, valid, self.region)
        count = distributed.all_reduce_sum(relevant.sum()).clamp(min=1)
        difference = distributed.all_reduce_sum(((real - fake) * relevant).sum((0, 2, 3))) / count  # [K]
        return distributed.split_value(difference.abs().mean())


# ---- 5. Formulas, each a pure function -------------------------------------------------------------------------------


def supervised_loss(logits: Tensor, labels: Tensor, count: Tensor) -> Tensor:
    """Cross-entropy of logits [B, C, H, W], summed over the labeled pixels of int64 [B, H, W], over `count` of them."""
    return F.cross_entropy(precise(logits), labels, ignore_index=config.IGNORE_INDEX, reduction="sum") / count


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weight: Tensor, valid: Tensor, count: Tensor) -> Tensor:
    """Cross-entropy of logits [B, C, H, W] and pseudo-labels, int64 [B, 1, H, W], each pixel times its weight.

    weight, valid: float [B, 1, H, W], at least 0. It is divided by `count`, the number of valid, not of kept, pixels.
    """
    losses = F.cross_entropy(precise(logits), labels.squeeze(1), reduction="none").unsqueeze(1)  # [B, 1, H, W]
    return (valid * weight * losses).sum() / count


def mix(halves: Tensor, boxes: Tensor) -> Tensor:
    """CutMix: paste the boxes of the second half of [2B', .., H, W] into the first; boxes bool [B', 1, H, W]."""
    first, second = halves.chunk(2)
    return torch.where(boxes, second, first)


def mix_pair(halves: Tensor, boxes: Tensor) -> Tensor:
    """CutMix what is said by both branches [2, 2B', .., H, W]: [2, B', .., H, W]."""
    return torch.stack([mix(branch, boxes) for branch in halves])


def negative_learning(logits: Tensor, rejected: Tensor, valid: Tensor, count: Tensor) -> Tensor:
    """Negative learning: -log(1 - p) of the `rejected` classes of logits [B, C, H, W], bool of that shape [NLNL].

    valid: float [B, 1, H, W]. Summed over classes, and divided by `count`, the number of valid pixels. A p above
    1 - 1e-6 has no gradient.
    """
    probability = precise(logits).softmax(1)
    losses = -torch.log1p(-probability.clamp(max=1 - 1e-6)) * rejected
    return (valid * losses).sum() / count
