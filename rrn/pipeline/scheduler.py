"""Runs side by side, in lanes: `dvc repro` takes one stage after the other, and a training uses one processor.

To run several stages at once in one workspace is a known limitation of DVC (issue 5795 of iterative/dvc), and its queue
runs whole experiments, each in a copy. So each stage is a call of its own here, `dvc repro --single-item STAGE`, and
DVC's locks keep dvc.lock and its cache whole. Lanes only go ahead: `dvc repro` comes after them, runs what they left
out, and says how it ended.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from rrn import config
from rrn.pipeline.progress import StageReport
from rrn.settings.schema import Ablation

MOST = 4
"""Lanes that are used unasked: each holds a training in memory."""
GPUS = ("nvidiactl", "kfd", "dxg")
"""Files in /dev of the drivers of GPUs: NVIDIA's, AMD's, and both inside WSL."""


def fitting(settings: config.Settings, devices: Path = Path("/dev")) -> int:
    """Return how many trainings fit beside each other: as many as processors allow, 1 where a GPU may be used."""
    gpu = settings.device != "cpu" and any((devices / name).exists() for name in GPUS)
    if gpu or "RRN_LAUNCH" in os.environ:
        return 1
    processors = len(os.sched_getaffinity(0))
    return max(1, min(MOST, processors // ((settings.threads + settings.loading.workers) * settings.nproc)))


def order(lists: Ablation) -> dict[str, str | None]:
    """Return all stages that may stand side by side, each with the one of them that it waits for."""
    pairs = [f"{partition}-{seed}" for partition, seed in itertools.product(lists.partitions, lists.seeds)]
    runs = list(itertools.product(lists.partitions, lists.methods, lists.seeds))
    waits: dict[str, str | None] = {f"warmup@{pair}": None for pair in pairs}
    waits |= {f"train@{part}-{row}-{seed}": f"warmup@{part}-{seed}" for part, row, seed in runs}
    waits |= {f"evaluate@{'-'.join(map(str, run))}": f"train@{'-'.join(map(str, run))}" for run in runs}
    return waits


def affected(waits: Mapping[str, str | None], changed: Collection[str]) -> list[str]:
    """Return the stages that have changed, and those that wait for one of them, in their order."""
    found: dict[str, None] = {}
    for stage, before in waits.items():
        if stage in changed or before in found:
            found[stage] = None
    return list(found)


def stages_for(waits: Mapping[str, str | None], stages: Iterable[str]) -> set[str]:
    """Return stages and all that they wait for."""
    found: set[str] = set()
    for stage in stages:
        before: str | None = stage
        while before and before not in found:
            found.add(before)
            before = waits[before]
    return found


def changed(command: list[str], root: Path, *stages: str) -> dict[str, Any]:
    """Return the stages that dvc would run now, and what has changed of each as dvc says it.

    Raises:
        subprocess.CalledProcessError: dvc, which `command` starts, failed; it has said why.
    """
    words = [*command, "status", "--json", *stages]
    shown = subprocess.run(words, cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(shown.stdout))


def run_stages(stages: list[str], waits: Mapping[str, str | None], lanes: int, start: Callable[[str], int]) -> int:
    """Run stages side by side, each after the one that it waits for; after a failure begin no other.

    What a finished stage has made ready comes first, so that a run is evaluated before another is trained: where a long
    study is stopped, the runs that it has trained are finished ones.

    Args:
        stages: which.
        waits: of `order`.
        lanes: how many at a time.
        start: runs a stage to its end and returns its exit status.

    Returns:
        0, or the first exit status that is not.
    """
    graph = TopologicalSorter({stage: [before for before in (waits[stage],) if before in stages] for stage in stages})
    graph.prepare()
    ready, running, status = list(graph.get_ready()), dict[Future[int], str](), 0
    with ThreadPoolExecutor(lanes) as pool:
        while running or (ready and not status):
            while ready and not status and len(running) < lanes:
                stage = ready.pop(0)
                running[pool.submit(start, stage)] = stage
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                graph.done(running.pop(future))
                status = status or future.result()
            ready = [*graph.get_ready(), *ready]
    return status


def reproduce(command: list[str], root: Path, stage: str, report: StageReport) -> int:
    """Let dvc run a stage if it has changed, and report every line that it prints; return the exit status."""
    process = subprocess.Popen(
        [*command, "--wait-for-lock", "repro", "--single-item", stage],
        cwd=root,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
    )
    assert process.stdout is not None
    for line in filter(str.strip, process.stdout):
        report.line(stage, line)
    status = process.wait()
    report.ended()
    return status
