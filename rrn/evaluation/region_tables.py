"""What two segmenters, and their discriminators, say of whole images: pixel by pixel and region by region.

Every image goes through the networks once; evaluation, diagnosis and evidence all read its `Predictions`. Works on
anything shaped like `inference.SegmentationModel`: `rrn.method.RRN` is, and so is a `Predictor`, which looks at images
as `evaluate:` in params.yaml says. No number depends on how the images are batched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rrn.config import IGNORE_INDEX
from rrn.data.batches import WholeBatch
from rrn.evaluation.inference import Predictor, SegmentationModel
from rrn.evaluation.scores import FUNCTIONS, RegionInputs, region_total
from rrn.reliability.measures import EVERYTHING, of_class
from rrn.reliability.scores import SCORES

COLUMNS = ("id", "segmenter", "row", "column", *SCORES, "divergence")
"""Of a region table, before the counts of pixels."""


@dataclass(frozen=True)
class Predictions:
    """A batch of whole images and what the networks say of it, on their device.

    Attributes:
        batch: images, labels and ids.
        logits: of both segmenters, float32 [2, B, C, H, W].
        probabilities: the same as probabilities.
        predicted: the classes that segmenter 1, segmenter 2 and the mean of their probabilities give, int64
            [3, B, H, W].
    """

    batch: WholeBatch
    logits: Tensor
    probabilities: Tensor
    predicted: Tensor

    def of(self, ids: Collection[str]) -> Predictions:
        """Return what is said of the images that `ids` names, in their order here; maybe of none."""
        places = [place for place, name in enumerate(self.batch.ids) if name in ids]
        if len(places) == len(self.batch.ids):
            return self
        batch = WholeBatch(
            self.batch.images[places], self.batch.labels[places], tuple(self.batch.ids[place] for place in places)
        )
        return Predictions(batch, self.logits[:, places], self.probabilities[:, places], self.predicted[:, places])


def predict_batches(model: SegmentationModel, batches: Iterable[WholeBatch]) -> Iterator[Predictions]:
    """Let both segmenters label whole images, batch by batch; the weights stay as they are until the last."""
    model = model.unchanged() if isinstance(model, Predictor) else model
    return (predict_batch(model, batch) for batch in batches)


@torch.no_grad()
def predict_batch(model: SegmentationModel, batch: WholeBatch) -> Predictions:
    """Let both segmenters label whole images."""
    batch = batch.to(model.device)
    logits = model.logits(batch.images)
    probabilities = logits.softmax(2)
    predicted = torch.cat([probabilities.argmax(2), probabilities.mean(0).argmax(1)[None]])
    return Predictions(batch, logits, probabilities, predicted)


def concat(tables: Sequence[pd.DataFrame], classes: Sequence[str]) -> pd.DataFrame:
    """Join region tables; one without rows if there are none."""
    held = [table for table in tables if len(table)]
    counts = [column for name in (EVERYTHING, *classes) for column in of_class(name)]
    return pd.concat(held, ignore_index=True) if held else pd.DataFrame(columns=[*COLUMNS, *counts])


@torch.no_grad()
def region_table(
    model: SegmentationModel, predictions: Predictions, classes: Sequence[str], scores: Sequence[str] = COLUMNS[4:]
) -> pd.DataFrame:
    """Describe every region of a batch that has a valid pixel, once for each segmenter.

    Args:
        model: whose predictions these are.
        predictions: of a batch.
        classes: names of those whose pixels are counted.
        scores: columns that are wanted.

    Returns:
        id, segmenter (1 | 2), row, column; the scores of `rrn.reliability.scores`, 0..1, over the valid pixels, those
        of discriminators NaN without them; divergence (mean Jensen-Shannon divergence of the two segmenters, nats, 0 to
        log 2); and the number of valid pixels, and of the right ones: pixels, right, and by class of the pseudo-label
        pixels:NAME, right:NAME.
    """
    inputs = _inputs(model, predictions)
    everywhere = (2, *inputs.area.shape)
    where = (inputs.area > 0).expand(everywhere).nonzero(as_tuple=True)
    columns = {name: FUNCTIONS[name](inputs).expand(everywhere)[where].cpu().numpy() for name in scores}
    segmenter, image, row, column = (index.cpu().numpy() for index in where)
    names = np.asarray(predictions.batch.ids, dtype=object)[image]
    table = dict(zip(COLUMNS[:4], (names, segmenter + 1, row, column), strict=True)) | columns
    return pd.DataFrame(table | _counts(predictions, inputs.valid, model.region, where, classes))


def _inputs(model: SegmentationModel, predictions: Predictions) -> RegionInputs:
    batch, logits = predictions.batch, predictions.logits
    valid = batch.labels != IGNORE_INDEX
    area = region_total(valid, model.region)
    judged = model.region_scores(logits, batch.images)
    judged = area.new_full((2, 2, *area.shape), torch.nan) if judged is None else judged.double()
    labels = predictions.predicted[:2]
    return RegionInputs(logits, predictions.probabilities, labels, valid, area, judged, model.region)


def _counts(
    predictions: Predictions, valid: Tensor, region: int, where: tuple[Tensor, ...], classes: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return the numbers of valid and of right pixels of the regions at `where`, by column of a region table."""
    pseudo_labels = predictions.predicted[:2]
    right = valid & (pseudo_labels == predictions.batch.labels)
    counts = {}
    for index, name in enumerate((EVERYTHING, *classes)):
        chosen = valid & (pseudo_labels == index - 1) if index else valid.expand_as(right)
        for column, pixels in zip(of_class(name), (chosen, chosen & right), strict=True):
            counts[column] = region_total(pixels, region)[where].cpu().numpy().astype(np.int64)
    return counts
