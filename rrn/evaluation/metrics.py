"""How good the segmenters are: one confusion matrix per data set gives mIoU.

Nothing is trained here; `rrn.evaluate` writes all that is known of a finished run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from rrn.config import IGNORE_INDEX
from rrn.evaluation.region_tables import Predictions

SEGMENTERS = ("segmenter 1", "segmenter 2", "ensemble")


def confusion_matrix(prediction: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Count pixels by true and predicted class.

    Args:
        prediction: classes, integer [...], below `classes` wherever `labels` is not 255.
        labels: true classes, integer [...], 255 = ignore.
        classes: number of classes C.

    Returns:
        int64 [C, C], rows = truth, columns = prediction.
    """
    return multiclass_confusion_matrix(
        prediction.flatten(),
        labels.flatten(),
        classes,
        ignore_index=IGNORE_INDEX,
        validate_args=False,
    )


def iou(matrix: Tensor) -> Tensor:
    """Return IoU float64 [C], 0..1, of a matrix [C, C]; NaN for a class that occurs nowhere."""
    matrix = matrix.double()
    hit = matrix.diagonal()
    return hit / (matrix.sum(0) + matrix.sum(1) - hit)


def miou(matrix: Tensor) -> float:
    """Return the mean IoU, 0..1, over the classes in truth or prediction; NaN if none is."""
    return float(iou(matrix).nanmean())


@dataclass(frozen=True)
class Evaluation:
    """Confusion matrices of one data set.

    Attributes:
        classes: their names.
        matrices: one of SEGMENTERS -> int64 [C, C] on the CPU.
        students: how many segmenters learned, the first or both: miou_mean is the mean of these.
    """

    classes: tuple[str, ...]
    matrices: Mapping[str, Tensor]
    students: int = 2

    def metrics(self) -> dict[str, float]:
        """Return miou_1, miou_2, the students' mean; miou_ensemble and its pixel_accuracy; per cent."""
        one, two, both = (100 * miou(self.matrices[name]) for name in SEGMENTERS)
        matrix = self.matrices["ensemble"].double()
        mean = (one + two) / 2 if self.students == 2 else one
        values = {"miou_1": one, "miou_2": two, "miou_mean": mean, "miou_ensemble": both}
        return {**values, "pixel_accuracy": 100 * float(matrix.trace() / matrix.sum())}

    def per_class(self) -> pd.DataFrame:
        """Return class, iou_1, iou_2, iou_mean of students, iou_ensemble (per cent, NaN if absent), pixels (truth)."""
        one, two, both = (100 * iou(self.matrices[name]).numpy() for name in SEGMENTERS)
        mean = pd.DataFrame([one, two][: self.students]).mean().to_numpy()
        columns = {"iou_1": one, "iou_2": two, "iou_mean": mean, "iou_ensemble": both}
        pixels = self.matrices["ensemble"].sum(1).numpy()
        return pd.DataFrame({"class": list(self.classes), **columns, "pixels": pixels})


def evaluate(predictions: Iterable[Predictions], classes: Sequence[str], students: int = 2) -> Evaluation:
    """Compare both segmenters, and the mean of their probabilities, with the labels of all images.

    Args:
        predictions: of the images, batch by batch.
        classes: names.
        students: `Method.students` of the row.
    """
    count = len(classes)
    total = torch.zeros(3, count, count, dtype=torch.int64)
    for batch in predictions:
        matrices = [confusion_matrix(predicted, batch.batch.labels, count) for predicted in batch.predicted]
        total += torch.stack(matrices).cpu()
    return Evaluation(tuple(classes), dict(zip(SEGMENTERS, total, strict=True)), students)
