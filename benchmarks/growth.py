"""How a step of `rrn` grows with crop, batch, classes and region grid, one at a time, in turns.

    python benchmarks/run.py growth

The standard is that of rivals.py: crop 256, batch 2, 21 classes, 8 x 8 regions. Batch is the number of labeled images
and of each unlabeled half.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from measuring import Row, alternating, ratio, row
from training import CLASSES, FULL, TINY, ours, settings

ROUNDS = 3
STANDARD = "standard"
VALUES: dict[str, tuple[int, ...]] = {
    "crop": (128, 384, 512),
    "batch": (4, 8),
    "classes": (2, 150),
    "grid": (2, 4, 16),
}
QUICK: dict[str, tuple[int, ...]] = {"crop": (64,), "batch": (3,), "classes": (3,), "grid": (4,)}


def changes(kind: str, value: int) -> dict[str, Any]:
    """Return the changes of settings that make one thing larger or smaller."""
    return {
        "crop": {"augment": {"crop": value}},
        "batch": {"batch": {"labeled": value, "unlabeled": value}},
        "classes": {},
        "grid": {"method": {"grid": value}},
    }[kind]


def cases(quick: bool) -> dict[str, Callable[[], object]]:
    """Return the steps: the standard one, and one for each value."""
    size, values = (TINY, QUICK) if quick else (FULL, VALUES)
    steps = {STANDARD: ours(settings("rrn", size))}
    for kind, several in values.items():
        for value in several:
            classes = value if kind == "classes" else CLASSES
            steps[f"{kind} {value}"] = ours(settings("rrn", size, changes(kind, value)), classes)
    return steps


def rows(quick: bool) -> list[Row]:
    """Measure seconds a step, and multiples of the standard one."""
    seconds = alternating(cases(quick), rounds=2 if quick else ROUNDS)
    found = [row(name, "a step of rrn", "s", taken) for name, taken in seconds.items()]
    return found + [ratio(name, "times the standard", taken, seconds[STANDARD]) for name, taken in seconds.items()]
