"""What is measured while a run learns: mIoU on val, and which score tells right pseudo-labels from wrong ones.

Labels that training never sees are read for it. Each process looks at its own share of the images.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any

import pandas as pd

from rrn import config
from rrn.data.batches import WholeImages, diagnosis_ids
from rrn.data.image_set import ImageSet
from rrn.data.splits import Split, sample
from rrn.evaluation import metrics, region_tables
from rrn.evaluation.inference import Predictor, require_fit
from rrn.reliability.measures import summarize
from rrn.runtime import distributed

Row = dict[str, Any]


class Diagnosis:
    """Measures both segmenters on whole images.

    Args:
        predictor: of the networks that learn.
        dataset: images and labels.
        split: who is unlabeled, and val.
        settings: of the run.
        pseudo_labels: whether the reliability of pseudo-labels is measured, too.

    Raises:
        SettingsError: an image does not fit into the window of `evaluate:`.
    """

    def __init__(
        self, predictor: Predictor, dataset: ImageSet, split: Split, settings: config.Settings, pseudo_labels: bool
    ) -> None:
        self.predictor, self.dataset, self.settings = predictor, dataset, settings
        self.classes, self.pseudo_labels = split.classes, pseudo_labels
        self.val = self._images(settings.dataset.val, split.val)
        known = diagnosis_ids(dataset, split, settings.log.diagnose)
        self.unlabeled = self._images(settings.dataset.train, known) if known else None
        self.judged_of_val = set(sample(split.val, settings.log.regions))

    def measure(self, step: int, between: Callable[[], None]) -> tuple[Row, list[Row]]:
        """Look at val, and where pseudo-labels are measured at unlabeled images with known labels.

        Args:
            step: number of steps done.
            between: called between two batches; what it raises ends the look.

        Returns:
            miou_1, miou_2, miou_mean and miou_ensemble in per cent; rows of reliability.csv.
        """
        tables = list[pd.DataFrame]()
        predictions = self._predictions(self.val, self.judged_of_val, tables, between)
        evaluation = metrics.evaluate(predictions, self.classes, self.settings.method.students)
        device = self.predictor.device
        matrices = {n: distributed.all_reduce_sum(m.to(device)).cpu() for n, m in evaluation.matrices.items()}
        reliability: list[Row] = []
        if self.pseudo_labels:
            reliability += self._reliability("val", step, tables)
            if self.unlabeled is not None:
                tables = []
                for _ in self._predictions(self.unlabeled, set(self.unlabeled.ids), tables, between):
                    pass
                reliability += self._reliability("unlabeled", step, tables)
        values = replace(evaluation, matrices=matrices).metrics()
        return {name: value for name, value in values.items() if name.startswith("miou")}, reliability

    def _images(self, folder: str, ids: tuple[str, ...]) -> WholeImages:
        how, share = self.settings.loading, (distributed.rank(), distributed.world())
        images = WholeImages(self.dataset, folder, ids, how.evaluation_batch, *share, how.cache, how.evaluation_pixels)
        require_fit(self.settings.evaluate, images.sizes)
        return images

    def _predictions(
        self, images: WholeImages, judged: Collection[str], tables: list[pd.DataFrame], between: Callable[[], None]
    ) -> Iterator[region_tables.Predictions]:
        """Yield predictions batch by batch; append the regions of `judged` where pseudo-labels are measured."""
        for seen in region_tables.predict_batches(self.predictor, images):
            between()
            shown = seen.of(judged)
            if self.pseudo_labels and shown.batch.ids:
                tables.append(region_tables.region_table(self.predictor, shown, self.classes))
            yield seen

    def _reliability(self, split: str, step: int, tables: list[pd.DataFrame]) -> list[Row]:
        """Summarize the region tables of all processes, in the order of the images."""
        regions = region_tables.concat(distributed.interleave_shards(tables), self.classes)
        summary = summarize(regions, self.settings.method.filter).assign(step=step, split=split)
        return [{str(k): v for k, v in row.items()} for row in summary.to_dict("records")]
