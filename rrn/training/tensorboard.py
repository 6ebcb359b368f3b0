"""What TensorBoard shows of a run: scalars as they come, and at each evaluation pictures of pseudo-labels.

Events have times, so that they lie beside the outputs of the stages: runs/<name>/tensorboard/<stage>/<key>. Where they
cannot be written, that is said, and the training goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rrn.config import SettingsError
from rrn.data import palette
from rrn.data.batches import WholeImages
from rrn.data.decoding import Pixels
from rrn.data.image_set import ImageSet
from rrn.data.splits import sample
from rrn.evaluation import region_tables
from rrn.evaluation.inference import Predictor
from rrn.evaluation.region_tables import Predictions
from rrn.reliability import selection
from rrn.reliability.measures import EVERYTHING
from rrn.runs.job import Job
from rrn.training.diagnosis import Row

PICTURES = 4
"""Images of val that are shown."""
TILE = 320
"""Pixels, at most, of a side of a picture; of larger ones every second, third, ... pixel is shown."""
FLUSH = 10
"""Seconds until what is written can be seen."""
GAP = 2


class TensorBoard(AbstractContextManager["TensorBoard"]):
    """Writes what TensorBoard shows of one run.

    Args:
        job: which run. Earlier events of it, from `first` on, are hidden.
        dataset: has the images.
        first: the first step to come.

    Raises:
        SettingsError: the package tensorboard is missing.
    """

    def __init__(self, job: Job, dataset: ImageSet, first: int) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise SettingsError(
                f"log.tensorboard: true needs a package ({error}): pip install -e '.[tensorboard]', or set it to false"
            ) from error
        split, how = job.split, job.settings.loading
        self.classes, self.colors = split.classes, palette.palette(len(split.classes), split.colours)
        self.rule = job.settings.method.filter
        shown = sample(split.val, PICTURES)
        self.images = WholeImages(dataset, dataset.val, shown, how.evaluation_batch, pixels=how.evaluation_pixels)
        self._folder = events_folder(job)
        self._writer: Any = None
        with self._trying():
            self._writer = SummaryWriter(str(self._folder), purge_step=first, flush_secs=FLUSH)

    def __exit__(self, *_: object) -> None:
        with self._trying():
            if self._writer:
                self._writer.close()

    def add(self, row: Row, reliability: Iterable[Row], predictor: Predictor) -> None:
        """Write a row of history and, where it is one with an evaluation, what comes with it.

        Args:
            row: of history.csv.
            reliability: rows of reliability.csv of the same step.
            predictor: of the networks as they are.
        """
        if not self._writer:
            return
        step, sheets = row["step"], self._sheets(predictor) if "miou_mean" in row else {}
        scalars = {f"history/{name}": value for name, value in row.items() if name != "step"}
        for judged in (line for line in reliability if line["class"] == EVERYTHING):
            scalars[f"reliability_auroc_{judged['split']}/{judged['score']}_{judged['segmenter']}"] = judged["auroc"]
        with self._trying():
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, step)
            for name, sheet in sheets.items():
                self._writer.add_image(f"val/{name}", sheet, step, dataformats="HWC")

    @contextmanager
    def _trying(self) -> Iterator[None]:
        """Say once that events cannot be written, and watch no longer: no training ends for that."""
        try:
            yield
        except OSError as error:
            self._writer = None
            what = f"{self._folder} is not written ({error.strerror or error}): TensorBoard shows no more of this run"
            print(what, file=sys.stderr)

    def _sheets(self, predictor: Predictor) -> dict[str, Pixels]:
        """Return id -> picture: a line for each segmenter, of image, label, pseudo-labels, scores and what is kept."""
        seen = list(region_tables.predict_batches(predictor, self.images))
        tables = [region_tables.region_table(predictor, predictions, self.classes) for predictions in seen]
        table = region_tables.concat(tables, self.classes)
        parts = [self._judged(table[table["segmenter"] == k]) for k in (1, 2)]
        sheets = {}
        for predictions in seen:
            for place, name in enumerate(predictions.batch.ids):
                lines = [self._line(predictions, place, k, part, predictor.region) for k, part in enumerate(parts)]
                sheets[name] = np.concatenate(lines)
        return sheets

    def _judged(self, regions: pd.DataFrame) -> pd.DataFrame:
        """Return the regions of one segmenter with the score that decides, or the probability, and which are kept.

        It is decided among the images that are shown, and in a training among those of a batch.
        """
        decides = self.rule.by not in ("none", "random", "pixel_confidence")
        score = selection.filter_score(regions, self.rule.by if decides else "probability")
        return regions.assign(shown=score, kept=selection.kept_regions(regions, self.rule))

    def _line(self, predictions: Predictions, place: int, k: int, regions: pd.DataFrame, side: int) -> Pixels:
        """Return the pictures of one image and segmenter, side by side: uint8 [H, W, 3]."""
        image = predictions.batch.images[place].permute(1, 2, 0).cpu().numpy()
        label, predicted = (m[place].cpu().numpy() for m in (predictions.batch.labels, predictions.predicted[k]))
        own = regions[regions["id"] == predictions.batch.ids[place]]
        scores, kept = (_spread(own, column, label.shape, side)[..., None] for column in ("shown", "kept"))
        gray = np.broadcast_to(255 * scores, image.shape)
        pictures = [image, self.colors[label], self.colors[predicted], gray, image * (0.25 + 0.75 * kept)]
        step = thinning(label.shape)
        return _joined([picture[::step, ::step].astype(np.uint8) for picture in pictures])


def events_folder(job: Job) -> Path:
    """Return where the events of a run lie; of one beside the pipeline, in its own folder."""
    if job.out.absolute().is_relative_to(job.runs.absolute()):
        return job.runs / "tensorboard" / job.stage / job.key
    return job.out / "tensorboard"


def thinning(size: Sequence[int]) -> int:
    """Return every how many pixels of a picture of some (height, width) one is shown."""
    return -(-max(size) // TILE)


def _spread(regions: pd.DataFrame, column: str, size: Sequence[int], side: int) -> NDArray[np.float64]:
    """Return a column of the regions of one image, pixel by pixel [H, W]; 0 where all is void."""
    rows, columns = (-(-length // side) for length in size)
    cells = np.zeros((rows, columns))
    cells[regions["row"], regions["column"]] = regions[column].to_numpy(np.float64)
    return cells.repeat(side, 0).repeat(side, 1)[: size[0], : size[1]]


def _joined(pictures: Sequence[Pixels]) -> Pixels:
    """Return pictures of one size side by side, with white between and below."""
    framed = [np.pad(picture, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for picture in pictures]
    return np.concatenate(framed, axis=1)
