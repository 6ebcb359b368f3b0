"""How an image goes through a trained model: whole, padded, or window by window; at other sizes and mirrored.

These are the protocols of the literature, one for all that is measured: the presets of `evaluate:` in params.yaml.

    whole    the image as it is [UniMatch on VOC]
    pad      centerd in a window, cut out again [CPS on VOC]
    sliding  window by window, averaged by the number of windows that see a pixel; the last window of a row or column is
             `shifted` inside the image [CPS and UniMatch V2 on Cityscapes], which is padded where it is smaller than
             the window, or `ragged`, cut off at its border [UniMatch]

Windows, scales and mirror images are averaged as probabilities [UniMatch]; CPS adds their logits.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrn import config
from rrn.data.decoding import Size
from rrn.models.folding import Folding
from rrn.runtime import memory

Window = tuple[slice, slice]
"""Rows and columns of an image."""


class SegmentationModel(Protocol):
    """What is evaluated: two segmenters and, in some rows, two region discriminators.

    Images are uint8 [B, 3, H, W]; `region` is the side of a region in pixels.
    """

    region: int
    segmenters: nn.ModuleList

    @property
    def device(self) -> torch.device:
        """Where the networks lie."""

    def logits(self, images: Tensor) -> Tensor:
        """Return float32 [2, B, C, H, W], in eval mode, without gradient."""

    def region_scores(self, logits: Tensor, images: Tensor) -> Tensor | None:
        """Return probabilities [2 branches, 2 discriminators, B, rows, columns], each branch's own first; or None."""


class EvaluationShortage(memory.MemoryShortage):
    """Images cannot be looked at for lack of memory: between two steps of a training, all of which can be kept."""


class Predictor:
    """A model that looks at images as the settings say; itself a `SegmentationModel`, so it is measured as one.

    Args:
        model: what answers. Where images are padded, its segmenters must know their encoder's `mean` color.
        protocol: `settings.evaluate`.
        loading: `settings.loading`; at most `evaluation_batch` windows of `evaluation_pixels` together (whole images
            are windows, too) go through the model at once. None: one window.
    """

    def __init__(
        self, model: SegmentationModel, protocol: config.Evaluate, loading: config.Loading | None = None
    ) -> None:
        self.model, self.protocol = model, protocol
        self._batch, self._pixels = (loading.evaluation_batch, loading.evaluation_pixels) if loading else (1, 1)
        self.region, self.segmenters = model.region, model.segmenters
        self._folding = Folding(model) if protocol.folded else None
        self._unchanged = self._followed = False

    def unchanged(self) -> Predictor:
        """Return this predictor for a set of images between which no weight changes: it folds them once, for the first.

        This one itself follows the weights from call to call.
        """
        steady = copy.copy(self)
        steady._unchanged, steady._followed = True, False
        return steady

    @property
    def device(self) -> torch.device:
        """Where the networks lie."""
        return self.model.device

    def region_scores(self, logits: Tensor, images: Tensor) -> Tensor | None:
        """Return what the model itself says of the regions of whole images."""
        return self.model.region_scores(logits, images)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Look at images and return what both segmenters say.

        Args:
            images: uint8 [B, 3, H, W].

        Returns:
            float32 [2, B, C, H, W]: logarithms of averaged probabilities, finite; for mode whole at scale 1, not
            mirrored, the logits of the model: bit for bit, or folded.

        Raises:
            SettingsError: in mode pad, an image does not fit the window.
            EvaluationShortage: there is not enough memory; says what would need less.
        """
        height, width = images.shape[-2:]
        what = f"looking at images of shape {list(images.shape)}"
        told = memory.explain_oom(
            what, lambda: _needing_less(self.protocol, self._batch, len(images)), EvaluationShortage
        )
        with told, ExitStack() as stack:
            if self._folding:
                stack.enter_context(self._folding.lent(height, width, self._followed))
                self._followed = self._unchanged
            if not has_one_size(self.protocol):
                stack.enter_context(many_sizes())
            return self._logits(images.to(self.device))

    def _logits(self, images: Tensor) -> Tensor:
        protocol = self.protocol
        if protocol.mode == "whole" and protocol.scales == (1.0,) and not protocol.flip:
            return self.model.logits(images)
        mean = self._at_scale(images, protocol.scales[0])
        for scale in protocol.scales[1:]:
            mean += self._at_scale(images, scale)
        mean /= len(protocol.scales)
        return mean.clamp_min_(torch.finfo(mean.dtype).tiny).log_()

    def _at_scale(self, images: Tensor, scale: float) -> Tensor:
        """Return probabilities [2, B, C, H, W] of images that are looked at in another size."""
        height, width = images.shape[-2:]
        size = scaled((height, width), scale)
        if size == (height, width):
            return self._at_size(images)
        resized = _resize(images.float(), size).round().to(torch.uint8)
        return torch.stack([_resize(branch, (height, width)) for branch in self._at_size(resized)])

    def _at_size(self, images: Tensor) -> Tensor:
        """Return probabilities [2, B, C, H, W], averaged over windows, without those of the padding."""
        (height, width), protocol = images.shape[-2:], self.protocol
        if protocol.window is None:
            return self._averaged(images, windows((height, width), (height, width)))
        _require_fit(protocol, (height, width))
        if protocol.mode == "sliding" and protocol.last == "ragged":
            return self._averaged(images, windows((height, width), protocol.window, protocol.stride, ragged=True))
        padded, (rows, columns) = self._padded(images, protocol.window)
        seen_by = windows((padded.shape[-2], padded.shape[-1]), protocol.window, protocol.stride)
        return self._averaged(padded, seen_by)[..., rows, columns]

    def _padded(self, images: Tensor, window: Size) -> tuple[Tensor, Window]:
        """Center uint8 images in at least a window, and return where they lie in it.

        The color around them is the encoder's mean, which normalization turns into 0, but for the rounding to uint8.
        """
        height, width = images.shape[-2:]
        color = (255 * self.segmenters[0].get_buffer("mean")).round().to(images)
        canvas = color.expand(len(images), 3, max(height, window[0]), max(width, window[1])).clone()
        top, left = (canvas.shape[-2] - height) // 2, (canvas.shape[-1] - width) // 2
        where = slice(top, top + height), slice(left, left + width)
        canvas[..., where[0], where[1]] = images
        return canvas, where

    def _averaged(self, images: Tensor, seen_by: list[Window]) -> Tensor:
        """Return the mean [2, B, C, H, W] of the probabilities over the windows that see a pixel."""
        total, count = torch.empty(0), torch.zeros(images.shape[-2:], device=images.device)
        for rows, columns in seen_by:
            count[rows, columns] += 1
        for places in self._passes(len(images), seen_by):
            cut = torch.stack([images[image, :, rows, columns] for image, (rows, columns) in places])
            probabilities = self._mirrored(cut)
            if not total.numel():
                branches, _, classes = probabilities.shape[:3]
                total = probabilities.new_zeros(branches, len(images), *images.shape[-2:], classes).movedim(-1, 2)
            for (image, (rows, columns)), seen in zip(places, probabilities.unbind(1), strict=True):
                total[:, image, :, rows, columns] += seen
        return total.div_(count)

    def _passes(self, images: int, seen_by: list[Window]) -> Iterator[list[tuple[int, Window]]]:
        """Yield (image, window), those of one size together, at most as many as go through the model at once."""
        for size, alike in groupby(sorted(seen_by, key=_size), key=_size):
            places = [(image, window) for window in alike for image in range(images)]
            most = memory.at_once(size, self._batch, self._pixels)
            for start in range(0, len(places), most):
                yield places[start : start + most]

    def _mirrored(self, images: Tensor) -> Tensor:
        """Return probabilities [2, B, C, H, W] of one pass, or their mean with those of its mirror image."""
        probabilities = _softmax(self.model.logits(images))
        if self.protocol.flip:
            probabilities += _softmax(self.model.logits(images.flip(-1))).flip(-1)
            probabilities /= 2
        return probabilities


def has_one_size(protocol: config.Evaluate) -> bool:
    """Return whether all that goes through the model has one size, but for the number of windows in a pass."""
    return protocol.mode == "pad" or (protocol.mode == "sliding" and protocol.last == "shifted")


@contextmanager
def many_sizes() -> Iterator[None]:
    """Spend no time on a size that may come once: cuDNN tries out nothing, compiled networks run as they are written.

    Both are as before afterwards.
    """
    before = torch.backends.cudnn.benchmark
    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:  # otherwise nothing is compiled, and loading it takes a second
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        torch.backends.cudnn.benchmark = False
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before


def _needing_less(protocol: config.Evaluate, batch: int, images: int) -> memory.Remedies:
    """Say what would need less memory to look at images, and what each changes."""
    several = batch > 1 and (images > 1 or protocol.mode == "sliding")
    return {
        "loading.evaluation_batch: 1 looks at one image or window at a time, with the same answers": several,
        "evaluate.folded: false keeps no copies of the networks": protocol.folded,
        "evaluate.mode: sliding, with a smaller window, is another protocol": True,
    }


def require_fit(protocol: config.Evaluate, sizes: Iterable[Size]) -> None:
    """Find out, before hours are spent, whether images (height, width) can be looked at.

    Raises:
        SettingsError: in mode pad, one does not fit the window, at one of the scales.
    """
    for size in dict.fromkeys(sizes):
        for scale in protocol.scales:
            _require_fit(protocol, scaled(size, scale))


def _require_fit(protocol: config.Evaluate, size: Size) -> None:
    if protocol.mode == "pad" and protocol.window and any(s > w for s, w in zip(size, protocol.window, strict=True)):
        raise config.SettingsError(
            f"evaluate.mode: pad, but an image of {size[0]} x {size[1]} pixels (height x width, at its scale) does "
            f"not fit window: {list(protocol.window)}; set a larger window, or mode: sliding, which pads, too"
        )


def scaled(size: Size, scale: float) -> Size:
    """Return the size of an image (height, width) at a scale."""
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))


def windows(image: Size, window: Size, stride: Size | None = None, ragged: bool = False) -> list[Window]:
    """Return the windows that an image is looked at through, row by row.

    Args:
        image: height and width.
        window: height and width; where not `ragged`, at most those of the image.
        stride: from one window to the next, down and to the right; default: the window.
        ragged: begin a window at every multiple of the stride and cut it off at the border, however little is left;
            otherwise all are whole, and the last one is shifted inside.
    """
    down, right = (_spans(*sides, ragged) for sides in zip(image, window, stride or window, strict=True))
    return [(rows, columns) for rows in down for columns in right]


def _spans(length: int, window: int, stride: int, ragged: bool) -> list[slice]:
    starts = range(0, length, stride) if ragged else [*range(0, length - window, stride), length - window]
    return [slice(start, min(start + window, length)) for start in starts]


def _size(window: Window) -> Size:
    rows, columns = window
    return rows.stop - rows.start, columns.stop - columns.start


def _softmax(logits: Tensor) -> Tensor:
    """Return probabilities [2, B, C, H, W] of logits, the classes of a pixel side by side in memory.

    That is how networks in channels last leave them; `softmax(2)` would copy them to and fro.
    """
    return logits.movedim(2, -1).softmax(-1).movedim(-1, 2)


def _resize(values: Tensor, size: Size) -> Tensor:
    """Resize float [B, K, H, W] bilinearly between pixel centers, without a low-pass filter, as the literature does."""
    return F.interpolate(values, size, mode="bilinear", align_corners=False)
