"""Repeat the step in which a loss or a gradient was not finite: `python -m rrn.replay FILE`.

FILE is what the failed run names: weights, statistics and optimizers as they were before that step, and which run and
step it was. Its images and draws depend on the step alone. Exit status 0: it goes wrong again; 1: it does not.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rrn import config
from rrn.data.decoding import DataError
from rrn.runs import job, resume
from rrn.runs.job import Job
from rrn.train import Training

SHOWN = 10
"""Parameters that are named."""


@dataclass(frozen=True)
class Replayed:
    """A step that was taken once more.

    Attributes:
        terms: losses and measures, by name.
        gradients: names of the parameters whose gradients are not finite.
        changed: what is not as it was then: settings, data, code.
    """

    terms: dict[str, float]
    gradients: tuple[str, ...]
    changed: tuple[str, ...]

    @property
    def wrong(self) -> bool:
        """Whether anything in it is not finite."""
        return bool(self.gradients) or not all(torch.tensor(list(self.terms.values())).isfinite())


def replay(path: Path) -> tuple[dict[str, Any], Replayed]:
    """Take the step once more, in one process.

    Args:
        path: of the file.

    Returns:
        What the file says (`run`, `step`, `said`, `images`), and what the step did now.

    Raises:
        DamagedError: it is no such file.
        SettingsError, DataError: what the run was made of is not here.
    """
    kept = resume.read(path)
    if "said" not in kept:
        raise resume.DamagedError(f"{path} is the state of a run between two steps, not that of a step that failed")
    job = _job(kept)
    training = Training(job)
    training.learner.load(kept["state"])
    batch = next(training.batches(kept["step"], kept["step"] + 1))
    terms = training.learner.step(batch.to(training.device), kept["step"])
    found = Replayed(
        {name: value.item() for name, value in terms.items()},
        tuple(n for n, p in training.model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()),
        tuple(resume.differences(kept["identity"], job.identity())),
    )
    return kept, found


def _job(kept: dict[str, Any]) -> Job:
    """Return the run that a file tells of, with the settings that it had, in one process."""
    root = config.find_root()
    now = job.job(**kept["run"], out=root / "scratch" / "replay", overrides={"nproc": 1})
    had = {**kept["identity"]["settings"], "nproc": 1}
    settings = config.Settings.model_validate(config.merge(now.settings.model_dump(), had))
    return replace(now, settings=settings)


def main(argv: list[str] | None = None) -> int:
    """Repeat a step and print what is not finite; return 0 if something is, 1 if nothing, 2 on a wrong file."""
    parser = argparse.ArgumentParser(prog="python -m rrn.replay", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="what a failed run has kept, failed-....pt")
    path = parser.parse_args(argv).file
    try:
        kept, found = replay(path)
    except (resume.DamagedError, config.SettingsError, DataError, resume.ResumeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"then: {kept['said']}")
    for name, images in kept["images"].items():
        print(f"  {name}: {', '.join(images)}")
    for change in found.changed:
        print(f"changed since: {change}")
    print(f"now, step {kept['step']}:")
    for name, value in found.terms.items():
        print(f"  {name}: {value:g}")
    for name in found.gradients[:SHOWN]:
        print(f"  gradient of {name}: not finite")
    if len(found.gradients) > SHOWN:
        print(f"  ... and of {len(found.gradients) - SHOWN} more parameters")
    print("it goes wrong again" if found.wrong else "all of it is finite now")
    return 0 if found.wrong else 1


if __name__ == "__main__":
    raise SystemExit(main())
