"""What the options of `speed:`, and other discriminators, are worth in mIoU: some rows trained with other settings.

    python -m rrn.repro warmup             # once, on the defaults
    python benchmarks/trials.py trials.csv # goes on where it stopped

Adds a line to the CSV for each trial and seed: mIoU on val at the last step (mean of the two segmenters), coverage and
mean weight of the last rows, the AUROC of each score and the accuracy of what is kept by it, on val.
docs/performance.md says what was made of it. It chooses nothing, and takes the seeds of the results.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from rrn import train
from rrn.reliability.measures import EVERYTHING

SEEDS = (0, 1, 2)
MERGED = {"speed": {"merged": True}}
RELEASED = {"channels": [64, 128, 256, 512], "input_stride": 1, "sees_image": True, "dropout": 0.5}

TRIALS: list[tuple[str, str, dict[str, Any]]] = [
    ("cps_cutmix", "cps_cutmix", {}),
    ("cps_cutmix, merged", "cps_cutmix", MERGED),
    ("rrn", "rrn", {}),
    ("rrn, merged", "rrn", MERGED),
    ("rrn, bf16", "rrn", {"precision": "bf16"}),
    ("rrn, 4 x 4 regions", "rrn", {"method": {"grid": 4}}),
    ("rrn, 4 x 4 regions, released trunk", "rrn", {"method": {"grid": 4, "discriminator": RELEASED}}),
]
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
    parser.add_argument("file", type=Path)
    file = parser.parse_args().file
    lines = pd.read_csv(file).to_dict("records") if file.exists() else []
    finished = {(line["trial"], line["seed"]) for line in lines}
    for name, row, difference in TRIALS:
        for seed in SEEDS:
            if (name, seed) not in finished:
                lines.append({"trial": name, "seed": seed, **trial(row, difference, seed)})
                pd.DataFrame(lines).to_csv(file, index=False, float_format="%.4f")
    table = pd.read_csv(file).pivot_table(index="trial", columns="seed", values="miou_mean", sort=False, margins=True)
    print(table.round(2).to_string())


if __name__ == "__main__":
    main()
