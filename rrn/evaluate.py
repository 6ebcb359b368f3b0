"""How good the segmenters are, and what a score of their pseudo-labels is worth.

One confusion matrix per data set gives mIoU; a table with one row per region gives the reliability
of scores (`rrn.reliability`). Works on anything shaped like `rrn.inference.Model`: `rrn.method.RRN` is,
and so is a `Predictor`, which looks at images as `evaluate:` in params.yaml says. Nothing is trained
here, and no number depends on how the images are batched.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchmetrics.functional.classification import multiclass_confusion_matrix

from rrn import regions
from rrn.config import IGNORE_INDEX, Filter, Settings
from rrn.data.loaders import WholeBatch, whole_images
from rrn.data.sets import ImageSet
from rrn.data.splits import Split
from rrn.inference import Model, Predictor, require_fit
from rrn.reliability import SCORES, Threshold, keep_count, kept_share, summarise

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
    """Confusion matrices of one data set: one of SEGMENTERS -> int64 [C, C] on the CPU."""

    classes: tuple[str, ...]
    matrices: Mapping[str, Tensor]

    def metrics(self) -> dict[str, float]:
        """Return miou_1, miou_2, their mean; miou_ensemble and its pixel_accuracy; per cent."""
        one, two, both = (100 * miou(self.matrices[name]) for name in SEGMENTERS)
        matrix = self.matrices["ensemble"].double()
        values = {"miou_1": one, "miou_2": two, "miou_mean": (one + two) / 2, "miou_ensemble": both}
        return {**values, "pixel_accuracy": 100 * float(matrix.trace() / matrix.sum())}

    def per_class(self) -> pd.DataFrame:
        """Return class, iou_1, iou_2, iou_ensemble (per cent, NaN if absent), pixels (truth)."""
        ious = [100 * iou(self.matrices[name]).numpy() for name in SEGMENTERS]
        columns = dict(zip(("iou_1", "iou_2", "iou_ensemble"), ious, strict=True))
        pixels = self.matrices["ensemble"].sum(1).numpy()
        return pd.DataFrame({"class": list(self.classes), **columns, "pixels": pixels})


@torch.no_grad()
def evaluate(model: Model, batches: Iterable[WholeBatch], classes: Sequence[str]) -> Evaluation:
    """Compare both segmenters, and the mean of their probabilities, with the labels."""
    count = len(classes)
    total = torch.zeros(3, count, count, dtype=torch.int64)
    for batch in batches:
        batch = batch.to(model.device)
        probabilities = model.logits(batch.images).softmax(2)
        predictions = (*probabilities.argmax(2), probabilities.mean(0).argmax(1))
        total += torch.stack([confusion_matrix(p, batch.labels, count) for p in predictions]).cpu()
    return Evaluation(tuple(classes), dict(zip(SEGMENTERS, total, strict=True)))


def reliability(
    model: Model,
    batches: Iterable[WholeBatch],
    fraction: float = 0.5,
    threshold: Threshold | None = None,
) -> pd.DataFrame:
    """Return `rrn.reliability.summarise` of `region_table`: do high scores go with right pixels?"""
    return summarise(region_table(model, batches), fraction, threshold)


REGION_COLUMNS = ["id", "segmenter", "row", "column", *SCORES, "right", "wrong"]


@torch.no_grad()
def region_table(model: Model, batches: Iterable[WholeBatch]) -> pd.DataFrame:
    """Describe every region that has a valid pixel, once for each segmenter.

    Returns:
        columns id, segmenter (1 | 2), row, column; scores in 0..1: region_score (NaN without
        discriminators), confidence (mean max-softmax of its valid pixels), agreement (share of them
        on which the two segmenters agree); right and wrong (numbers of valid pixels).
    """
    parts = [_describe(model, batch.to(model.device)) for batch in batches]
    empty = pd.DataFrame(columns=REGION_COLUMNS)
    return pd.concat(parts, ignore_index=True) if parts else empty


def _describe(model: Model, batch: WholeBatch) -> pd.DataFrame:
    """Return the rows of `region_table` of one batch."""
    logits = model.logits(batch.images)
    confidence, prediction = logits.softmax(2).max(2)  # [2, B, H, W]
    valid = (batch.labels != IGNORE_INDEX).expand_as(prediction)
    count = region_total(valid, model.region)  # [2, B, rows, columns]
    right = region_total(valid & (prediction == batch.labels), model.region)
    agreement = region_total(valid & (prediction[0] == prediction[1]), model.region) / count
    sure = region_total(confidence * valid, model.region) / count
    score = _or_unknown(model.region_scores(logits, batch.images), count)
    where = (count > 0).nonzero(as_tuple=True)
    numbers = [v[where].cpu().numpy() for v in (score, sure, agreement, right, count - right)]
    segmenter, image, row, column = (index.cpu().numpy() for index in where)
    names = np.asarray(batch.ids, dtype=object)[image]
    columns = [names, segmenter + 1, row, column, *numbers]
    table = pd.DataFrame(dict(zip(REGION_COLUMNS, columns, strict=True)))
    return table.astype({"right": "int64", "wrong": "int64"})


def region_total(values: Tensor, region: int) -> Tensor:
    """Sum values [..., H, W] over squares of `region` pixels: float64 [..., rows, columns]."""
    grid = regions.grid_of(values.shape[-2], values.shape[-1], region)
    return regions.region_sum(regions.pad_to_regions(values.double(), region), grid)


def _or_unknown(scores: Tensor | None, like: Tensor) -> Tensor:
    """Return region scores, or NaN in their place."""
    return torch.full_like(like, torch.nan) if scores is None else scores


@torch.no_grad()
def evidence(
    model: Model,
    batches: Iterable[WholeBatch],
    by: str = "region_score",
    fraction: float = 0.5,
    threshold: float | None = None,
    count: int = 4,
) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of the qualitative figure, for images chosen by rule.

    The rule: the `count` images with most classes in their labels, ties by id. It sees no
    prediction, so every row of the ablation shows the same images.

    Args:
        model: both segmenters show their pseudo-labels.
        batches: N of their images are chosen.
        by: region_score and confidence keep the regions that are best by it; none and random have no
            such rule and keep all.
        fraction: the share of the regions shown that is kept, 0..1.
        threshold: keep the regions that score at least this instead, 0..1.
        count: number of images wanted.

    Returns:
        ids str [N], images uint8 [N, H, W, 3], labels uint8 [N, H, W], pseudo_labels uint8
        [2, N, H, W], prediction uint8 [N, H, W] (ensemble), region_scores float32
        [2, N, rows, columns] (NaN without discriminators), kept bool [2, N, rows, columns],
        region int64 [] (pixels). Smaller images are padded: 0, labels 255, scores NaN.

    Raises:
        ValueError: if there is no image.
    """
    chosen = _choose(batches, count)
    if not chosen:
        raise ValueError("evidence: there is no image to show; expected at least one batch")
    shown = [_show(model, image, labels, by) for _, image, labels in chosen]
    arrays = {key: _stack([part[key] for part in shown]) for key in shown[0]}
    cut = (1.0, None) if by in ("none", "random") else (fraction, threshold)
    kept = np.stack([_keep(score, *cut) for score in arrays.pop("ranking")])
    ids = np.array([name for name, _, _ in chosen])
    return {"ids": ids, **arrays, "kept": kept, "region": np.array(model.region)}


def _choose(batches: Iterable[WholeBatch], count: int) -> list[tuple[str, Tensor, Tensor]]:
    """Return (id, image, labels) of the images that `evidence` shows."""
    best: list[tuple[int, str, Tensor, Tensor]] = []
    for batch in batches:
        for name, image, labels in zip(batch.ids, batch.images, batch.labels, strict=True):
            present = labels[labels != IGNORE_INDEX].unique().numel()
            best.append((-present, name, image, labels))
        best = sorted(best, key=lambda entry: entry[:2])[:count]
    return [entry[1:] for entry in best]


def _show(model: Model, image: Tensor, labels: Tensor, by: str) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of one image, and the `ranking` of its regions."""
    images = image[None].to(model.device)
    logits = model.logits(images)
    probabilities = logits.softmax(2)
    area = region_total(torch.ones_like(probabilities[:, :, 0]), model.region)
    confidence = region_total(probabilities.amax(2), model.region) / area
    scores = model.region_scores(logits, images)
    arrays = {
        "images": images.permute(0, 2, 3, 1),
        "labels": labels[None].byte(),
        "pseudo_labels": probabilities.argmax(2).byte(),
        "prediction": probabilities.mean(0).argmax(1).byte(),
        "region_scores": _or_unknown(scores, confidence).float(),
        "ranking": (scores if by == "region_score" and scores is not None else confidence),
    }
    return {key: value.cpu().numpy() for key, value in arrays.items()}


def _stack(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Join [1, H, W, 3], [1, H, W] or [2, 1, H, W] along the images, padded to the largest."""
    colour = arrays[0].ndim == 4 and arrays[0].shape[0] == 1
    fill = 0 if colour else np.nan if arrays[0].dtype.kind == "f" else IGNORE_INDEX
    largest = np.max([array.shape for array in arrays], axis=0)
    widths = [[(0, int(n)) for n in largest - array.shape] for array in arrays]
    padded = [np.pad(a, w, constant_values=fill) for a, w in zip(arrays, widths, strict=True)]
    return np.concatenate(padded, axis=1 if arrays[0].shape[0] == 2 else 0)


def _keep(score: npt.NDArray[Any], fraction: float, threshold: float | None) -> npt.NDArray[Any]:
    """Return which of the scores [N, rows, columns] are kept; NaN (padding) never is."""
    known = np.isfinite(score)
    if threshold is not None:
        return known & (score >= threshold)
    ranked = np.where(known, score, -np.inf).ravel()
    share = kept_share(ranked, keep_count(fraction, int(known.sum())))
    return known & (share.reshape(score.shape) >= 0.5)


def cost(segmenter: nn.Module, height: int, width: int) -> dict[str, int]:
    """Return parameters of one segmenter and macs (multiply-accumulates) of one image."""
    counter = FlopCounterMode(display=False)
    network = copy.deepcopy(segmenter).to("meta").eval()
    with torch.no_grad(), counter:
        network(torch.empty(1, 3, height, width, device="meta"))
    parameters = sum(parameter.numel() for parameter in segmenter.parameters())
    return {"parameters": parameters, "macs": counter.get_total_flops() // 2}


def write(
    out: Path,
    evaluation: Evaluation,
    scores: pd.DataFrame,
    arrays: Mapping[str, npt.NDArray[Any]],
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """Write metrics.json, per_class.csv, reliability.csv, evidence.npz: same numbers, same bytes.

    Args:
        out: folder, made if missing.
        evaluation: of `evaluate`.
        scores: of `reliability`.
        arrays: of `evidence`.
        extra: what else metrics.json holds: partition, method, seed, parameters, macs.

    Returns:
        what stands in metrics.json; None where an IoU is undefined.
    """
    out.mkdir(parents=True, exist_ok=True)
    metrics = {k: None if np.isnan(v) else round(v, 4) for k, v in evaluation.metrics().items()}
    values = {**extra, **metrics}
    text = json.dumps(values, indent=2, allow_nan=False)
    (out / "metrics.json").write_text(text + "\n", encoding="utf-8")
    for name, table in {"per_class": evaluation.per_class(), "reliability": scores}.items():
        path = out / f"{name}.csv"
        table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    with (out / "evidence.npz").open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    return values


def cut(rule: Filter) -> tuple[float, Threshold | None]:
    """Return where a row cuts the regions, as `reliability` wants it: the share kept, or the threshold of the score.

    The controls keep as many regions as the region score would.
    """
    if rule.keep == "fraction":
        return rule.fraction, None
    return 0.5, ("region_score", rule.tau) if rule.by != "none" else None


def report(
    model: Model, settings: Settings, dataset: ImageSet, split: Split, out: Path, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Evaluate a trained model on the test images and `write` everything into `out`.

    Args:
        model: of `rrn.checkpoint.load`.
        settings: of the row that was trained; `evaluate` says how images are looked at, the filter decides
            which regions count as kept, and its threads are those of torch from here on.
        dataset: where the images lie.
        split: names the test images and the classes.
        out: folder of the results.
        extra: partition, method and seed.

    Returns:
        what stands in metrics.json; macs are those of one image of the size of a training crop.

    Raises:
        DataError: if an image or a label is missing or wrong.
        SettingsError: an image does not fit `evaluate.window` in mode pad.
    """
    torch.set_num_threads(settings.threads)
    rule, crop = settings.method.filter, settings.augment.crop
    batches = whole_images(dataset, dataset.test, split.test, settings.evaluate.batch, cache=settings.dataset.cache)
    fraction, threshold = cut(rule)
    require_fit(settings.evaluate, batches.sizes)
    predictor = Predictor(model, settings.evaluate)
    scores = reliability(predictor, batches, fraction, threshold)
    tau = threshold[1] if threshold and rule.by == "region_score" else None  # a control shows its best half
    arrays = evidence(predictor, batches, rule.by, fraction, tau)
    arrays["colours"] = np.asarray(split.colours, dtype=np.uint8).reshape(-1, 3)
    everything = {**extra, **cost(model.segmenters[0], crop, crop)}
    return write(out, evaluate(predictor, batches, split.classes), scores, arrays, everything)
