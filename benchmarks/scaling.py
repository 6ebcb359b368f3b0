"""A step of `rrn` on one process and on two, of one thread each, with the same global batch; settings of params.yaml.

    python benchmarks/run.py scaling

Each run is started by torchrun, in turns. Gradients go through gloo and memory here, through NCCL and a fabric on GPUs.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from measuring import Row, ratio, row
from training import TINY, random_batch, settings, without_data

from rrn.data.batches import Batch
from rrn.runtime import distributed

COUNTS = (1, 2)
ROUNDS, STEPS = 5, 20
FOUR = {"threads": 1, "batch": {"labeled": 4, "unlabeled": 4}}


def share(batch: Batch) -> Batch:
    """Return the images that this process has of a batch."""
    mine = slice(distributed.rank(), None, distributed.world())
    return replace(
        batch,
        images=batch.images[mine],
        labels=batch.labels[mine],
        unlabeled=(batch.unlabeled[0][mine], batch.unlabeled[1][mine]),
        unlabeled_valid=(batch.unlabeled_valid[0][mine], batch.unlabeled_valid[1][mine]),
        mix=batch.mix[mine],
    )


def seconds(processes: int, quick: bool) -> float:
    """Start a run and return the median seconds of its steps."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    arguments = [str(Path(__file__).resolve()), str(int(quick))]
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Be one of the processes; the first one prints the median seconds of a step."""
    quick = bool(int(sys.argv[1]))
    distributed.start(torch.device("cpu"))
    known = settings("rrn", TINY | FOUR if quick else {"threads": 1})
    learner, batch = without_data(known, 8), share(random_batch(known, 8))
    taken = []
    for step in range(3 if quick else STEPS):
        before = time.perf_counter()
        learner.step(batch, step)
        taken.append(time.perf_counter() - before)
    if distributed.rank() == 0:
        print(json.dumps(statistics.median(taken[1:])))
    distributed.stop()


def rows(quick: bool) -> list[Row]:
    """Measure seconds a step, and how many times faster two processes are."""
    found: dict[int, list[float]] = {count: [] for count in COUNTS}
    for turn in range(1 if quick else ROUNDS):
        for count in COUNTS[:: -1 if turn % 2 else 1]:
            found[count].append(seconds(count, quick))
    lines = [row(f"{count} processes", "a step of rrn", "s", taken) for count, taken in found.items()]
    return [*lines, ratio("2 processes", "speed, times that of 1", found[1], found[2])]


if __name__ == "__main__":
    main()
