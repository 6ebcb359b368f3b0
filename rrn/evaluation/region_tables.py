"""What two segmenters, and their discriminators, say of whole images: pixel by pixel and region by region.

Every image goes through the networks once; evaluation, diagnosis and evidence all read what `look` saw. Works on
anything shaped like `inference.Model`: `rrn.method.RRN` is, and so is a `Predictor`, which looks at images as
`evaluate:` in params.yaml says. No number depends on how the images are batched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rrn.config import IGNORE_INDEX
from rrn.data.batches import WholeBatch
from rrn.evaluation.inference import Model, Predictor
from rrn.models import regions
from rrn.models.functional import jensen_shannon
from rrn.reliability.measures import EVERYTHING, of_class

COLUMNS = (
    *("id", "segmenter", "row", "column"),
    *("region_score", "other_score", "product", "confidence", "certainty", "agreement", "divergence"),
)
"""Of a region table, before the counts of pixels."""


@dataclass(frozen=True)
class Seen:
    """A batch of whole images and what the networks say of it, on their device.

    Attributes:
        batch: images, labels and ids.
        logits: of both segmenters, float32 [2, B, C, H, W].
        probabilities: the same as probabilities.
        predictions: the classes that segmenter 1, segmenter 2 and the mean of their probabilities give, int64
            [3, B, H, W].
    """

    batch: WholeBatch
    logits: Tensor
    probabilities: Tensor
    predictions: Tensor


@torch.no_grad()
def look(model: Model, batches: Iterable[WholeBatch]) -> Iterator[Seen]:
    """Let both segmenters label whole images, batch by batch; the weights stay as they are until the last."""
    model = model.unchanged() if isinstance(model, Predictor) else model
    for batch in batches:
        batch = batch.to(model.device)
        logits = model.logits(batch.images)
        probabilities = logits.softmax(2)
        predictions = torch.cat([probabilities.argmax(2), probabilities.mean(0).argmax(1)[None]])
        yield Seen(batch, logits, probabilities, predictions)


def region_table(model: Model, batches: Iterable[WholeBatch], classes: Sequence[str]) -> pd.DataFrame:
    """Describe every region of whole images: `describe` of all batches."""
    return joined([describe(model, seen, classes) for seen in look(model, batches)], classes)


def joined(parts: Sequence[pd.DataFrame], classes: Sequence[str]) -> pd.DataFrame:
    """Join region tables; one without rows if there are none."""
    held = [part for part in parts if len(part)]
    counts = [column for name in (EVERYTHING, *classes) for column in of_class(name)]
    return pd.concat(held, ignore_index=True) if held else pd.DataFrame(columns=[*COLUMNS, *counts])


@torch.no_grad()
def describe(model: Model, seen: Seen, classes: Sequence[str]) -> pd.DataFrame:
    """Describe every region that has a valid pixel, once for each segmenter.

    Returns:
        id, segmenter (1 | 2), row, column; scores in 0..1: region_score (of the segmenter's own discriminator),
        other_score (of the other one), product of the two (all NaN without discriminators), confidence (mean
        max-softmax of its valid pixels), certainty (1 - their mean entropy / log C), agreement (share of them on which
        the two segmenters agree); divergence (mean Jensen-Shannon divergence of the two, nats, 0 to log 2); and the
        number of valid pixels, and of the right ones: pixels, right, and by class of the pseudo-label pixels:NAME,
        right:NAME.
    """
    labels, region = seen.batch.labels, model.region
    valid = labels != IGNORE_INDEX
    area = region_total(valid, region)
    where = (area > 0).expand(2, *area.shape).nonzero(as_tuple=True)
    values = _scores(model, seen, valid, area.clamp(min=1))
    columns = [values[name].expand(2, *area.shape)[where].cpu().numpy() for name in COLUMNS[4:]]
    segmenter, image, row, column = (index.cpu().numpy() for index in where)
    names = np.asarray(seen.batch.ids, dtype=object)[image]
    table = dict(zip(COLUMNS, (names, segmenter + 1, row, column, *columns), strict=True))
    return pd.DataFrame(table | _counts(seen, valid, region, where, classes))


def _scores(model: Model, seen: Seen, valid: Tensor, area: Tensor) -> dict[str, Tensor]:
    """Return the scores of all regions by name: float64 [2 (or 1), B, rows, columns]."""
    probabilities, (first, second, _) = seen.probabilities, seen.predictions

    def mean(values: Tensor) -> Tensor:
        return region_total(values * valid, model.region) / area

    entropy = -torch.special.xlogy(probabilities, probabilities).sum(2)
    judged = model.region_scores(seen.logits, seen.batch.images)
    own, other = (torch.full_like(area, torch.nan),) * 2 if judged is None else judged.double().unbind(1)
    return {
        "region_score": own,
        "other_score": other,
        "product": own * other,
        "confidence": mean(probabilities.amax(2)),
        "certainty": 1 - mean(entropy) / math.log(max(2, probabilities.shape[2])),
        "agreement": mean(first == second),
        "divergence": mean(jensen_shannon(*seen.logits).squeeze(1)),
    }


def _counts(
    seen: Seen, valid: Tensor, region: int, where: tuple[Tensor, ...], classes: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return the numbers of valid and of right pixels of the regions at `where`, by column of a region table."""
    pseudo_labels = seen.predictions[:2]
    right = valid & (pseudo_labels == seen.batch.labels)
    counts = {}
    for index, name in enumerate((EVERYTHING, *classes)):
        chosen = valid & (pseudo_labels == index - 1) if index else valid.expand_as(right)
        for column, pixels in zip(of_class(name), (chosen, chosen & right), strict=True):
            counts[column] = region_total(pixels, region)[where].cpu().numpy().astype(np.int64)
    return counts


def region_total(values: Tensor, region: int) -> Tensor:
    """Sum values [..., H, W] over squares of `region` pixels: float64 [..., rows, columns]."""
    return regions.region_sum(values.double(), region)
