"""Finished runs in, DataFrames out: metrics, classes, curves, evidence; what was run, and what papers report. No torch.

Which runs there are is said by the lists of `ablation:`, never by what happens to lie in `runs/`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from rrn.config import Settings, SettingsError, fingerprint, in_row, up_to_date
from rrn.runtime.csv_files import read_csv

RUN = ["name", "partition", "method", "seed", "labels"]
MIOUS = ["miou_1", "miou_2", "miou_mean", "miou_ensemble", "pixel_accuracy"]
COST = ["parameters", "macs"]

PACKAGES = (
    *("torch", "torchvision", "segmentation-models-pytorch", "timm", "numpy", "pandas", "scipy", "pillow"),
    *("matplotlib", "seaborn"),
)
"""Whose versions a study states."""

QUOTED = Path(__file__).with_name("quoted.csv")
BACKBONES = {"tu-resnet50s": "resnet50", "tu-resnet101s": "resnet101"}
"""Encoder -> how quoted.csv calls it: with the deep stem and the weights of ImageNet that the literature uses."""


COMMON = ("dataset", "split", "model", "augment", "batch", "cutmix", "warmup", "train", "optimizer", "method")
"""Sections in which studies must be alike to stand in one table."""


class MissingRunError(FileNotFoundError):
    """A run of the ablation is not finished."""


def collect(runs: Path, settings: Settings, results: Path | None = None) -> pd.DataFrame:
    """Read the test metrics of every run of `settings.ablation`, in the order of its lists.

    Args:
        runs: the folder `runs` of the repository.
        settings: what was run; `ablation.beside` adds the rows of other names' runs.csv.
        results: the folder `results`; by default beside `runs`.

    Returns:
        one row per run: name, partition, method, seed, labels (partition | all), miou_1, miou_2,
        miou_mean, miou_ensemble, pixel_accuracy (per cent), parameters, macs.

    Raises:
        MissingRunError: if a run is not finished; says which stage to run.
        SettingsError: a study beside this one is itself, stands there twice, or was made with other settings; a key
            that its settings.json lacks counts as its default.
    """
    rows = []
    for folder, run in _finished(runs, settings, "evaluate", "metrics.json"):
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        rows.append({**run, **{key: metrics[key] for key in (*MIOUS, *COST)}})
    table = pd.DataFrame(rows, columns=[*RUN, *MIOUS, *COST])
    table[MIOUS] = table[MIOUS].astype(float)
    if len({settings.name, *settings.ablation.beside}) <= len(settings.ablation.beside):
        raise SettingsError(f"ablation.beside: {list(settings.ablation.beside)} names {settings.name} or another twice")
    others = [_beside(results or runs.parent / "results", name, settings) for name in settings.ablation.beside]
    return pd.concat([table, *others], ignore_index=True)


def collect_classes(runs: Path, settings: Settings) -> pd.DataFrame:
    """Read the IoU of every class and run.

    Returns:
        one row per run and class: name, partition, method, seed, labels, class, iou_1, iou_2,
        iou_mean (of both segmenters; of the student, if one is the teacher), iou_ensemble (per cent,
        NaN where a class is absent), pixels of the truth.

    Raises:
        MissingRunError: see `collect`.
    """
    parts = []
    for folder, run in _finished(runs, settings, "evaluate", "per_class.csv"):
        part = read_csv(folder / "per_class.csv")
        students = ["iou_1", "iou_2"][: in_row(settings, run["method"]).students]
        parts.append(part.assign(iou_mean=part[students].mean(axis=1), **run))
    columns = [*RUN, "class", "iou_1", "iou_2", "iou_mean", "iou_ensemble", "pixels"]
    return pd.concat(parts, ignore_index=True)[columns]


def collect_curves(runs: Path, settings: Settings, file: str) -> pd.DataFrame:
    """Join a file that every training leaves: history.csv or reliability.csv.

    Returns:
        its columns, and name, partition, method, seed, labels of the run.

    Raises:
        MissingRunError: see `collect`.
    """
    finished = _finished(runs, settings, "train", file)
    return pd.concat([read_csv(folder / file).assign(**run) for folder, run in finished], ignore_index=True)


def evidence_paths(runs: Path, settings: Settings, partition: str) -> dict[str, Path]:
    """Return where the evidence.zip of the first seed of every method of a partition lies.

    Raises:
        MissingRunError: see `collect`.
    """
    first = settings.ablation.seeds[0]
    return {method: seeds[first] for method, seeds in every_evidence(runs, settings, partition).items()}


def every_evidence(runs: Path, settings: Settings, partition: str) -> dict[str, dict[int, Path]]:
    """Return method -> seed -> where the evidence.zip of that run of a partition lies.

    Raises:
        MissingRunError: see `collect`.
    """
    paths: dict[str, dict[int, Path]] = {}
    for folder, run in _finished(runs, settings, "evaluate", "evidence.zip"):
        if run["partition"] == partition:
            paths.setdefault(run["method"], {})[run["seed"]] = folder / "evidence.zip"
    return paths


def about(settings: Settings) -> dict[str, Any]:
    """Say what was run, for settings.json of a study: as JSON holds it, the same on every machine.

    Args:
        settings: those of the study, without a row laid on `method`.

    Returns:
        params: the settings, without those that say where data lie, how they are loaded and how many
        pixels are looked at together, with weights called by the name of their file, and with only
        the rows of `methods:` that were run; settings: their fingerprint; versions: package ->
        version, without the build (+cpu).
    """
    params = settings.model_dump(
        mode="json", exclude={"loading": {"workers", "cache", "evaluation_pixels"}, "dataset": {"path"}}
    )
    params["methods"] = {row: params["methods"][row] for row in settings.ablation.methods}
    params["model"]["weights"] = _without_folder(settings.model.weights)
    versions = {package: metadata.version(package).split("+")[0] for package in PACKAGES}
    return {"settings": fingerprint(params), "params": params, "versions": versions}


def _without_folder(weights: str | None) -> str | None:
    """Return `model.weights` without the folder of its file: timm@DIR/a.pth -> timm@a.pth."""
    source, at, file = (weights or "").rpartition("@")
    if at or file.endswith((".safetensors", ".pth")):
        return f"{source}{at}{Path(file).name}"
    return weights


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
    usual = settings.model.architecture == "DeepLabV3Plus" and settings.model.weights is not None
    if not usual or settings.dataset.size or settings.evaluate.scales != (1.0,) or settings.evaluate.flip:
        return table.iloc[:0]
    here = {
        "dataset": settings.dataset.kind,
        "lists": settings.split.protocol,
        "backbone": BACKBONES.get(settings.model.encoder, "other"),
        "crop": str(settings.augment.crop),
    }
    for column, value in here.items():
        table = table[table[column] == value]
    return table.reset_index(drop=True)


def _finished(runs: Path, settings: Settings, stage: str, file: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield folder and description of every run of the ablation; raise where one has not left the file."""
    for partition in settings.ablation.partitions:
        for method in settings.ablation.methods:
            labels = settings.methods[method].get("labels", settings.method.labels)
            for seed in settings.ablation.seeds:
                key = f"{partition}-{method}-{seed}"
                folder = runs / settings.name / stage / key
                if not (folder / file).is_file():
                    where = Path(runs.name, settings.name, stage, key, file)
                    raise MissingRunError(f"{where} is missing: run `dvc repro {stage}@{key}`")
                run = [settings.name, partition, method, seed, labels]
                yield folder, dict(zip(RUN, run, strict=True))


def with_defaults(held: Mapping[str, Any], section: type[BaseModel]) -> dict[str, Any]:
    """Return settings of an older settings.json, with the defaults of keys that are new since, at any depth.

    Args:
        held: as JSON holds them.
        section: what they are of; a key without a default stays away.
    """
    full = dict(held)
    for key, field in section.model_fields.items():
        if key not in full and not field.is_required():
            full[key] = to_jsonable_python(field.get_default(call_default_factory=True))
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel) and key in full:
            full[key] = with_defaults(full[key], field.annotation)
    return full


def _beside(results: Path, name: str, settings: Settings) -> pd.DataFrame:
    """Return the runs of another name, as its ablation stage wrote them; raise where they cannot stand beside."""
    for file in ("runs.csv", "settings.json"):
        if not (results / name / file).is_file():
            raise MissingRunError(
                f"ablation.beside: {Path(results.name, name, file)} is missing: run "
                f"`dvc repro` with name: {name} first, or take {name} out of the list"
            )
    held = json.loads((results / name / "settings.json").read_text(encoding="utf-8"))["params"]
    theirs = with_defaults(up_to_date(held), type(settings))
    for section, ours in about(settings)["params"].items():
        if section in COMMON and theirs.get(section) != ours:
            raise SettingsError(
                f"ablation.beside: {Path(results.name, name)} was made with other settings, {section}: "
                f"{theirs.get(section)}, here {ours}; run it again, or take {name} out of the list"
            )
    return read_csv(results / name / "runs.csv")
