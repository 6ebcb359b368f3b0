"""What stages would mistake for their own, or delete, is moved to runs/<name>/aside before they run."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from rrn import config
from rrn.pipeline import fetch, scheduler
from rrn.runtime import tracking

SEEDED = ("prepare", "warmup")
"""Stages that run once for a partition and a seed, whatever the row."""


def make_room(root: Path, settings: config.Settings, rest: list[str]) -> None:
    """Move what stages would mistake or delete out of the way, and say so."""
    for folder in set_aside(root, settings):
        print(f"{folder.relative_to(root)} is not listed in params.yaml: moved to aside/")
    for path in () if "--dry" in rest else keep_changes(root, settings.name):
        print(f"{path.relative_to(root)} is not as dvc.lock says: moved to runs/{settings.name}/aside/")


def set_aside(root: Path, settings: config.Settings) -> list[Path]:
    """Move folders and metrics of runs that the lists of `ablation:` do not name to runs/<name>/aside.

    The ablation stage depends on whole folders; what is left of removed rows would be hashed too.

    Returns:
        The folders and files as they were called.
    """
    lists = settings.ablation
    partitions, seeds = lists.partitions, [str(seed) for seed in lists.seeds]
    full = {"-".join(key) for key in itertools.product(partitions, lists.methods, seeds)}
    runs = root / "runs" / settings.name
    listed = {
        **{runs / stage: {"-".join(key) for key in itertools.product(partitions, seeds)} for stage in SEEDED},
        runs / "train": full,
        runs / "evaluate": full,
        tracking.run_folder(root, settings.name): {f"{key}.json" for key in full},
    }
    stale = [path for folder, names in listed.items() for path in sorted(folder.glob("*")) if path.name not in names]
    for path in stale:
        _move(path, runs / "aside" / (path.parent.name if path.is_dir() else "metrics") / path.name)
    return stale


def keep_changes(root: Path, name: str) -> list[Path]:
    """Move what was changed or added by hand in outputs of stages to runs/<name>/aside, since dvc would delete it.

    These are single files of runs/<name>, and the whole of results/<name>, of which dvc has no copy.

    Returns:
        What was moved, as it was called.

    Raises:
        fetch.FetchError, subprocess.CalledProcessError: dvc failed and has said why.
    """
    runs, results = root / "runs" / name, root / "results" / name
    differing = fetch.by_hand({**fetch.status(fetch.DVC, root), "unknown": []})
    paths = [root / path for part in differing.values() for path in part]
    moved = {path: runs / "aside" / path.relative_to(runs) for path in paths if path.is_relative_to(runs)}
    parts = scheduler.changed(fetch.DVC, root, "ablation").get("ablation", [])
    if results.exists() and any(f"results/{name}" in part.get("changed outs", {}) for part in parts):
        moved[results] = runs / "aside" / "results"
    for path, target in moved.items():
        _move(path, target)
    return list(moved)


def _move(path: Path, target: Path) -> None:
    """Rename a path to `target`, or target.2, target.3, ...: what was moved there before stays."""
    numbered = (target.with_name(f"{target.name}.{number}") for number in itertools.count(2))
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(next(each for each in itertools.chain([target], numbered) if not os.path.lexists(each)))
