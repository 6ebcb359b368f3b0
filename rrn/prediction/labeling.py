"""What a run, or an exported model, says of one image: classes, probabilities and regions.

An image that is too large for one look is labeled in tiles. Each is seen with its surroundings, of which nothing is
kept, so that the memory of the networks does not grow with the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rrn.config import Evaluate, SettingsError
from rrn.data import decoding
from rrn.data.batches import WholeBatch
from rrn.data.decoding import Pixels, Size
from rrn.evaluation.inference import EvaluationShortage, Predictor, SegmentationModel, Window
from rrn.evaluation.region_tables import predict_batch, region_table
from rrn.runs.finished import RunCard
from rrn.runtime import memory

LARGEST = 4_000_000
"""Pixels of an image that is looked at in one piece."""
TILE, AROUND = 768, 128
"""Side of a tile, and width of what is seen around it, in pixels: the next multiples of a region, or of a window."""
SCORES = ("region_score", "confidence", "agreement")
"""Of regions: columns of a region table."""

NO_DISCRIMINATORS = (
    "this run has no region discriminators, so there are no region scores: leave --regions out, "
    "or name a training of a row that filters regions, such as rrn"
)

Who = Literal["ensemble", "1", "2"]


@dataclass(frozen=True)
class Wanted:
    """What is asked for besides labels, and how; see `rrn.prediction.command`.

    Attributes:
        segmenter: who answers; ensemble is the mean of both segmenters' probabilities.
        probabilities, overlay, regions: whether these are wanted, too.
        whole: whether a large image is looked at in one piece, whatever memory that takes.
        alone: whether the other segmenter is not there, so that regions are those of `segmenter`, without agreement.
    """

    segmenter: Who = "ensemble"
    probabilities: bool = False
    overlay: bool = False
    regions: bool = False
    whole: bool = False
    alone: bool = False


@dataclass(frozen=True)
class Prediction:
    """What the networks say of one image of H x W pixels.

    Attributes:
        labels: the most probable classes, uint8 [H, W].
        probabilities: of the classes, float16 [C, H, W]; None unless they were asked for.
        regions: their region table, with SCORES alone; None unless it was asked for.
    """

    labels: Pixels
    probabilities: NDArray[np.float16] | None
    regions: pd.DataFrame | None


def predictor_of(model: SegmentationModel, card: RunCard) -> Predictor:
    """Return what looks at images as the run's evaluation does, with weights that stay as they are."""
    return Predictor(model, protocol_of(card)).unchanged()


def protocol_of(card: RunCard) -> Evaluate:
    """Return how images are looked at: as in the run's evaluation.

    In mode pad, an image larger than the window is looked at through several; the others come out the same.
    """
    protocol = card.evaluate
    if protocol.mode != "pad":
        return protocol
    return protocol.model_copy(update={"mode": "sliding", "stride": protocol.window, "last": "shifted"})


def is_tiled(card: RunCard, size: Size, wanted: Wanted) -> bool:
    """Return whether an image (height, width) is labeled in tiles: not one that is resized when read."""
    return card.size is None and size[0] * size[1] > LARGEST and not wanted.whole


@torch.no_grad()
def predict(predictor: Predictor, card: RunCard, image: Pixels, wanted: Wanted) -> Prediction:
    """Label one image.

    Args:
        predictor: of `predictor_of`.
        card: of the same run. If its images were resized when read, this one is too, and the answer is brought
            back to the size of the image; regions are those of the resized image.
        image: RGB uint8 [H, W, 3], of any size.
        wanted: what is asked for.

    Raises:
        SettingsError: regions are wanted of a run without region discriminators.
        EvaluationShortage: there is not enough memory.
    """
    if not is_tiled(card, (image.shape[0], image.shape[1]), wanted):
        return _look(predictor, card, image, wanted)
    labels = np.empty(image.shape[:2], np.uint8)
    probabilities = np.empty((len(card.classes), *image.shape[:2]), np.float16) if wanted.probabilities else None
    tables = []
    window = max(predictor.protocol.window or (0, 0))
    for tile, seen in tiles((image.shape[0], image.shape[1]), predictor.region, window):
        answer = _look(predictor, card, image[seen], wanted)
        inside = _moved(tile, seen)
        labels[tile] = answer.labels[inside]
        if probabilities is not None and answer.probabilities is not None:
            probabilities[:, *tile] = answer.probabilities[:, *inside]
        if answer.regions is not None:
            tables.append(_regions_of(answer.regions, tile, seen, predictor.region))
    regions = pd.concat(tables).sort_values(["segmenter", "row", "column"], ignore_index=True) if tables else None
    return Prediction(labels, probabilities, regions)


def _look(predictor: Predictor, card: RunCard, image: Pixels, wanted: Wanted) -> Prediction:
    """Label an image in one piece."""
    size = image.shape[0], image.shape[1]
    remedies = {"--device cpu": predictor.device.type != "cpu", "smaller images": True, "fewer options": True}
    with memory.explain_oom(f"looking at {size[1]} x {size[0]} pixels", lambda: remedies, EvaluationShortage):
        read = torch.from_numpy(decoding.colors(Image.fromarray(image), card.size))
        unlabeled = torch.zeros(1, *read.shape[:2], dtype=torch.int64)  # no pixel is void
        answer = predict_batch(predictor, WholeBatch(read.permute(2, 0, 1)[None], unlabeled, ("",)))
        regions = region_table(predictor, answer, (), SCORES) if wanted.regions else None
        if regions is not None and regions["region_score"].isna().any():
            raise SettingsError(NO_DISCRIMINATORS)
        if regions is not None and wanted.alone:
            regions = regions[regions["segmenter"] == int(wanted.segmenter)].assign(agreement=np.nan)
        both = answer.probabilities
        chosen = both.mean(0) if wanted.segmenter == "ensemble" else both[int(wanted.segmenter) - 1]
        labels, probabilities = _at_size(chosen, size, wanted.probabilities)
    return Prediction(labels, probabilities, regions)


def _at_size(chosen: Tensor, size: Size, kept: bool) -> tuple[Pixels, NDArray[np.float16] | None]:
    """Return the most probable classes, and the probabilities where they are kept, at the size of the image.

    Class by class, since those of all classes at the size of a photograph may be many times what the networks need.
    """
    best, labels = chosen.new_zeros(size), torch.zeros(size, dtype=torch.uint8, device=chosen.device)
    probabilities = np.empty((chosen.shape[1], *size), np.float16) if kept else None
    for index in range(chosen.shape[1]):
        values = chosen[:, index : index + 1]
        if values.shape[-2:] != size:
            values = F.interpolate(values, size, mode="bilinear", align_corners=False)
        labels[values[0, 0] > best] = index
        best = torch.maximum(best, values[0, 0])
        if probabilities is not None:
            probabilities[index] = values[0, 0].half().cpu().numpy()
    return labels.cpu().numpy(), probabilities


def tiles(size: Size, region: int, window: int = 0) -> Iterator[tuple[Window, Window]]:
    """Yield tiles that cover an image once, row by row, and with each what is seen to label it.

    What is seen has one size wherever the image has it: at a border it reaches further to the other side.

    Args:
        size: height and width of the image.
        region: side of a region; no tile cuts through one.
        window: largest side of a window of the run; a tile has at least that.
    """
    side, around = (-(-length // region) * region for length in (max(TILE, window), AROUND))
    down, right = ([*_spans(length, side, around, region)] for length in size)
    for rows, seen_rows in down:
        for columns, seen_columns in right:
            yield (rows, columns), (seen_rows, seen_columns)


def _spans(length: int, side: int, around: int, region: int) -> Iterator[tuple[slice, slice]]:
    width = side + 2 * around
    last = max(0, -(-(length - width) // region) * region)
    for start in range(0, length, side):
        seen = min(max(start - around, 0), last)
        yield slice(start, min(start + side, length)), slice(seen, min(seen + width, length))


def _moved(tile: Window, seen: Window) -> Window:
    """Return where a tile lies in what is seen."""
    rows, columns = (
        slice(part.start - whole.start, part.stop - whole.start) for part, whole in zip(tile, seen, strict=True)
    )
    return rows, columns


def _regions_of(regions: pd.DataFrame, tile: Window, seen: Window, side: int) -> pd.DataFrame:
    """Return the regions of a tile, of those of what is seen, with their rows and columns in the image."""
    inside = pd.Series(True, regions.index)
    placed = regions.copy()
    for column, part, whole in zip(("row", "column"), tile, seen, strict=True):
        placed[column] += whole.start // side
        inside &= placed[column].between(part.start // side, (part.stop - 1) // side)
    return placed[inside]
