"""Regions: the fixed squares of an image that a pseudo-label is judged in. Index arithmetic and ranks; nothing learned.

Pixels are summed over squares of `side` pixels; those at the right and below reach beyond the image, where everything
is 0. Cells of a feature map of any size are summed over the same squares, given as their grid = (rows, columns): a
region holds the cells whose `floor(index * grid / size)` is its own, so that every cell lies in exactly one region
(adaptive pooling would overlap).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from rrn.runtime import distributed

Grid = tuple[int, int]
"""Rows and columns of regions."""


# ---- Pixels ------------------------------------------------------------------------------------------------------


def grid_of(height: int, width: int, side: int) -> Grid:
    """Return the grid that covers height x width pixels with squares of `side` pixels."""
    return -(-height // side), -(-width // side)


def pad(values: Tensor, side: int) -> Tensor:
    """Zero-pad [..., H, W] on the right and below to whole regions."""
    right, below = -values.shape[-1] % side, -values.shape[-2] % side
    return F.pad(values, (0, right, 0, below)) if right or below else values


def region_sum(values: Tensor, side: int) -> Tensor:
    """Sum float pixels [..., H, W] over each region: [..., rows, columns]; in full precision also under autocast."""
    return cell_sum(pad(values, side), grid_of(values.shape[-2], values.shape[-1], side))


def region_mean(values: Tensor, weight: Tensor, side: int) -> Tensor:
    """Mean of pixels [B, K, H, W] over each region, weighted by weight [B, 1, H, W] >= 0; 0 where the weight is 0."""
    return cell_mean(pad(values, side), pad(weight, side), grid_of(values.shape[-2], values.shape[-1], side))


def any_valid(valid: Tensor, side: int) -> Tensor:
    """Mark the regions that hold a valid pixel, bool [..., rows, columns], of bool or float [..., H, W]."""
    return region_sum(valid.to(torch.float32), side) > 0


def to_pixels(values: Tensor, side: int, height: int, width: int) -> Tensor:
    """Give every pixel the value of its region: [..., rows, columns] -> [..., height, width]."""
    rows, columns = values.shape[-2:]
    return to_cells(values, rows * side, columns * side)[..., :height, :width]


# ---- Cells -------------------------------------------------------------------------------------------------------


def cells(size: int, grid: int, device: torch.device | None = None) -> Tensor:
    """Return the region index (int64 [size]) of each of `size` positions along one side."""
    return torch.arange(size, device=device) * grid // size


@lru_cache(maxsize=64)
def _membership(size: int, grid: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return which positions along one side lie in which region, 1 or 0 [size, grid]; made once, to be read only."""
    return (cells(size, grid, device)[:, None] == torch.arange(grid, device=device)).to(dtype)


def cell_sum(values: Tensor, grid: Grid) -> Tensor:
    """Sum float cells [..., H, W] over each region: [..., rows, columns]; in full precision also under autocast."""
    sides = zip(values.shape[-2:], grid, strict=True)
    rows, columns = (_membership(size, count, values.device, values.dtype) for size, count in sides)
    with full_precision(values.device):
        return rows.T @ values @ columns


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Suspend autocast: half precision counts to 256 only, and ties scores that differ."""
    active = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if active else nullcontext()


def cell_mean(values: Tensor, weight: Tensor, grid: Grid) -> Tensor:
    """Mean of cells [B, K, H, W] over each region, weighted by weight [B, 1, H, W] >= 0; 0 where the weight is 0."""
    total = cell_sum(weight, grid)
    return cell_sum(values * weight, grid) / torch.where(total > 0, total, 1.0)


def to_cells(values: Tensor, height: int, width: int) -> Tensor:
    """Give every cell the value of its region: [..., rows, columns] -> [..., height, width]."""
    rows = cells(height, values.shape[-2], values.device)
    columns = cells(width, values.shape[-1], values.device)
    return values[..., rows[:, None], columns]


# ---- Regions -----------------------------------------------------------------------------------------------------


def best(ranking: Tensor, relevant: Tensor, count: Tensor) -> Tensor:
    """Mark the `count` relevant entries of highest ranking over all processes; no read back to the host.

    Args:
        ranking: float [N, rows, columns].
        relevant: bool, the same shape.
        count: scalar tensor.
    """
    mine = torch.where(relevant, ranking, -torch.inf)
    everyone = distributed.all_gather(mine.flatten())
    order = everyone.argsort(descending=True, stable=True)
    position = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    start = distributed.rank() * mine.numel()
    return relevant & (position[start : start + mine.numel()].view_as(mine) < count)


def best_share(ranking: Tensor, relevant: Tensor, fraction: float) -> Tensor:
    """Mark the best `fraction` (0..1) of the relevant entries over all processes, a half rounded up; see `best`."""
    count = (fraction * distributed.all_reduce_sum(relevant.sum()).double() + 0.5).floor()
    return best(ranking, relevant, count)


def best_of_classes(ranking: Tensor, relevant: Tensor, classes: Tensor, number: int, fraction: float) -> Tensor:
    """Mark the `best_share` of the relevant entries of each of `number` classes, int64 of the shape of `ranking`."""
    kept = torch.zeros_like(relevant)
    for c in range(number):
        kept |= best_share(ranking, relevant & (classes == c), fraction)
    return kept


def normalized(rating: Tensor, kept: Tensor, area: Tensor) -> Tensor:
    """Scale ratings so that their mean over the pixels of what is kept is 1, for each branch; 0 if nothing is kept.

    Args:
        rating: [2, N, rows, columns], at least 0.
        kept: bool, the same shape.
        area: valid pixels of each region [N, rows, columns].
    """
    rated = rating * kept
    pixels = distributed.all_reduce_sum((kept * area).sum((1, 2, 3), keepdim=True))
    mass = distributed.all_reduce_sum((rated * area).sum((1, 2, 3), keepdim=True))
    return rated * pixels / torch.where(mass > 0, mass, 1.0)
