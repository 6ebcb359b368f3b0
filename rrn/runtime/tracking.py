"""What DVC shows of finished runs: files of metrics and of curves in results/, where git keeps them. No torch.

`metrics:` and `plots:` of dvc.yaml name them: `dvc metrics show`, `dvc exp show` and `dvc plots show` read no others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from rrn.runtime import atomic_io

RUN_METRICS = ("miou_mean", "miou_ensemble")
ROW_METRICS = ("miou_mean", "miou_std", "miou_ensemble")
CURVES = ("miou_mean", "supervised", "consistency", "coverage", "weight", "agreement")
"""Columns of history.csv that are drawn."""


def run_folder(root: Path, name: str) -> Path:
    """Return where metrics of single runs lie: outside of results/<name>, which is one output of DVC.

    No study can be called per-run.
    """
    return root / "results" / "per-run" / name


def write_run(root: Path, name: str, out: Path, metrics: Mapping[str, Any]) -> None:
    """Write results/per-run/<name>/<run>.json if `out` is the stage's own folder; a try by hand leaves no trace.

    Args:
        root: the repository.
        name: of the study.
        out: the folder in which metrics.json of the run was written.
        metrics: what stands in it, in per cent; None: undefined.

    Raises:
        atomic_io.WriteError: the disk is full, or results/ may not be written.
    """
    key = "-".join(str(metrics[part]) for part in ("partition", "method", "seed"))
    if out.resolve() == (root / "runs" / name / "evaluate" / key).resolve():
        _write(run_folder(root, name) / f"{key}.json", {column: metrics[column] for column in RUN_METRICS})


def write_rows(table: pd.DataFrame, folder: Path) -> None:
    """Write the means over seeds, a file <partition>-<method>.json for each row.

    Args:
        table: partition, method, miou_mean, miou_std (NaN of one seed), miou_ensemble; per cent.
        folder: made if missing.
    """
    for row in table.to_dict("records"):
        values = {column: None if pd.isna(row[column]) else round(row[column], 4) for column in ROW_METRICS}
        _write(folder / f"{row['partition']}-{row['method']}.json", values)


def training_curves(history: pd.DataFrame) -> pd.DataFrame:
    """Return the means over seeds of what is drawn against the step.

    Args:
        history: history.csv of all runs, joined: partition, method, seed, step, and some of `CURVES`.

    Returns:
        partition, method, step, and all of `CURVES`: NaN where no run has a value.
    """
    groups = history.groupby(["partition", "method", "step"], sort=False)
    return groups.mean(numeric_only=True).reindex(columns=list(CURVES)).reset_index()


def _write(path: Path, values: Mapping[str, float | None]) -> None:
    """Write numbers by name."""
    atomic_io.write(path, json.dumps(values, indent=1, allow_nan=False) + "\n")
