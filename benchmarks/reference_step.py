"""The rival: a training step as the released code of the paper takes it, written anew from its formulas.

It is CPS with CutMix and two discriminators of whole images, in the released order of passes and with the released
round trips between host and device. Frozen: `tests/benchmarks/test_reference_step.py` counts its passes and its
host reads.

    x_l, y_l   labeled images and labels        u0, u1   two unlabeled batches       M   CutMix boxes, 1 takes u1
    f_k, D_k   segmenter and discriminator      z_k = f_k(x_m), x_m the mix          s_k = f_k(x_l)
    a_k = [softmax z_k, n(x_m)] a fake          r = [one-hot y_l, n(x_l)] the real   n: min-max over the batch

    L_k = CE(s_k, y_l) + CE(z_k, y_j) + 0.1 |mean phi_k(r) - mean phi_k(a_k)| + sum over D_1 D_2 of CE(z_k[S], own_k[S])
    y_j: argmax of the mix of the other segmenter's teacher passes;    own_k: argmax z_k;    S: images scored above 0.6

What differs: the features are pooled over the whole map where the released window of 20 x 20 cells does not fit (a crop
of 256 has 16 x 16); the learning rates are constant; on a CPU a copy to the host costs nothing. Networks and batch are
those of our own step; memory is contiguous.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrn import config
from rrn.data.batches import Batch
from rrn.models.segmenter import Segmenter
from rrn.runtime import seeding

WINDOW = 20
"""Side, in cells, of the released pooling window."""
FEATURE_MATCHING = 0.1
READS = 2
"""Each term is read by the host for the progress line, and again for the sums of the epoch."""


class ImageDiscriminator(nn.Module):
    """Score whole images: four convolutions, dropout after the first three, a pool, a linear layer, a sigmoid.

    Args:
        classes: number of classes C.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = classes + 3
        for outputs in (64, 128, 256, 512):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.LeakyReLU(0.2)]
            layers += [nn.Dropout2d(0.5)] if outputs < 512 else []
            inputs = outputs
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(512, 1)

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores in 0..1 [B, 1] and features [B, 512] of class maps and images [B, C + 3, H, W]."""
        cells = self.trunk(seen)
        fits = all(WINDOW <= side < 2 * WINDOW for side in cells.shape[-2:])
        features = F.avg_pool2d(cells, WINDOW if fits else cells.shape[-2:]).flatten(1)
        return self.head(features).sigmoid(), features


class ReferenceStep:
    """Networks, optimizers and the step.

    Args:
        settings: of our own training; model, optimizer and the discriminators' Adam are taken from it.
        classes: number of classes C.
        seed: of the initial weights.
        threshold: the score above which an image teaches itself.
    """

    def __init__(self, settings: config.Settings, classes: int, seed: int, threshold: float = 0.6) -> None:
        self.classes, self.threshold = classes, threshold
        self.segmenters: list[Segmenter] = []
        self.discriminators: list[ImageDiscriminator] = []
        for k in range(2):
            with seeding.fork(seed, "initial segmenter", index=k):
                self.segmenters.append(Segmenter(settings.model, classes).train())
            with seeding.fork(seed, "initial discriminator", index=k):
                self.discriminators.append(ImageDiscriminator(classes).train())
        judge = settings.method.discriminator
        self.optimizers = [_sgd(segmenter, settings.optimizer) for segmenter in self.segmenters]
        self.judges = [torch.optim.Adam(d.parameters(), lr=judge.lr, betas=judge.betas) for d in self.discriminators]

    def step(self, batch: Batch, epoch: int = 1) -> dict[str, float]:
        """Learn from one batch, and return the terms; self-training counts after the first epoch only."""
        labeled, first, second = (self.segmenters[0].normalize(x) for x in (batch.images, *batch.unlabeled))
        boxes = batch.mix.float()
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        for discriminator in self.discriminators:
            discriminator.requires_grad_(False)
        mixed = first * (1 - boxes) + second * boxes
        pseudo_labels = [self._teach(segmenter, first, second, boxes) for segmenter in self.segmenters]
        students = [segmenter(mixed) for segmenter in self.segmenters]
        terms = {"cps": sum(F.cross_entropy(students[k], pseudo_labels[1 - k]) for k in range(2))}
        fakes, reals = self._judge(batch, labeled, mixed, students, terms)
        for k, segmenter in enumerate(self.segmenters):
            logits = segmenter(labeled)
            terms[f"supervised_{k}"] = F.cross_entropy(logits, batch.labels, ignore_index=config.IGNORE_INDEX)
        self._learn(terms, epoch)
        self._learn_to_judge(fakes, reals, terms)
        for _ in range(READS):
            read = {name: term.item() for name, term in terms.items()}
        return read

    @torch.no_grad()
    def _teach(self, segmenter: nn.Module, first: Tensor, second: Tensor, boxes: Tensor) -> Tensor:
        """Label the mix int64 [B', H, W]: one pass a half, which also moves the running statistics."""
        one, two = segmenter(first), segmenter(second)
        return (one * (1 - boxes) + two * boxes).argmax(1)

    def _judge(
        self, batch: Batch, labeled: Tensor, mixed: Tensor, students: list[Tensor], terms: dict[str, Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """Add what the segmenters learn through the discriminators to `terms`; return the fakes and the real."""
        fakes: list[Tensor] = []
        for k, (logits, discriminator) in enumerate(zip(students, self.discriminators, strict=True)):
            fakes.append(torch.cat([logits.softmax(1), scaled(mixed)], dim=1))
            scores, features = discriminator(fakes[k])
            terms[f"self_training_{k}"] = self._self_training(logits, scores)
            reals = torch.cat([one_hot(batch.labels, self.classes), scaled(labeled)], dim=1)
            _, wanted = discriminator(reals)
            terms[f"feature_matching_{k}"] = (wanted.mean(0) - features.mean(0)).abs().mean()
        for k, logits in enumerate(students):
            scores, _ = self.discriminators[1 - k](fakes[k])
            terms[f"self_training_{k}"] = terms[f"self_training_{k}"] + self._self_training(logits, scores)
        return fakes, reals

    def _self_training(self, logits: Tensor, scores: Tensor) -> Tensor:
        """Return the cross-entropy of the accepted images [.., C, H, W] with their own labels, computed on the host."""
        accepted = 0
        for score in scores:
            if score > self.threshold:
                accepted += 1
        if not accepted:
            return torch.zeros((), device=logits.device)
        chosen = torch.zeros(accepted, *logits.shape[1:])
        labels = torch.zeros(accepted, *logits.shape[2:], dtype=torch.int64)
        place = 0
        for index, score in enumerate(scores):
            if score > self.threshold:
                chosen[place] = logits[index].cpu()
                found = np.argmax(logits[index].detach().cpu().numpy().transpose(1, 2, 0), axis=2)
                labels[place] = torch.from_numpy(found)
                place += 1
        return F.cross_entropy(chosen, labels).to(logits.device)

    def _learn(self, terms: dict[str, Tensor], epoch: int) -> None:
        weights = {"feature_matching": FEATURE_MATCHING, "self_training": float(epoch > 0)}
        loss = sum(weights.get(name.rpartition("_")[0], 1.0) * term for name, term in terms.items())
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()

    def _learn_to_judge(self, fakes: list[Tensor], reals: Tensor, terms: dict[str, Tensor]) -> None:
        """Take one step of each discriminator on its own segmenter's fakes and on the real."""
        for k, (discriminator, optimizer) in enumerate(zip(self.discriminators, self.judges, strict=True)):
            discriminator.requires_grad_(True)
            optimizer.zero_grad()
            fake, _ = discriminator(fakes[k].detach())
            real, _ = discriminator(reals)
            false = F.binary_cross_entropy(fake, torch.zeros_like(fake))
            true = F.binary_cross_entropy(real, torch.ones_like(real))
            terms[f"discriminator_{k}"] = (false + true) / 2
            terms[f"discriminator_{k}"].backward()
            optimizer.step()


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Turn int64 [B, H, W] into float [B, C, H, W], zeros where void: on the host, as int64 first."""
    there = labels.cpu()
    maps = torch.zeros(len(there), classes, *there.shape[1:], dtype=torch.int64)
    for index in range(classes):
        maps[:, index] = there == index
    return maps.float().to(labels.device)


def scaled(images: Tensor) -> Tensor:
    """Stretch a batch to 0..1."""
    lowest, highest = images.min(), images.max()
    return (images - lowest) / (highest - lowest)


def _sgd(segmenter: nn.Module, options: config.Optimizer) -> torch.optim.Optimizer:
    """Return SGD, without weight decay on norms and biases."""
    groups = [
        {"params": [p for p in segmenter.parameters() if (p.ndim > 1) == decays], "weight_decay": decay}
        for decays, decay in ((True, options.weight_decay), (False, 0.0))
    ]
    return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum)
