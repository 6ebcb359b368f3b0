"""One pass of a run's segmenters over images, as `torch.export` takes it and any other program can run it."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from rrn.config import SettingsError
from rrn.exporting.fixed_padding import fix_padding
from rrn.method import RRN
from rrn.models.segmenter import MULTIPLE, Segmenter
from rrn.prediction.labeling import Who

MOST = 256
"""Multiples of MULTIPLE that a side may have."""
EXAMPLE = (2, 3, 3 * MULTIPLE, 4 * MULTIPLE)
"""Shape of what is traced; its sides differ, so that none is taken for the other."""


class OnePass(nn.Module):
    """Probabilities of images whose sides are multiples of MULTIPLE.

    Args:
        model: of a finished run, in evaluation mode.
        who: the ensemble, or one segmenter.
        apart: whether those of each segmenter are given, and not their mean.
    """

    def __init__(self, model: RRN, who: Who, apart: bool = False) -> None:
        super().__init__()
        self.apart = apart
        chosen: Iterable[nn.Module] = model.segmenters if who == "ensemble" else [model.segmenters[int(who) - 1]]
        self.segmenters = copy.deepcopy(nn.ModuleList(chosen))
        fix_padding(self.segmenters)
        self.register_buffer("mean", model.segmenters[0].get_buffer("mean").clone())
        self.register_buffer("std", model.segmenters[0].get_buffer("std").clone())

    mean: Tensor
    std: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities float32 [B, C, H, W], or [K, B, C, H, W], of RGB images 0..255, float32 [B, 3, H, W]."""
        images = (images / 255 - self.mean) / self.std
        answers = [segmenter.answer(images) for segmenter in self.segmenters if isinstance(segmenter, Segmenter)]
        each = torch.stack(answers).softmax(2)
        return each if self.apart else each.mean(0)


def held_segmenters(model: RRN, who: Who) -> tuple[int, ...]:
    """Return which segmenters, 0 or 1, are asked: also the one beside `who` where discriminators see both."""
    compared = model.discriminators and model.row.discriminator.sees_both
    return (0, 1) if who == "ensemble" or compared else (int(who) - 1,)


def exported_program(model: RRN, who: Who, apart: bool = False) -> ExportedProgram:
    """Return `OnePass` as a program of torch.export: any batch, and any multiples of MULTIPLE as height and width.

    Raises:
        SettingsError: the network does something that torch.export cannot follow at every size.
    """
    height, width = Dim("rows", min=1, max=MOST), Dim("columns", min=1, max=MOST)
    shape = {0: Dim("batch", min=1, max=4096), 2: MULTIPLE * height, 3: MULTIPLE * width}
    network = OnePass(model, who, apart).eval().cpu()
    images = torch.zeros(EXAMPLE)
    try:
        return export(network, (images,), dynamic_shapes=(shape,), prefer_deferred_runtime_asserts_over_guards=True)
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().split("\n")[0]
        raise SettingsError(f"torch.export cannot follow these networks at every size of images: {first}") from error


@torch.no_grad()
def own_answer(model: RRN, who: Who, images: Tensor) -> Tensor:
    """Return what `rrn.predict` says of uint8 images [B, 3, H, W] of any size: probabilities [B, C, H, W]."""
    both = model.logits(images).softmax(2)
    return both.mean(0) if who == "ensemble" else both[int(who) - 1]


def first_segmenter(model: RRN) -> Segmenter:
    """Return the one that says how images are normalized."""
    first = model.segmenters[0]
    assert isinstance(first, Segmenter)
    return first
