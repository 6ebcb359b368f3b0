"""What a step of each row costs, paired: the rows take turns on the same batch, in one process.

    python benchmarks/steps.py --seed 0 --rounds 40       # needs the warmup of that seed: dvc repro warmup@1of16-0

Prints median seconds a step, and the median over rounds of the ratio to cps_cutmix with its quartiles. What the
discriminators cost is the ratio of local_filter; a share of the step is 1 - 1 / ratio.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import pandas as pd

from rrn import config, train

REFERENCE = "cps_cutmix"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partition", default="1of16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    rows = config.load().ablation.methods
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        jobs = {row: train.job("train", options.partition, row, options.seed, Path(folder)) for row in rows}
        runs = {row: train.Training(job) for row, job in jobs.items()}
        batches = {row: next(run._batches(0, 1)) for row, run in runs.items()}
        for step in range(options.rounds):
            taken = {}
            for row, run in runs.items():
                before = time.perf_counter()
                run.learner.step(batches[row].to(run.device), min(step, run.job.schedule.steps - 1))
                taken[row] = time.perf_counter() - before
            seconds.append(taken)
    table = pd.DataFrame(seconds).iloc[len(seconds) // 10 :]
    ratios = table.div(table[REFERENCE], axis=0).quantile([0.25, 0.5, 0.75]).T
    ratios.columns = ["ratio, lower quartile", "ratio", "upper quartile"]
    print(pd.concat([table.median().rename("seconds a step"), ratios], axis=1).round(3).to_string())


if __name__ == "__main__":
    main()
