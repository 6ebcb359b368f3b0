"""Random crops, strong views of them, CutMix boxes; every draw comes from the generator that is passed in."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import functional as colors_of

from rrn.config import IGNORE_INDEX, Augment, CutMix, Strong

GRAY = (0.299, 0.587, 0.114)
JITTERED = 0.8
"""Probability of `strong_view` to shift colors [UniMatch, ST++]."""
SIGMA = (0.1, 2.0)
"""Of its blur, in pixels of a crop of BLURRED_CROP [UniMatch, ST++]."""
BLURRED_CROP = 321


def augment(
    image: Tensor, label: Tensor | None, settings: Augment, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut a random square out of an image at a random scale, maybe mirrored, its colors shifted.

    A square larger than the scaled image holds all of it, at a random place; the rest is padding.

    Args:
        image: uint8 [3, H, W], its channels in any order in memory.
        label: uint8 [H, W], or None if there is none.
        settings: crop, scales, flip, jitter.
        generator: source of all draws; the same number of them whatever the settings.

    Returns:
        image uint8 [3, crop, crop], 0 in padding; label int64 [crop, crop], IGNORE_INDEX in
        padding, and everywhere if `label` is None; valid bool [crop, crop], False in padding.
    """
    crop, (low, high) = settings.crop, settings.scales
    draws = torch.rand(7, generator=generator).tolist()
    side = max(1, round(crop / (low + (high - low) * draws[0])))  # of the square, in pixels of the source
    rows, to_rows = _window(image.shape[-2], side, crop, draws[1])
    columns, to_columns = _window(image.shape[-1], side, crop, draws[2])
    size = [to_rows.stop - to_rows.start, to_columns.stop - to_columns.start]
    mirror = settings.flip and draws[3] < 0.5

    patch = _resize(image[:, rows, columns], size)
    canvas = torch.zeros(3, crop, crop, dtype=torch.uint8)
    canvas[:, to_rows, to_columns] = _jitter(patch, settings.jitter, draws[4:])
    target = torch.full((crop, crop), IGNORE_INDEX, dtype=torch.int64)
    if label is not None:
        cut = label[None, None, rows, columns]
        target[to_rows, to_columns] = interpolate(cut, size, mode="nearest-exact")[0, 0].long()
    valid = torch.zeros(crop, crop, dtype=torch.bool)
    valid[to_rows, to_columns] = True
    if mirror:
        return canvas.flip(-1), target.flip(-1), valid.flip(-1)
    return canvas, target, valid


def _resize(patch: Tensor, size: list[int]) -> Tensor:
    """Resize uint8 [3, H, W]; not as bytes where a side is 1, which torch gets wrong."""
    if 1 in (*patch.shape, *size):
        return interpolate(patch[None].float(), size, mode="bilinear", antialias=True)[0].round().to(torch.uint8)
    return interpolate(patch[None], size, mode="bilinear", antialias=True)[0]


def _window(length: int, side: int, crop: int, draw: float) -> tuple[slice, slice]:
    """Place a window of `side` pixels along an axis; return what it sees, and where that goes."""
    slack = length - side
    offset = int(draw * (abs(slack) + 1)) * (1 if slack >= 0 else -1)
    start, stop = max(0, offset), min(length, offset + side)
    first = round((start - offset) * crop / side)
    last = round((stop - offset) * crop / side)
    first = min(first, crop - 1)
    return slice(start, stop), slice(first, max(last, first + 1))


def _jitter(patch: Tensor, strength: float, draws: list[float]) -> Tensor:
    """Scale saturation, contrast (about mid gray) and brightness.

    The factors lie in 1 - strength .. 1 + strength. Single multiplications and additions per pixel:
    the same bits for any number of threads.
    """
    if strength == 0:
        return patch
    brightness, contrast, saturation = (1 + strength * (2 * draw - 1) for draw in draws)
    colors = patch.float()
    shift = colors[0] * GRAY[0]
    shift += colors[1] * GRAY[1]
    shift += colors[2] * GRAY[2]
    shift *= brightness * contrast * (1 - saturation)
    shift += brightness * (1 - contrast) * 127.5 + 0.5  # the half rounds instead of truncating
    colors *= brightness * contrast * saturation
    colors += shift
    return colors.clamp_(0, 255).to(torch.uint8)


def strong_view(image: Tensor, valid: Tensor, settings: Strong, generator: torch.Generator) -> Tensor:
    """Shift the colors of a crop, make it gray, blur it, each perhaps; its geometry stays [UniMatch, ST++].

    Brightness, contrast, saturation and hue are shifted in random order, with probability JITTERED. The strength of the
    blur is drawn between the two of SIGMA, which are relative to the crop [ours]. What is valid is changed as an image
    of its own, so that no padding gets into it [ours].

    Args:
        image: uint8 [3, crop, crop].
        valid: bool [crop, crop], one rectangle.
        settings: jitter, gray, blur.
        generator: source of all draws; the same number of them whatever the settings.

    Returns:
        uint8 [3, crop, crop], 0 in padding.
    """
    shifted, *factors, gray, blurred, sigma = torch.rand(8, generator=generator).tolist()
    order = torch.randperm(4, generator=generator).tolist()
    rows, columns = _extent(valid.any(1)), _extent(valid.any(0))
    patch = image[:, rows, columns]
    if settings.jitter and shifted < JITTERED:
        patch = _shift(patch, settings.jitter, factors, order)
    if gray < settings.gray:
        patch = colors_of.rgb_to_grayscale(patch, num_output_channels=3)
    if blurred < settings.blur:
        patch = _blur(patch, (SIGMA[0] + (SIGMA[1] - SIGMA[0]) * sigma) * image.shape[-1] / BLURRED_CROP)
    view = torch.zeros_like(image)
    view[:, rows, columns] = patch
    return view


def _extent(marked: Tensor) -> slice:
    """Return from the first to the last of the marked places of an axis."""
    places = marked.nonzero()
    return slice(int(places[0]), int(places[-1]) + 1)


def _shift(patch: Tensor, strength: float, draws: list[float], order: list[int]) -> Tensor:
    """Shift brightness, contrast, saturation and, by half the strength, hue, in an order of these four."""
    *factors, hue = (1 + strength * (2 * draw - 1) for draw in draws)
    changes = (colors_of.adjust_brightness, colors_of.adjust_contrast, colors_of.adjust_saturation)
    shifts = [*zip(changes, factors, strict=True), (colors_of.adjust_hue, (hue - 1) / 2)]
    for place in order:
        change, factor = shifts[place]
        patch = change(patch, factor)
    return patch


def _blur(patch: Tensor, sigma: float) -> Tensor:
    """Blur by a Gaussian of `sigma` pixels, across and then down, which is faster than both at once.

    It is cut off at three sigma, or at the patch's side: borders are mirrored.
    """
    radius = max(1, math.ceil(3 * sigma))
    down, across = (2 * min(radius, side - 1) + 1 for side in patch.shape[-2:])
    for window in ([across, 1], [1, down]):
        patch = colors_of.gaussian_blur(patch, window, [sigma, sigma])
    return patch


def cutmix_boxes(batch: int, height: int, width: int, settings: CutMix, generator: torch.Generator) -> Tensor:
    """Draw the boxes of mixed images: `boxes` rectangles each, together of an area from `area`.

    The rectangles of an image have equal areas and random shapes, and lie inside; where they
    overlap, they cover less.

    Returns:
        bool [batch, 1, height, width], True = take the pixel from the second image.
    """
    low, high = settings.area
    mask = torch.zeros(batch, 1, height, width, dtype=torch.bool)
    for image in range(batch):
        total, *draws = torch.rand(1 + 3 * settings.boxes, generator=generator).tolist()
        area = low + (high - low) * total  # of all boxes together, as a share of the image
        for box in range(settings.boxes):
            shape, vertical, horizontal = draws[3 * box : 3 * box + 3]
            tall = area**shape  # between area and 1, so that the other side is, too
            rows = _inside(height, tall / settings.boxes**0.5, vertical)
            columns = _inside(width, (area / tall if tall else 0) / settings.boxes**0.5, horizontal)
            mask[image, 0, rows, columns] = True
    return mask


def _inside(length: int, share: float, draw: float) -> slice:
    """Place an interval of a share of `length` inside it."""
    size = round(length * share)
    start = int(draw * (length - size + 1))
    return slice(start, start + size)
