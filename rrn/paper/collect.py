"""Pieces of finished runs in, DataFrames out: metrics, classes, curves; what was run, and what papers report. No torch.

Which runs there are is said by the lists of `ablation:`, never by what happens to lie in results/.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rrn.config import Settings, SettingsError, fingerprint, up_to_date
from rrn.pieces.made_with import with_defaults, without_folders
from rrn.pieces.piece import Piece, TableName
from rrn.runtime.csv_files import read_csv

RUN = ["name", "partition", "method", "seed", "labels"]
MIOUS = ["miou_1", "miou_2", "miou_mean", "miou_ensemble", "pixel_accuracy"]
COST = ["parameters", "macs"]
IMAGE_SE = "image_se"
"""Standard error of miou_mean over test images."""

QUOTED = Path(__file__).with_name("quoted.csv")
BACKBONES = {"tu-resnet50s": "resnet50", "tu-resnet101s": "resnet101"}
"""Encoder -> how quoted.csv calls it: with the deep stem and the weights of ImageNet that the literature uses."""


COMMON = ("dataset", "split", "model", "augment", "batch", "cutmix", "warmup", "train", "optimizer", "method")
"""Sections in which studies must be alike to stand in one table, but for `model.second`."""


class MissingRunError(FileNotFoundError):
    """A study that stands beside this one is not finished."""


def collect(pieces: Sequence[Piece], settings: Settings, results: Path) -> pd.DataFrame:
    """Return the test metrics of every run of a study, and of those beside it.

    Args:
        pieces: of the study, of `rrn.pieces.store.read_pieces`.
        settings: what was run; `ablation.beside` adds the rows of other names' runs.csv.
        results: the folder `results`.

    Returns:
        one row per run: name, partition, method, seed, labels (partition | all), miou_1, miou_2,
        miou_mean, miou_ensemble, pixel_accuracy (per cent), parameters, macs, image_se (standard error of miou_mean
        over test images, in points; NaN of a study that is older than it).

    Raises:
        MissingRunError: a study beside this one is not finished.
        SettingsError: a study beside this one is itself, stands there twice, or was made with other settings; a key
            that its settings.json lacks counts as its default.
    """
    deviations = [piece.table("bootstrap")["miou_mean"].std() for piece in pieces]
    rows = [{**_run(p), **p.metrics, IMAGE_SE: d} for p, d in zip(pieces, deviations, strict=True)]
    table = pd.DataFrame(rows, columns=[*RUN, *MIOUS, *COST, IMAGE_SE])
    table[MIOUS] = table[MIOUS].astype(float)
    if len({settings.name, *settings.ablation.beside}) <= len(settings.ablation.beside):
        raise SettingsError(f"ablation.beside: {list(settings.ablation.beside)} names {settings.name} or another twice")
    others = [_beside(results, name, settings) for name in settings.ablation.beside]
    return pd.concat([table, *others], ignore_index=True)


def collect_classes(pieces: Sequence[Piece]) -> pd.DataFrame:
    """Return the IoU of every class and run.

    Returns:
        one row per run and class: name, partition, method, seed, labels, class, iou_1, iou_2,
        iou_mean (of both segmenters; of the student, if one is the teacher), iou_ensemble (per cent,
        NaN where a class is absent), pixels of the truth.
    """
    return collect_table(pieces, "classes")[[*RUN, "class", "iou_1", "iou_2", "iou_mean", "iou_ensemble", "pixels"]]


def collect_table(pieces: Sequence[Piece], name: TableName) -> pd.DataFrame:
    """Join a table of all pieces.

    Returns:
        its columns, and name, partition, method, seed, labels of the run.
    """
    return pd.concat([piece.table(name).assign(**_run(piece)) for piece in pieces], ignore_index=True)


def _run(piece: Piece) -> dict[str, Any]:
    """Return the description of a run."""
    return piece.run.model_dump(include={*RUN})


def versions(pieces: Sequence[Piece]) -> dict[str, str | list[str]]:
    """Return the packages that computed the pieces: package -> version, or all versions where they differ."""
    found: dict[str, dict[str, None]] = {}
    for piece in pieces:
        for package, version in piece.versions.items():
            found.setdefault(package, {})[version] = None
    return {package: next(iter(each)) if len(each) == 1 else sorted(each) for package, each in found.items()}


def about(settings: Settings, pieces: Sequence[Piece] = ()) -> dict[str, Any]:
    """Say what was run, for settings.json of a study: as JSON holds it, the same on every machine.

    Args:
        settings: those of the study, without a row laid on `method`.
        pieces: of the study, which know the packages that computed them.

    Returns:
        params: the settings, without those that say where data lie, how they are loaded and how many
        pixels are looked at together, with weights called by the name of their file, and with only
        the rows of `methods:` that were run; settings: their fingerprint; versions: of `versions`.
    """
    params = settings.model_dump(
        mode="json", exclude={"loading": {"workers", "cache", "evaluation_pixels"}, "dataset": {"path"}}
    )
    params["methods"] = {row: params["methods"][row] for row in settings.ablation.methods}
    params["model"] = without_folders(params["model"])
    return {"settings": fingerprint(params), "params": params, "versions": versions(pieces)}


def quoted(settings: Settings) -> pd.DataFrame:
    """Return the numbers of papers that may stand beside a study: those of the same protocol.

    The same data set, lists of labeled images, backbone and crop, all of them stated by the source;
    a number of which one is unknown stands beside nothing, and nothing stands beside a study that reads
    images in another size, looks at them more than once, or has another network or no pretrained weights.

    Returns:
        rows of quoted.csv: method, dataset, backbone, crop, lists, partition, miou (per cent), epoch
        (best | last | unknown: which one of a training is reported), source; empty where there are
        none, as for the embedded data.
    """
    table = pd.read_csv(QUOTED, dtype=str).astype({"miou": float})
    model = settings.model
    usual = model.architecture == "DeepLabV3Plus" and model.weights is not None and model.second is None
    if not usual or settings.dataset.size or settings.evaluate.scales != (1.0,) or settings.evaluate.flip:
        return table.iloc[:0]
    here = {
        "dataset": settings.dataset.kind,
        "lists": settings.split.protocol,
        "backbone": BACKBONES.get(model.encoder, "other"),
        "crop": str(settings.augment.crop),
    }
    for column, value in here.items():
        table = table[table[column] == value]
    return table.reset_index(drop=True)


def _beside(results: Path, name: str, settings: Settings) -> pd.DataFrame:
    """Return the runs of another name, as its ablation stage wrote them; raise where they cannot stand beside."""
    for file in ("runs.csv", "settings.json"):
        if not (results / name / file).is_file():
            raise MissingRunError(
                f"ablation.beside: {Path(results.name, name, file)} is missing: run "
                f"`dvc repro` with name: {name} first, or take {name} out of the list"
            )
    held = json.loads((results / name / "settings.json").read_text(encoding="utf-8"))["params"]
    theirs, own = with_defaults(up_to_date(held), type(settings)), about(settings)["params"]
    for params in (theirs, own):
        params["model"]["second"] = None  # what it is worth is asked in such a table
    for section, ours in own.items():
        if section in COMMON and theirs.get(section) != ours:
            raise SettingsError(
                f"ablation.beside: {Path(results.name, name)} was made with other settings, {section}: "
                f"{theirs.get(section)}, here {ours}; run it again, or take {name} out of the list"
            )
    return read_csv(results / name / "runs.csv")
