"""The pass with weights and activations of 8 bits, by ONNX Runtime's static quantization, and what that costs."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from rrn import config
from rrn.config import SettingsError
from rrn.data import splits
from rrn.data.batches import WholeBatch, WholeImages
from rrn.data.image_set import ImageSet
from rrn.data.splits import evenly_spaced
from rrn.evaluation.metrics import confusion_matrix, miou
from rrn.evaluation.region_tables import predict_batches
from rrn.exporting.region_graph import PREFIX
from rrn.prediction import labeling
from rrn.prediction.exported import ExportedModel
from rrn.runs import finished

MODEL = "model_int8.onnx"
CALIBRATION = 128
"""Labeled training images, at most, from which the ranges of activations are read."""


@dataclass(frozen=True)
class Cost:
    """mIoU on val of model.onnx and of model_int8.onnx, per cent, and the number of images."""

    full: float
    quantized: float
    images: int


@dataclass(frozen=True)
class RunImages:
    """Images of the run's data set: `labeled` to calibrate with, and `val` to measure on."""

    labeled: WholeImages
    val: WholeImages


def images_of_run(run: Path) -> RunImages:
    """Open the data set that a run was trained on, as params.yaml of its repository says it.

    Raises:
        SettingsError: the run lies outside of a repository, or params.yaml is of another study.
        DataError: the data set, or split.json, is missing or damaged.
    """
    place = finished.TRAINING.search(run.as_posix())
    if place is None:
        raise SettingsError(
            f"--int8 needs the images that the run was trained on, and {run} does not lie in a repository, as "
            "runs/NAME/train/KEY: leave --int8 out, or name the run where it was trained"
        )
    root = run.parents[3]
    try:
        settings, card = config.load(root=root), finished.read_card(run)
    except FileNotFoundError as error:
        raise SettingsError(f"--int8 needs params.yaml beside runs/, and {root} has none: leave --int8 out") from error
    if settings.name != place["name"]:
        raise SettingsError(
            f"--int8 needs the images that the run was trained on, but params.yaml says name: {settings.name}, and the "
            f"run is of {place['name']}: set params.yaml to that study first (`python -m rrn.preset`)"
        )
    split = splits.read_split(run.parents[1] / "prepare" / f"{card.partition}-{card.seed}")
    dataset = ImageSet.open(settings, root)
    if (tuple(dataset.classes), settings.dataset.size) != (card.classes, card.size):
        raise SettingsError(
            "--int8 needs the images that the run was trained on, but those of params.yaml have other classes, or "
            "another dataset.size: set params.yaml as it was"
        )
    return RunImages(
        WholeImages(dataset, dataset.train, evenly_spaced(split.labeled, CALIBRATION), batch=1),
        WholeImages(dataset, dataset.val, split.val, settings.loading.evaluation_batch),
    )


class _Calibration:
    """Hands out images one by one, as ONNX Runtime asks for them."""

    def __init__(self, images: Iterable[WholeBatch]) -> None:
        self._batches = iter(images)

    def get_next(self) -> dict[str, object] | None:
        """Return the next image by the name of the input, or None."""
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch.images.numpy()}


def quantize(source: Path, target: Path, images: WholeImages) -> None:
    """Write model_int8.onnx: segmenters' convolutions in int8, a scale for each of their channels; all else as it is.

    Args:
        source: model.onnx.
        target: to be written.
        images: from which the ranges of activations are read.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    judges = [node.name for node in onnx.load(source).graph.node if node.name.startswith(PREFIX)]
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)  # it advises what torch.export has done already
    try:
        quantize_static(
            *(source, target, _Calibration(images)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=judges,
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
    finally:
        root.setLevel(before)


def measure_cost(full: Path, quantized: Path, images: WholeImages) -> Cost:
    """Measure mIoU on val of both files, as the run was evaluated."""
    return Cost(_miou(full, images), _miou(quantized, images), len(images.ids))


def _miou(path: Path, images: WholeImages) -> float:
    model = ExportedModel(path)
    classes = len(model.card.classes)
    total = torch.zeros(classes, classes, dtype=torch.int64)
    for answer in predict_batches(labeling.predictor_of(model, model.card), images):
        total += confusion_matrix(answer.predicted[-1], answer.batch.labels, classes)
    return 100 * miou(total)
