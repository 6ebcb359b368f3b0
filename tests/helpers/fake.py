"""A model whose answers are functions of the image, and batches for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rrn.data.batches import WholeBatch
from rrn.evaluation.region_tables import concat, predict_batches, region_table
from rrn.evaluation.scores import region_total

CLASSES = ("sky", "road", "tree")


class Fake:
    """A model whose logits are functions of the image: channels 0 and 1 are the predicted classes."""

    device = torch.device("cpu")
    region = 4
    segmenters = nn.ModuleList([nn.Conv2d(3, 3, 1)] * 2)

    def __init__(self, score: Tensor | None = None, sure: float = 5.0):
        self.score, self.sure = score, sure

    def logits(self, images: Tensor) -> Tensor:
        predicted = images[:, :2].long().transpose(0, 1)  # [2, B, H, W]
        one_hot = nn.functional.one_hot(predicted, 3).permute(0, 1, 4, 2, 3).float()
        return one_hot * self.sure * torch.tensor([1.0, 0.5]).view(2, 1, 1, 1, 1)

    def region_scores(self, logits: Tensor, images: Tensor) -> Tensor | None:
        """Score = mean of channel 2 of the region / 255, for both segmenters; the other discriminator says 1 - that."""
        if self.score is None:
            return None
        own = region_total(images[:, 2].float() / 255, self.region) / self.region**2
        return torch.stack([own, 1 - own]).expand(2, 2, *own.shape)


def make_batch(one: Tensor, two: Tensor, labels: Tensor, third: Tensor | None = None) -> WholeBatch:
    third = torch.zeros_like(one) if third is None else third
    images = torch.stack([one, two, third], dim=1).to(torch.uint8)
    return WholeBatch(images, labels.long(), tuple(f"i{n}" for n in range(len(one))))


def random_batch(seed: int, count: int = 4, height: int = 10, width: int = 13) -> WholeBatch:
    draw = torch.Generator().manual_seed(seed)
    shape = (count, height, width)
    one, two, labels = torch.randint(0, 3, (3, *shape), generator=draw)
    third = torch.randint(0, 256, shape, generator=draw)
    labels[torch.rand(shape, generator=draw) < 0.2] = 255
    return make_batch(one, two, labels, third)


def described(model, batches, classes):
    """Return the region table of all batches."""
    return concat([region_table(model, seen, classes) for seen in predict_batches(model, batches)], classes)
