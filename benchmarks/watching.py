"""What TensorBoard costs a training: seconds inside of it beside those of all else, on the embedded data.

    python benchmarks/run.py watching

Scalars every `log.every` steps, pictures of four images every `log.evaluate`, as params.yaml has them. The import of
the package, once at the start, is not in it. Both are of one training: other work on the machine hits them alike.
"""

from __future__ import annotations

import time
from typing import Any
from unittest import mock

from gpu_repository import Repository, temporary
from measuring import Row, ratio, row

from rrn.training.tensorboard import TensorBoard

ROUNDS, NAME = 5, "rrn"
QUICK: dict[str, Any] = {"train": {"steps": 4, "lr_ramp": 1}, "log": {"every": 2, "evaluate": 2, "checkpoint": 4}}


def rows(quick: bool) -> list[Row]:
    """Train some seeds while TensorBoard watches."""
    changes = {"log": {"tensorboard": True}, "device": "cpu"}
    with temporary((NAME,), changes, None, quick) as repository:
        found = [measured(repository, seed, QUICK if quick else {}) for seed in range(1 if quick else ROUNDS)]
    watching, training = zip(*found, strict=True)
    return [
        row(NAME, "TensorBoard", "s", watching),
        row(NAME, "all else", "s", training),
        ratio(NAME, "TensorBoard / all else", watching, training),
    ]


def measured(repository: Repository, seed: int, changes: dict[str, Any]) -> tuple[float, float]:
    """Return seconds inside of TensorBoard and of all else of a training."""
    repository.skip_warmup(seed)
    plain, inside = TensorBoard.add, 0.0

    def timed(*arguments: Any) -> None:
        nonlocal inside
        begun = time.perf_counter()
        plain(*arguments)
        inside += time.perf_counter() - begun

    training = repository.training("train", NAME, seed, changes)
    begun = time.perf_counter()
    with mock.patch.object(TensorBoard, "add", timed):
        list(training.fit())
    return inside, time.perf_counter() - begun - inside
