"""Runs side by side: `dvc repro` takes one stage after the other, lanes take those that do not wait for each other.

Every stage of a lane is a call of dvc of its own, `dvc repro --single-item STAGE`, and dvc's locks keep dvc.lock and
its cache whole. Lanes only go ahead: `dvc repro` comes after them, runs what they left out, and says how it ended.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from rrn import config
from rrn.schema import Ablation

MOST = 4
"""Lanes that are used unasked: each holds a training in memory."""

GPUS = ("nvidiactl", "kfd", "dxg")
"""Files in /dev of the drivers of GPUs: NVIDIA's, AMD's, and both inside WSL."""


def fitting(settings: config.Settings, devices: Path = Path("/dev")) -> int:
    """Return how many trainings fit beside each other here: as many as processors allow, 1 where a GPU may be used.

    Args:
        settings: device, threads and nproc.
        devices: where the system lists its devices.
    """
    gpu = settings.device != "cpu" and any((devices / name).exists() for name in GPUS)
    if gpu or "RRN_LAUNCH" in os.environ:
        return 1
    processors = len(os.sched_getaffinity(0))
    return max(1, min(MOST, processors // ((settings.threads + settings.loading.workers) * settings.nproc)))


def order(lists: Ablation) -> dict[str, str | None]:
    """Return all stages that may stand side by side, each with the one of them that it waits for."""
    pairs = [f"{partition}-{seed}" for partition, seed in itertools.product(lists.partitions, lists.seeds)]
    waits: dict[str, str | None] = {f"warmup@{pair}": None for pair in pairs}
    runs = list(itertools.product(lists.partitions, lists.methods, lists.seeds))
    for partition, method, seed in runs:
        waits[f"train@{partition}-{method}-{seed}"] = f"warmup@{partition}-{seed}"
    for partition, method, seed in runs:
        waits[f"evaluate@{partition}-{method}-{seed}"] = f"train@{partition}-{method}-{seed}"
    return waits


def affected(waits: Mapping[str, str | None], changed: Collection[str]) -> list[str]:
    """Return the stages that have changed, and those that wait for one of them, in their order."""
    found: dict[str, None] = {}
    for stage, before in waits.items():
        if stage in changed or before in found:
            found[stage] = None
    return list(found)


def changed(command: list[str], root: Path) -> list[str]:
    """Return the stages that dvc would run now.

    Args:
        command: that starts dvc.
        root: the repository.

    Raises:
        subprocess.CalledProcessError: dvc failed; it has said why.
    """
    return list(_status(command, root))


def changed_outputs(command: list[str], root: Path, stage: str) -> list[Path]:
    """Return the outputs of a stage that are not as dvc.lock says."""
    about = _status(command, root, stage).get(stage, [])
    parts = [part["changed outs"] for part in about if "changed outs" in part]
    return [root / path for part in parts for path in part]


def _status(command: list[str], root: Path, *stages: str) -> dict[str, Any]:
    """Return stage -> what has changed, as dvc says it."""
    words = [*command, "status", "--json", *stages]
    shown = subprocess.run(words, cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(shown.stdout))


def run(stages: list[str], waits: Mapping[str, str | None], lanes: int, start: Callable[[str], int]) -> int:
    """Run stages side by side, each after the one that it waits for; after a failure begin no other.

    Args:
        stages: which, first come first served.
        waits: of `order`.
        lanes: how many at a time.
        start: runs a stage to its end and returns its exit status.

    Returns:
        0, or the first exit status that is not.
    """
    todo, running, status = list(stages), dict[Future[int], str](), 0
    with ThreadPoolExecutor(lanes) as pool:
        while running or (todo and not status):
            held = {*todo, *running.values()}
            ready = [stage for stage in todo if waits[stage] not in held] if not status else []
            for stage in ready[: lanes - len(running)]:
                todo.remove(stage)
                running[pool.submit(start, stage)] = stage
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                del running[future]
                status = status or future.result()
    return status


def reproduce(command: list[str], root: Path, stage: str) -> int:
    """Let dvc run one stage if it has changed, with its name before every line that it prints; return the exit status.

    Args:
        command: that starts dvc.
        root: the repository.
        stage: which.
    """
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    process = subprocess.Popen(
        [*command, "--wait-for-lock", "repro", "--single-item", stage],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
    )
    assert process.stdout is not None
    for line in filter(str.strip, process.stdout):
        print(f"{stage}: {line}", end="", flush=True)
    return process.wait()
