"""What differences to a row are worth, each trained with several seeds and judged on val: how the defaults are chosen.

    python -m rrn.preset ablation.seeds='[100, 101]' && python -m rrn.repro warmup     # once; their warmups
    python benchmarks/trials.py filtering trials.csv                                   # goes on where it stopped

Adds a line to the CSV for each trial of a list and seed: mIoU on val at the last step (mean of the two segmenters),
coverage and mean weight of the last rows, the AUROC of each score and the accuracy of what is kept by it, on val.
docs/choices.md, docs/filtering.md and, of the list `speed`, docs/performance.md say what was made of it. `speed`
chooses nothing and takes the seeds of the results: `python -m rrn.repro warmup` on the defaults is all that it needs.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from rrn import train
from rrn.reliability.measures import EVERYTHING

SEEDS = {"choices": (100, 101), "filtering": (100, 101), "speed": (0, 1, 2)}
"""Of each list; those that a choice is made with are none that a result reports."""

Trial = tuple[str, str, dict[str, Any]]
THREE_QUARTERS = {"filter": {"fraction": 0.75}}
BLIND = {"discriminator": {"sees_image": False}}
FINE = {"grid": 8}
MERGED = {"speed": {"merged": True}}
RELEASED = {"channels": [64, 128, 256, 512], "input_stride": 1, "sees_image": True, "dropout": 0.5}

METHODS: dict[str, list[Trial]] = {
    "choices": [
        ("supervised", "supervised", {}),
        ("cps_cutmix", "cps_cutmix", {}),
        ("cps_cutmix, lambda_u ramp over half", "cps_cutmix", {"lambda_u_ramp": 60}),
        ("cps_cutmix, lambda_u 0.5", "cps_cutmix", {"lambda_u": 0.5}),
        ("random_filter, 3/4", "random_filter", THREE_QUARTERS),
        ("confidence_filter, 3/4", "confidence_filter", THREE_QUARTERS),
        ("local_filter, 3/4", "local_filter", THREE_QUARTERS),
        ("local_filter, 3/4, from half of the steps", "local_filter", {"filter": {"fraction": 0.75, "start": 60}}),
        ("local_filter, 9/10", "local_filter", {}),
        ("rrn, 3/4, agreement", "rrn", THREE_QUARTERS),
        ("rrn, 9/10, agreement", "rrn", {}),
        ("rrn, all, agreement", "rrn", {"filter": {"fraction": 1.0}}),
        ("rrn, 9/10, product", "rrn", {"rho": "product"}),
        ("rrn, all, product", "rrn", {"filter": {"fraction": 1.0}, "rho": "product"}),
        ("rrn, 9/10, divergence", "rrn", {"rho": "divergence"}),
    ],
    "filtering": [
        *((row, row, {}) for row in ("cps_cutmix", "random_filter", "confidence_filter", "local_filter", "rrn")),
        ("local_filter, without the image", "local_filter", BLIND),
        ("rrn, without the image", "rrn", BLIND),
        ("confidence_filter, 8 x 8 regions", "confidence_filter", FINE),
        ("local_filter, without the image, 8 x 8 regions", "local_filter", BLIND | FINE),
        ("rrn, without the image, 8 x 8 regions", "rrn", BLIND | FINE),
    ],
}
"""Name, row, and difference of the row; each list was written before the first of its rows was run."""

LISTS: dict[str, list[Trial]] = {
    **{name: [(trial, row, {"method": method}) for trial, row, method in rows] for name, rows in METHODS.items()},
    "speed": [
        ("cps_cutmix", "cps_cutmix", {}),
        ("cps_cutmix, merged", "cps_cutmix", MERGED),
        ("rrn", "rrn", {}),
        ("rrn, merged", "rrn", MERGED),
        ("rrn, bf16", "rrn", {"precision": "bf16"}),
        ("rrn, 4 x 4 regions", "rrn", {"method": {"grid": 4}}),
        ("rrn, 4 x 4 regions, released trunk", "rrn", {"method": {"grid": 4, "discriminator": RELEASED}}),
    ],
}
"""Name, row, and difference to the settings."""


def trial(row: str, difference: dict[str, Any], seed: int) -> dict[str, float]:
    """Train once and return what it reached on val."""
    with tempfile.TemporaryDirectory() as folder:
        *_, last = train.run("train", "1of16", row, seed, Path(folder), difference)
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
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    file = options.file
    lines = pd.read_csv(file).to_dict("records") if file.exists() else []
    finished = {(line["trial"], line["seed"]) for line in lines}
    for name, row, difference in LISTS[options.list]:
        for seed in SEEDS[options.list]:
            if (name, seed) not in finished:
                lines.append({"trial": name, "seed": seed, **trial(row, difference, seed)})
                pd.DataFrame(lines).to_csv(file, index=False, float_format="%.4f")
    table = pd.read_csv(file).pivot_table(index="trial", columns="seed", values="miou_mean", sort=False, margins=True)
    print(table.round(2).to_string())


if __name__ == "__main__":
    main()
