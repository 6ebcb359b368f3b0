"""What the evaluate stage says of a finished run: its numbers on test, what its scores are worth, evidence.zip."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rrn.config import Settings
from rrn.data.batches import WholeImages, diagnosis_ids
from rrn.data.image_set import ImageSet
from rrn.data.splits import Split, evenly_spaced, sample
from rrn.evaluation import bootstrap, region_tables
from rrn.evaluation.inference import Predictor, SegmentationModel, require_fit
from rrn.evaluation.metrics import Evaluation, evaluate
from rrn.evaluation.region_tables import Predictions
from rrn.reliability import evidence
from rrn.reliability.evidence import About, Pictures
from rrn.reliability.measures import summarize
from rrn.runtime import atomic_io, csv_files


def evaluate_run(
    model: SegmentationModel, settings: Settings, dataset: ImageSet, split: Split, out: Path, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Evaluate a trained model on the test images; write evidence.zip, bootstrap.csv and `write_results` into `out`.

    Args:
        model: of `rrn.runs.finished.load_model`.
        settings: of the row that was trained; `evaluate` says how images are looked at, the filter decides
            which regions count as kept, and its threads are those of torch from here on.
        dataset: where the images lie.
        split: names the images and the classes.
        out: folder of the results, made if missing.
        extra: partition, method and seed.

    Returns:
        what stands in metrics.json; macs are those of one image of the size of a training crop.

    Raises:
        DataError: if an image or a label is missing or wrong.
        SettingsError: an image does not fit `evaluate.window` in mode pad.
        atomic_io.WriteError: the disk is full, or `out` may not be written.
    """
    torch.set_num_threads(settings.threads)
    crop, predictor = settings.augment.crop, Predictor(model, settings.evaluate, settings.loading)
    images = images_of(settings, dataset, split)
    for batches in images.values():
        require_fit(settings.evaluate, batches.sizes)
    evaluations, scores = {}, []
    counts: list[Tensor] = []
    judged = {name: sample(batches.ids, settings.log.regions) for name, batches in images.items()}
    about = about_run(settings, split, judged, extra)
    with evidence.EvidenceWriter(out / evidence.NAME, about) as writer:
        for name, batches in images.items():
            tables: list[pd.DataFrame] = []
            counts = []  # of the last, the test images
            predictions = region_tables.predict_batches(predictor, batches)
            noted = _noted(predictor, predictions, name, set(judged[name]), writer, tables, counts)
            evaluations[name] = evaluate(noted, split.classes, settings.method.students)
            table = summarize(region_tables.concat(tables, split.classes), settings.method.filter)
            scores.append(table.assign(split=name))
    everything = {**extra, **cost(model.segmenters, crop, crop)}
    last = list(evaluations)[-1]
    csv_files.write_csv(bootstrap.replicates(counts, settings.method.students), out / "bootstrap.csv")
    return write_results(out, evaluations[last], pd.concat(scores), everything)


def images_of(settings: Settings, dataset: ImageSet, split: Split) -> dict[str, WholeImages]:
    """Return the images that are looked at, by what they are called: val, unlabeled, and last the test images.

    These are called val, too, where the data set has no test split of its own. Unlabeled images are those with labels
    for diagnosis.
    """
    known = diagnosis_ids(dataset, split, settings.log.diagnose)
    wanted = {"val": (dataset.val, split.val), "unlabeled": (dataset.train, known), "test": (dataset.test, split.test)}
    if dataset.test == dataset.val:
        wanted = {"unlabeled": wanted["unlabeled"], "val": wanted["val"]}
    how = settings.loading
    return {
        name: WholeImages(dataset, *where, how.evaluation_batch, cache=how.cache, pixels=how.evaluation_pixels)
        for name, where in wanted.items()
        if where[1]
    }


def about_run(settings: Settings, split: Split, ids: Mapping[str, Sequence[str]], extra: Mapping[str, Any]) -> About:
    """Say which run evidence.zip is of, and which of its images have pictures."""
    row = settings.method
    return About(
        name=settings.name,
        **extra,
        classes=split.classes,
        colours=split.colours,
        region=settings.region,
        rule=row.filter,
        rho=row.rho,
        objective=row.discriminator.objective if row.uses_discriminators else None,
        images={name: evenly_spaced(names, settings.log.evidence) for name, names in ids.items()},
    )


def _noted(
    model: SegmentationModel,
    predictions: Iterable[Predictions],
    split: str,
    judged: Collection[str],
    writer: evidence.EvidenceWriter,
    tables: list[pd.DataFrame],
    counts: list[Tensor],
) -> Iterator[Predictions]:
    """Hand on predictions and append their `iou_counts`; write pictures and region tables of `judged` images."""
    for batch in predictions:
        counts.append(bootstrap.iou_counts(batch, len(writer.about.classes)))
        shown = batch.of(judged)
        if shown.batch.ids:
            tables.append(region_tables.region_table(model, shown, writer.about.classes))
            writer.add(split, tables[-1], _pictures(shown))
        yield batch


def _pictures(predictions: Predictions) -> dict[str, Pictures]:
    images = predictions.batch.images.permute(0, 2, 3, 1).cpu().numpy()
    labels = predictions.batch.labels.byte().cpu().numpy()
    predicted = predictions.predicted.byte().cpu().numpy()
    return {
        name: Pictures(images[i], labels[i], predicted[:2, i], predicted[2, i])
        for i, name in enumerate(predictions.batch.ids)
    }


def cost(segmenters: nn.ModuleList, height: int, width: int) -> dict[str, int]:
    """Return parameters and macs (multiply-accumulates of one image) of one segmenter: the mean of all."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        for network in copy.deepcopy(segmenters).to("meta").eval():
            network(torch.empty(1, 3, height, width, device="meta"))
    parameters = sum(parameter.numel() for parameter in segmenters.parameters())
    return {"parameters": parameters // len(segmenters), "macs": counter.get_total_flops() // (2 * len(segmenters))}


def write_results(out: Path, evaluation: Evaluation, scores: pd.DataFrame, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Write metrics.json, per_class.csv, reliability.csv: same numbers, same bytes.

    Args:
        out: folder, which exists.
        evaluation: of `evaluate`.
        scores: of `rrn.reliability.measures.summarize`.
        extra: what else metrics.json holds: partition, method, seed, parameters, macs.

    Returns:
        what stands in metrics.json; None where an IoU is undefined.
    """
    metrics = {k: None if np.isnan(v) else round(v, 4) for k, v in evaluation.metrics().items()}
    values = {**extra, **metrics}
    text = json.dumps(values, indent=2, allow_nan=False)
    atomic_io.write(out / "metrics.json", text + "\n")
    for name, table in {"per_class": evaluation.per_class(), "reliability": scores}.items():
        text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        atomic_io.write(out / f"{name}.csv", text)
    return values
