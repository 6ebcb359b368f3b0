"""How far mIoU would move with other test images: the bootstrap over images.

Test images are drawn again with replacement, as many as there are; mIoU of each draw is that of the sum of its images'
confusion matrices, of which it needs the diagonal and the sums alone. The draws depend on nothing but the number of
images, so that those of two runs can be paired.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from rrn.config import IGNORE_INDEX
from rrn.evaluation.region_tables import Predictions
from rrn.runtime.seeding import derive_seed

REPLICATES = 200
PURPOSE = "bootstrap over test images"


def iou_counts(predictions: Predictions, classes: int) -> Tensor:
    """Count what IoU is made of, image by image.

    Args:
        predictions: of B images.
        classes: number of classes C.

    Returns:
        int64 [2, 3, B, C] on the CPU, of segmenter 1, segmenter 2 and their ensemble: the pixels of each class that are
        right; and those that are of it in truth, plus those that are called so.
    """
    predicted = predictions.predicted
    labels = predictions.batch.labels.expand_as(predicted)
    valid = labels != IGNORE_INDEX
    size = predicted.shape[:2]
    place = classes * torch.arange(size.numel(), device=predicted.device).view(*size, 1, 1)

    def count(values: Tensor, where: Tensor) -> Tensor:
        return torch.bincount((place + values)[where], minlength=size.numel() * classes).view(*size, classes)

    right = count(labels, valid & (predicted == labels))
    return torch.stack([right, count(labels, valid) + count(predicted, valid)]).cpu()


def draws(images: int) -> npt.NDArray[np.int64]:
    """Return how often each image is drawn, int64 [REPLICATES, images]; the same for all runs of so many images."""
    draw = np.random.default_rng(derive_seed(0, PURPOSE))
    chosen = draw.integers(images, size=(REPLICATES, images))
    return np.stack([np.bincount(line, minlength=images) for line in chosen])


def replicates(counts: Iterable[Tensor], students: int = 2) -> pd.DataFrame:
    """Return the mIoU of each draw of images.

    Args:
        counts: of `iou_counts`, one a batch; the images in one order for all runs.
        students: `Method.students` of the row: miou_mean is the mean of these.

    Returns:
        a row per draw: miou_1, miou_2, miou_mean, miou_ensemble, per cent, 4 decimals; NaN where undefined.
    """
    each = torch.cat(list(counts), dim=2).double()
    times = torch.from_numpy(draws(each.shape[2])).double()
    right, called = times @ each  # whole numbers: the same bits on any machine
    one, two, both = 100 * (right / (called - right)).nanmean(-1).numpy()
    mean = (one + two) / 2 if students == 2 else one
    values = {"miou_1": one, "miou_2": two, "miou_mean": mean, "miou_ensemble": both}
    return pd.DataFrame(values).round(4)
