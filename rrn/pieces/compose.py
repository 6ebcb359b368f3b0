"""A piece from what the train and evaluate stages leave in runs/. No torch."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

from rrn.config import Settings, fingerprint
from rrn.data.splits import Split
from rrn.pieces.made_with import made_with
from rrn.pieces.piece import Origin, Piece, columns_of
from rrn.reliability.curves import run_curves
from rrn.reliability.evidence import NAME, Evidence
from rrn.reliability.measures import EVERYTHING
from rrn.runtime.csv_files import read_csv
from rrn.runtime.tracking import CURVES

PACKAGES = (
    *("torch", "torchvision", "segmentation-models-pytorch", "timm", "numpy", "pandas", "scipy", "pillow"),
    *("matplotlib", "seaborn"),
)
"""Whose versions a study states."""

METRICS = ("miou_1", "miou_2", "miou_mean", "miou_ensemble", "pixel_accuracy", "parameters", "macs")


def compose(trained: Path, evaluated: Path, settings: Settings, split: Split) -> Piece:
    """Return the piece of a finished run.

    Args:
        trained: folder that its train stage left.
        evaluated: folder that its evaluate stage left.
        settings: with its row laid on `method`.
        split: which images it read.

    Raises:
        EvidenceError: evidence.zip in `evaluated` is damaged.
    """
    told = json.loads((evaluated / "metrics.json").read_text(encoding="utf-8"))
    history, reliability = (read_csv(trained / f"{name}.csv") for name in ("history", "reliability"))
    together = reliability[reliability["class"] == EVERYTHING].drop(columns="class")
    held = made_with(settings)
    return Piece(
        run=Origin(
            name=settings.name,
            partition=told["partition"],
            method=told["method"],
            seed=told["seed"],
            labels=settings.method.labels,
            data=split.data,
            settings=fingerprint(held),
        ),
        settings=held,
        versions={package: metadata.version(package).split("+")[0] for package in PACKAGES},
        metrics={key: told[key] for key in METRICS},
        classes=columns_of(read_csv(evaluated / "per_class.csv")),
        history=columns_of(history[[column for column in ("step", *CURVES) if column in history]]),
        reliability=columns_of(together),
        curves=run_curves(Evidence.read(evaluated / NAME).last(), settings.method.filter),
        bootstrap=columns_of(read_csv(evaluated / "bootstrap.csv")),
    )
