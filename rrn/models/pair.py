"""Two segmenters that begin apart and answer side by side."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rrn import config
from rrn.models.modes import evaluating
from rrn.models.segmenter import Segmenter
from rrn.runtime import seeding


class SegmenterPair(nn.Module):
    """Two segmenters with initial weights of their own, of one kind or of two; both are given the same images.

    Args:
        settings: of both segmenters.
        classes: number of classes C.
        seed: of the initial weights.
        pretrained: whether the encoders begin with `settings.weights`; not where trained weights follow.
    """

    def __init__(self, settings: config.Model, classes: int, seed: int, pretrained: bool = True) -> None:
        super().__init__()
        self.classes, self.seed = classes, seed
        segmenters = []
        for k, own in enumerate(settings.both):
            with seeding.fork(seed, "initial segmenter", index=k):
                segmenters.append(Segmenter(own, classes, pretrained))
        if settings.second is not None:
            segmenters[1].take_images_of(segmenters[0])
        self.segmenters = nn.ModuleList(segmenters)

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

    def normalize(self, images: Tensor) -> Tensor:
        """Turn uint8 images into the input of the segmenters and, the same for real and fake, of discriminators."""
        return self._first.normalize(images)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return fp32 logits [2, B, C, H, W] of uint8 images [B, 3, H, W] of any size, in evaluation mode."""
        with evaluating(self.segmenters):
            normalized_images = self.normalize(images.to(self.device))
            return torch.stack([segmenter(normalized_images).float() for segmenter in self.segmenters])
