"""What docs/filtering.md says of finished studies, in numbers: reads results/NAME, which git holds.

    python benchmarks/filtering.py shapes+controls camvid          # studies of the same data joined by +

Prints: what each score is worth at the last step, mean ± deviation over seeds; by how much the region score leads its
rivals, paired over seeds, with 95 % intervals; AUROC on val by step, and in how many seeds the region score leads; and
whether what is kept explains what is gained: for every row that filters, at the same seed, how much more right its kept
pixels are than those of random_filter, and how much higher its mIoU.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

from rrn import config
from rrn.paper.statistics import paired_interval
from rrn.reliability.measures import MEASURES

RANDOM = "random_filter"
RIVALS = ("confidence", "probability", "agreement")
"""Scores that cost nothing, as far as a study has them."""


def study(folder: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the scores of a study, each with the mIoU of its run, and by which score each row filters."""
    runs = pd.read_csv(folder / "runs.csv")[["partition", "method", "seed", "miou_mean"]]
    scores = pd.read_csv(folder / "scores.csv").merge(runs, on=["partition", "method", "seed"])
    params = json.loads((folder / "settings.json").read_text())["params"]
    usual = params["method"]["filter"]["by"]
    return scores, {row: values.get("filter", {}).get("by", usual) for row, values in params["methods"].items()}


def last(scores: pd.DataFrame) -> pd.DataFrame:
    """Return what each score is worth at the last step: mean ± deviation over seeds."""
    rows = scores[scores["step"] == scores["step"].max()]
    grouped = rows.groupby(["method", "split", "score"], sort=False)[[name for name in MEASURES if name in rows]]
    mean, deviation = (part.round(3).astype(str) for part in (grouped.mean(), grouped.std()))
    return mean + " ± " + deviation


def leads(scores: pd.DataFrame) -> pd.DataFrame:
    """Return what the region score has more than its rivals at the last step: AUROC, and how right the kept are."""
    rows = scores[scores["step"] == scores["step"].max()]
    found = []
    for measure in ("auroc", "accuracy_kept"):
        table = rows.pivot_table(index=["method", "split", "seed"], columns="score", values=measure, sort=False)
        for rival in (name for name in RIVALS if name in table):
            differences = (table["region_score"] - table[rival]).dropna()
            for (method, split), part in differences.groupby(["method", "split"], sort=False):
                found.append(
                    {"method": method, "split": split, "measure": measure, "rival": rival} | paired_interval(part)
                )
    return pd.DataFrame(found).set_index(["method", "split", "measure", "rival"]).round(4)


def by_step(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the AUROC on val by step, mean over seeds, and in how many seeds the region score leads a rival."""
    val = scores[scores["split"] == "val"]
    table = val.pivot_table(index=["method", "seed", "step"], columns="score", values="auroc", sort=False)
    table = table.dropna(subset="region_score")
    steps = table.groupby(["method", "step"], sort=False)
    ahead = {
        f"ahead of {rival}": (table["region_score"] > table[rival]).groupby(["method", "step"], sort=False).sum()
        for rival in RIVALS
        if rival in table
    }
    return steps.mean().round(3).assign(**ahead)


def explained(scores: pd.DataFrame, rules: dict[str, str]) -> pd.DataFrame:
    """Return the gains of each row and seed over random_filter: right pixels among the kept (unlabeled), and mIoU."""
    final = scores[(scores["split"] == "unlabeled") & (scores["step"] == scores["step"].max())]
    rows = []
    for (method, seed), part in final.groupby(["method", "seed"], sort=False):
        own = part[part["score"] == rules[method]]
        kept = part["accuracy"].iloc[0] if own.empty else own["accuracy_kept"].iloc[0]
        if rules[method] != "none":
            rows.append({"method": method, "seed": seed, "kept": 100 * kept, "miou": part["miou_mean"].iloc[0]})
    table = pd.DataFrame(rows).set_index(["seed", "method"])
    chance = table.xs(RANDOM, level="method")
    gains = table.sub(chance.reindex(table.index.get_level_values("seed")).to_numpy())
    return gains.drop(index=RANDOM, level="method").dropna()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", help="names in results/, those of the same data joined by +")
    results = config.find_root() / "results"
    pd.set_option("display.width", 220, "display.max_columns", None, "display.max_rows", None)
    for names in parser.parse_args().studies:
        parts = [study(results / name) for name in names.split("+")]
        scores = pd.concat([part for part, _ in parts])
        rules = {row: by for _, found in parts for row, by in found.items()}
        print(f"\n==== {names}\n\n{last(scores).to_string()}\n\n{leads(scores).to_string()}")
        print(f"\n{by_step(scores).to_string()}")
        if RANDOM in set(scores["method"]):
            gains = explained(scores, rules)
            print(f"\n{gains.groupby('method', sort=False).agg(['mean', 'std']).round(2).to_string()}")
            each = {row: paired_interval(part) for row, part in gains["miou"].groupby("method", sort=False)}
            print(f"\nmIoU more than {RANDOM}\n{pd.DataFrame(each).T.round(2).to_string()}")
            inner = gains - gains.groupby("seed").transform("mean")
            over, within = (part["kept"].corr(part["miou"]) for part in (gains, inner))
            print(f"\ncorrelation of the two gains over {len(gains)} runs: {over:.2f}; within seeds: {within:.2f}")


if __name__ == "__main__":
    main()
