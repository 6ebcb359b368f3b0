"""Trials of settings that are no part of a row: one list of them, some seeds, and a CSV that grows.

    python -m rrn.repro warmup                # once, for the list speed
    python benchmarks/trials.py speed         # goes on where it stopped
    python -m rrn.preset lite0 photographs voc_animals dataset.path=DIR "ablation.seeds=[100]"
    python -m rrn.repro prepare               # once, for the lists rates and ramps
    python benchmarks/trials.py rates --jobs 2

A line of results/trials/LIST.csv is a trial and a seed: mIoU on val at the last step (mean of the two segmenters),
coverage and mean weight of the last rows, the AUROC of each score and the accuracy of what is kept by it, on val.
`speed` is what the options of `speed:`, and other discriminators, are worth (docs/performance.md): it chooses nothing,
and takes the seeds of the results. `rates`, and then `ramps` with what was chosen, are for the preset `photographs`:
with a seed that no result has, by rows without region relevance alone (docs/real.md).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pandas as pd

from rrn import config, train
from rrn.reliability.measures import EVERYTHING
from rrn.runtime import places

Trial = tuple[str, str, dict[str, Any]]
"""Name, row, and difference to the settings."""

MERGED = {"speed": {"merged": True}}
RELEASED = {"channels": [64, 128, 256, 512], "input_stride": 1, "sees_image": True, "dropout": 0.5}

SPEED: list[Trial] = [
    ("cps_cutmix", "cps_cutmix", {}),
    ("cps_cutmix, merged", "cps_cutmix", MERGED),
    ("rrn", "rrn", {}),
    ("rrn, merged", "rrn", MERGED),
    ("rrn, bf16", "rrn", {"precision": "bf16"}),
    ("rrn, 4 x 4 regions", "rrn", {"method": {"grid": 4}}),
    ("rrn, 4 x 4 regions, released trunk", "rrn", {"method": {"grid": 4, "discriminator": RELEASED}}),
]


OWN = {"warmup": "own"}
RATES: list[Trial] = [  # the last two were added when 0.005 with 10, then the lowest rate, was the best of four
    (f"supervised, rate {rate}, head x {head}", "supervised", {"optimizer": {"lr": rate, "head": head}, "method": OWN})
    for rate, head in [(0.02, 1.0), (0.005, 10.0), (0.01, 10.0), (0.02, 10.0), (0.0025, 10.0), (0.01, 1.0)]
]
RAMPS: list[Trial] = [
    (f"cps_cutmix, ramp of {steps} steps", "cps_cutmix", {"method": OWN | {"lambda_u_ramp": steps}})
    for steps in (0, 1000)
]

LISTS: dict[str, tuple[list[Trial], tuple[int, ...]]] = {
    "speed": (SPEED, (0, 1, 2)),
    "rates": (RATES, (100,)),
    "ramps": (RAMPS, (100,)),
}
"""Trials and their seeds."""


def trial(partition: str, row: str, difference: dict[str, Any], seed: int, scratch: Path) -> dict[str, float]:
    """Train once, with a place for interrupted runs of its own, and return what it reached on val."""
    os.environ["RRN_SCRATCH"] = str(scratch)
    with tempfile.TemporaryDirectory() as folder:
        *_, last = train.run("train", partition, row, seed, Path(folder), difference)
        found = {"miou_mean": last["miou_mean"], "coverage": last.get("coverage"), "weight": last.get("weight")}
        scores = pd.read_csv(Path(folder) / "reliability.csv")
    scores = scores[(scores["split"] == "val") & (scores["step"] == last["step"]) & (scores["class"] == EVERYTHING)]
    for measure in ("auroc", "accuracy_kept"):
        found |= scores.groupby("score")[measure].mean().add_prefix(f"{measure}_").to_dict()
    return found


def main() -> None:
    """Run what the file does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", choices=LISTS)
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once (default: 1)")
    parser.add_argument("--out", type=Path, help="default: results/trials/LIST.csv")
    args = parser.parse_args()
    file = args.out or Path("results", "trials", f"{args.list}.csv")
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = pd.read_csv(file).to_dict("records") if file.exists() else []
    finished = {(line["trial"], line["seed"]) for line in lines}
    trials, seeds = LISTS[args.list]
    partition = config.load().ablation.partitions[0]
    order = {(name, seed): None for name, *_ in trials for seed in seeds}
    scratch = places.scratch(Path(".scratch").resolve()) / "trials" / args.list
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
        running = {
            pool.submit(trial, partition, row, difference, seed, scratch / f"{number}-{seed}"): {
                "trial": name,
                "seed": seed,
            }
            for number, (name, row, difference) in enumerate(trials)
            for seed in seeds
            if (name, seed) not in finished
        }
        for done in as_completed(running):
            lines.append(running[done] | done.result())
            lines.sort(key=lambda line: list(order).index((line["trial"], line["seed"])))
            pd.DataFrame(lines).to_csv(file, index=False, float_format="%.4f")
    table = pd.read_csv(file).pivot_table(index="trial", columns="seed", values="miou_mean", sort=False, margins=True)
    print(table.round(2).to_string())


if __name__ == "__main__":
    main()
