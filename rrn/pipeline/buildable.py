"""Settings whose networks cannot be built are refused before any stage: a child process tries them. No torch here.

What was found to be buildable is remembered in `.scratch/built` (or RRN_SCRATCH/built), by all that it depends on: the
same settings are tried once. `rrn.training.trial` is what tries.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from rrn import config
from rrn.runtime import atomic_io, places

PACKAGES = ("torch", "timm", "segmentation-models-pytorch")
"""Which build the networks."""
CODE = Path(__file__).resolve().parents[2]
"""Where this package lies, for the child process that tries settings of another folder."""
TRIAL = [sys.executable, "-m", "rrn.training.trial"]
"""Tries settings that it reads from its input."""


class TrialError(RuntimeError):
    """Whether the networks can be built was not found out, for a reason that lies outside of the settings."""


def require(root: Path, settings: config.Settings) -> None:
    """Refuse settings whose networks cannot be built, or do not take images of the sizes that they will meet.

    Args:
        root: the repository.
        settings: all of them, no row laid on `method`.

    Raises:
        config.SettingsError: they cannot; names the setting and says what would do.
        TrialError: the child process ended without an answer.
        atomic_io.WriteError: there is no place for what is remembered.
    """
    built = identity(settings) | {"files": [_stamp(root, model.weights) for model in settings.model.both]}
    path = places.scratch(root / ".scratch") / "built" / f"{config.fingerprint(built)}.json"
    if path.is_file():
        return
    if refused := _tried(root, settings):
        raise config.SettingsError(refused)
    with atomic_io.explain_os_error(path, "let RRN_SCRATCH name a folder that has room and may be written"):
        atomic_io.write(path, json.dumps(built, indent=2) + "\n")


def require_or_note(root: Path, settings: config.Settings) -> None:
    """Refuse as `require`; where that is not found out, say so and go on.

    Raises:
        config.SettingsError, atomic_io.WriteError: as `require`.
    """
    try:
        require(root, settings)
    except TrialError as error:
        print(f"note: {error}", file=sys.stderr)


def identity(settings: config.Settings) -> dict[str, Any]:
    """Return all that decides whether networks can be built, as JSON holds it."""
    protocol = settings.evaluate.model_dump(mode="json", include={"mode", "window", "scales"})
    methods = (config.in_row(settings, row) for row in settings.ablation.methods)
    judges = [(row.grid, row.discriminator.model_dump(mode="json")) for row in methods if row.uses_discriminators]
    return {
        "model": settings.model.model_dump(mode="json"),
        "layer_decay": settings.optimizer.layer_decay,
        "speed": settings.speed.model_dump(mode="json", include={"compile", "checkpointing"}),
        "crop": settings.augment.crop,
        "size": settings.dataset.size,
        "evaluate": protocol,
        "discriminators": [judge for number, judge in enumerate(judges) if judge not in judges[:number]],
        "versions": {package: metadata.version(package) for package in PACKAGES},
    }


def _stamp(root: Path, weights: str | None) -> list[int] | None:
    """Return size and time of the file that weights are taken from, if they name one."""
    path = root / (weights or "").rpartition("@")[2]
    return [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else None


def _tried(root: Path, settings: config.Settings) -> str | None:
    """Let a child process try settings; return what is wrong with them, or None."""
    text = json.dumps({"params": settings.model_dump(mode="json"), "rows": settings.ablation.methods})
    own = {"PYTHONPATH": os.pathsep.join(filter(None, [str(CODE), os.environ.get("PYTHONPATH", "")]))}
    child = subprocess.run(
        TRIAL, cwd=root, env=os.environ | own, input=text, capture_output=True, text=True, check=False
    )
    if child.returncode == 0:
        refused: str | None = json.loads(child.stdout.splitlines()[-1])["refused"]
        return refused
    if child.returncode < 0:
        said = f"it was killed by signal {-child.returncode}, perhaps for lack of memory"
    else:
        said = (child.stderr.strip().splitlines() or [f"it ended with {child.returncode}"])[-1]
    raise TrialError(
        f"whether the networks of these settings can be built was not found out: `{' '.join(TRIAL[1:])}` gave no "
        f"answer ({said}); nothing is known to be wrong with the settings, and the warmup stage tries them again"
    )
