"""The region discriminator, which judges the labels of a segmenter region by region.

Its trunk is that of the released code. That it answers by region is the paper's idea [abstract], its head ours: the
released one pools a fixed window and never sees part of a 512 pixel crop.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrn import config
from rrn.models import regions
from rrn.models.relations import RegionRelationNetwork


def build_discriminator(settings: config.Discriminator, classes: int) -> nn.Module:
    """Return the region discriminator that a row asks for, which judges the class maps of this many classes."""
    kinds = {"convolutions": RegionDiscriminator, "relations": RegionRelationNetwork}
    return kinds[settings.network](settings, classes)


class RegionDiscriminator(nn.Module):
    """Judge a class map region by region: one logit a region, high where the labels look right.

    Convolutions of kernel 4 and stride 2, LeakyReLU 0.2, Dropout2d after all but the last [released]; the features of a
    region are averaged over its valid cells and scored by one linear layer [ours]. Cells and regions need not line up;
    a region whose valid pixels all lie in cells of its neighbors is scored by all of its own cells.

    Args:
        settings: channels, input stride, whether it sees the image, and both segmenters' class maps.
        classes: number of classes.
    """

    def __init__(self, settings: config.Discriminator, classes: int) -> None:
        super().__init__()
        self.sees_image, self.input_stride = settings.sees_image, settings.input_stride
        layers: list[nn.Module] = []
        inputs = classes * (1 + settings.sees_both) + 3 * settings.sees_image
        for depth, outputs in enumerate(settings.channels, start=1):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.LeakyReLU(0.2)]
            layers += [nn.Dropout2d(settings.dropout)] if depth < len(settings.channels) else []
            inputs = outputs
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Conv2d(inputs, 1, 1)

    def forward(self, maps: Tensor, images: Tensor, valid: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Score the regions of class maps.

        Args:
            maps: class maps, float [B, C (or 2C), H, W], those of a segmenter sum to 1 at every pixel.
            images: the images they label, normalized float [B, 3, H, W].
            valid: float [B, 1, H, W], 0 where maps and images are padding or void: those pixels change nothing.
            side: of a region, in pixels; regions at the right and below may reach beyond the image.

        Returns:
            Logits [B, rows, columns] and features [B, K, rows, columns] of the regions.
        """
        grid = regions.grid_of(maps.shape[-2], maps.shape[-1], side)
        maps, images, valid = (regions.pad(values, side) for values in (maps, images, valid))
        seen = torch.cat([maps, images], dim=1) if self.sees_image else maps
        seen = seen * valid
        if self.input_stride > 1:
            seen = F.avg_pool2d(seen, self.input_stride, ceil_mode=True)
        features = self.trunk(seen)
        cells = F.adaptive_max_pool2d(valid, features.shape[-2:])
        missed = (regions.cell_sum(cells, grid) == 0) & (regions.cell_sum(valid, grid) > 0)
        cells = torch.where(regions.to_cells(missed, *cells.shape[-2:]), 1.0, cells)
        features = regions.cell_mean(features, cells, grid)
        with regions.full_precision(features.device):
            return self.head(features.to(self.head.weight.dtype)).squeeze(1), features
