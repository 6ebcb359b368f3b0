"""Which run: a stage and its coordinates, the settings that they resolve to, and what a resume must find unchanged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rrn import config
from rrn.runs import checkpoint
from rrn.data import splits

Stage = Literal["warmup", "train"]

SUPERVISED_ONLY = {"labels": "partition", "consistency": False, "filter": {"by": "none"}, "rho": "none"}
ELSEWHERE: dict[str, bool | set[str]] = {
    **dict.fromkeys(("name", "ablation", "methods", "workers", "split"), True),
    "evaluate": {"batch", "pixels", "evidence"},
    "dataset": {"cache"},
}
NOT_READ = {
    "warmup": ELSEWHERE | dict.fromkeys(("train", "method", "cutmix"), True),
    "train": ELSEWHERE | {"warmup": True},
}
"""Settings without influence on what a stage writes: not in its fingerprint, no obstacle to a resume.

How images are evaluated trains nothing, but is in: a history is of one protocol. How many at once is not.
"""


@dataclass(frozen=True)
class Job:
    """Which run: a stage and its coordinates, what it reads and where it writes.

    `key` names it; `start` is the folder of the warmed-up segmenters that training begins with.
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
        return self.runs / "warmup" / f"{self.partition}-{self.seed}" if self.stage == "train" else None

    @property
    def schedule(self) -> config.Schedule:
        """Steps and ramp of this stage."""
        return self.settings.warmup if self.stage == "warmup" else self.settings.train

    def identity(self) -> dict[str, Any]:
        """Return what must be the same for a resume to be exact: settings, data, lists, first weights and code.

        The checksum of the data is the one in split.json, as prepare found them.
        """
        prepared = self.runs / "prepare" / self.partition
        split = splits.read_split(prepared)
        inputs = {"data": split.data, "split.json": checkpoint.digest(prepared / splits.NAME)}
        if self.start:
            inputs["warmup"] = checkpoint.digest(self.start / "segmenters.safetensors")
        return {
            "settings": self.settings.model_dump(mode="json", exclude=NOT_READ[self.stage]),
            "classes": list(split.classes),
            "inputs": inputs,
            "code": checkpoint.code(),
        }


def job(
    stage: Stage, partition: str, method: str | None, seed: int, out: Path, overrides: dict[str, Any] | None = None
) -> Job:
    """Resolve the settings of a run; a warmup is supervised, whatever the row."""
    root = config.find_root()
    if stage == "warmup":
        overrides = dict(overrides or {})
        overrides["method"] = {**overrides.get("method", {}), **SUPERVISED_ONLY}
    settings = config.load(method, overrides, root)
    return Job(stage, partition, method, seed, Path(out), settings, root)
