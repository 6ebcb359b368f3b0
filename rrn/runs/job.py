"""Which run: a stage and its coordinates, the settings that they resolve to, and what a resume must find unchanged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from rrn import config
from rrn.data import splits
from rrn.data.splits import Split
from rrn.runtime import source

PACKAGE = Path(__file__).parents[1]
Stage = Literal["warmup", "train"]

SHARED = {"labels": "partition", "warmup": "shared"}
"""What rows may change of a warmup: where they do not, all rows begin with the same one."""
SUPERVISED_ONLY = {
    **{"consistency": False, "filter": {"by": "none", "per": "batch", "keep": "fraction"}},
    **{"strong": None, "rho": "none", "labels_from": "other", "teacher": "current", "networks": "pair"},
    "negative": None,
}
ELSEWHERE: dict[str, bool | set[str]] = {
    **dict.fromkeys(("name", "ablation", "methods", "loading", "split"), True),
    "log": {"evidence", "tensorboard"},
}
NOT_READ = {
    "warmup": ELSEWHERE | dict.fromkeys(("train", "method", "cutmix"), True),
    "train": ELSEWHERE | {"warmup": True},
}
"""Settings without influence on what a stage writes: not in its fingerprint, no obstacle to a resume.

How images are evaluated trains nothing, but is in: a history is of one protocol.
"""


@dataclass(frozen=True)
class Job:
    """Which run: a stage and its coordinates, what it reads and where it writes.

    `key` names it; `start` is the folder of the warmed-up segmenters that training begins with. A warmup has a `method`
    only where a row asks for its own.
    """

    stage: Stage
    partition: str
    method: str | None
    seed: int
    out: Path
    settings: config.Settings
    root: Path

    @property
    def key(self) -> str:
        """Name of the run, as DVC names it."""
        return "-".join(str(part) for part in (self.partition, self.method, self.seed) if part is not None)

    @property
    def runs(self) -> Path:
        """Folder of all runs of these settings' name."""
        return self.root / "runs" / self.settings.name

    @property
    def start(self) -> Path | None:
        """Folder of the warmup that training starts from; a warmup starts from nothing."""
        if self.stage == "warmup":
            return None
        if self.settings.method.warmup == "own":
            return self.out / "warmup"
        return self.runs / "warmup" / f"{self.partition}-{self.seed}"

    @property
    def schedule(self) -> config.Schedule:
        """Steps and ramp of this stage."""
        return self.settings.warmup if self.stage == "warmup" else self.settings.train

    @property
    def prepared(self) -> Path:
        """Folder of what the prepare stage has left of this partition and seed."""
        return self.runs / "prepare" / f"{self.partition}-{self.seed}"

    @cached_property
    def split(self) -> Split:
        """Who is labeled, and the images of val and test."""
        return splits.read_split(self.prepared)

    def identity(self) -> dict[str, Any]:
        """Return what must be the same for a resume to be exact: settings, data, lists, first weights and code.

        The checksum of the data is the one in split.json, as prepare found them.
        """
        inputs = {"data": self.split.data, "split.json": digest(self.prepared / splits.NAME)}
        if self.start:
            inputs["warmup"] = digest(self.start / "segmenters.safetensors")
        elif self.method:
            inputs["labels"] = self.settings.method.labels
        return {
            "settings": self.settings.model_dump(mode="json", exclude=NOT_READ[self.stage]),
            "classes": list(self.split.classes),
            "inputs": inputs,
            "code": code(),
        }


def job(
    stage: Stage, partition: str, method: str | None, seed: int, out: Path, overrides: dict[str, Any] | None = None
) -> Job:
    """Resolve the settings of a run; a warmup is supervised, and its labels are the row's own only if it has one."""
    root = config.find_root()
    if stage == "warmup":
        overrides = dict(overrides or {})
        overrides["method"] = {**overrides.get("method", {}), **SUPERVISED_ONLY, **({} if method else SHARED)}
    settings = config.load(method, overrides, root)
    return Job(stage, partition, method, seed, Path(out), settings, root)


def digest(path: Path) -> str:
    """Return 12 hexadecimal digits of the contents of a file."""
    return _digest([path.read_bytes()])


def code() -> dict[str, str]:
    """Return what may change a bit: 12 hexadecimal digits of all code, not of its remarks, and the version of torch."""
    return {"rrn": _digest(map(source.contents, sorted(PACKAGE.rglob("*.py")))), "torch": str(torch.__version__)}


def _digest(files: Iterable[bytes]) -> str:
    contents = hashlib.sha256()
    for held in files:
        contents.update(hashlib.sha256(held).digest())
    return contents.hexdigest()[:12]
