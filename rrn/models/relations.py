"""A discriminator of relations: it judges a region by what both segmenters say of it and of its neighbors [ours].

It begins as the free rival, the mean of both networks' probability of the judged segmenter's label, and learns a
correction.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rrn import config
from rrn.models import regions
from rrn.models.functional import entropy, probability_divergence

MEASURES = 6
"""What is said of a region beside the mean of both class maps: see `describe`."""
SUREST = 1e-3
"""Probabilities are held this far from 0 and 1 before their log odds are taken."""


class RegionRelationNetwork(nn.Module):
    """Judge pseudo-labels on the grid of regions: one logit a region, high where the labels look right.

    Convolutions of 3 x 3 regions and LeakyReLU 0.2, one for each of `channels`, Dropout2d after all but the last; what
    a linear layer makes of them, 0 at first, is added to the log odds of the mean probability that both networks give
    to the label of the judged one.

    Args:
        settings: channels and dropout; it sees both segmenters' class maps, as probabilities, and no image.
        classes: number of classes.
    """

    def __init__(self, settings: config.Discriminator, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 2 * classes + MEASURES
        for depth, outputs in enumerate(settings.channels, start=1):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.LeakyReLU(0.2)]
            layers += [nn.Dropout2d(settings.dropout)] if depth < len(settings.channels) else []
            inputs = outputs
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Conv2d(inputs, 1, 1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, maps: Tensor, images: Tensor, valid: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Score the regions of class maps.

        Args:
            maps: probabilities of the segmenter that is judged, and behind them the other's, float [B, 2C, H, W].
            images: not looked at.
            valid: float [B, 1, H, W], 0 where maps are padding or void: those pixels change nothing.
            side: of a region, in pixels; regions at the right and below may reach beyond the image.

        Returns:
            Logits [B, rows, columns] and features [B, K, rows, columns] of the regions.
        """
        with regions.full_precision(maps.device):
            known, rival = self.describe(maps, valid, side)
            features = self.trunk(known)
            return (self.head(features) + rival).squeeze(1), features

    def describe(self, maps: Tensor, valid: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Return what is known of each region [B, 2C + 6, rows, columns], and the rival's log odds of it, a channel.

        Means over its valid pixels, 0 where there is none: both class maps, the confidence of the judged segmenter, the
        other's probability of the same label, the entropy of both as a share of log C, and their divergence; and its
        share of valid pixels.
        """
        own, other = maps.float().chunk(2, dim=1)
        label = own.argmax(1, keepdim=True)
        given = [probability.gather(1, label) for probability in (own, other)]
        spread = [entropy(probability) / math.log(max(2, own.shape[1])) for probability in (own, other)]
        pixels = torch.cat([own, other, *given, *spread, probability_divergence(own, other)], dim=1)
        means = regions.region_mean(pixels, valid, side)
        share = regions.region_sum(valid, side) / side**2
        classes = 2 * own.shape[1]
        rival = means[:, classes : classes + 2].mean(1, keepdim=True).clamp(SUREST, 1 - SUREST).logit()
        return torch.cat([means, share], dim=1), rival
