"""The table by which rows are chosen: what they reach on val, at the last step, and what their score knows. No torch.

The labels of test take no part in it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from rrn.paper.statistics import REFERENCE, averages, paired_interval
from rrn.paper.table_format import Table, bold, counts, deviating, difference, number
from rrn.reliability.measures import EVERYTHING

RIVAL = "probability"
"""The score of both networks, which costs nothing."""
LEARNED = "region_score"
SCORE_INTERVAL = ("auroc_difference", "auroc_std", "auroc_low", "auroc_high")


def validation(history: pd.DataFrame, reliability: pd.DataFrame) -> Table:
    """Set rows against cps_cutmix, and their region scores against the probability of both networks, on val.

    Args:
        history: of `rrn.paper.collect.collect_table`, of history.
        reliability: the same, of reliability, with a column class.

    Returns:
        the table `validation`. Numbers: name, partition, method, labels, n, miou_mean and miou_std (per cent, of the
        mean of both segmenters), difference, difference_std, difference_low, difference_high (to cps_cutmix, paired
        over seeds, NaN of fewer than two); near_best (its difference is below the largest one by at most the standard
        error of that; rows that read all labels do not compete); auroc_region_score (NaN without discriminators) and
        auroc_probability (within classes of pseudo-labels, 0..1), auroc_difference, auroc_std, auroc_low, auroc_high
        (of the two, paired over seeds).
    """
    runs = history[history["step"] == history["step"].max()].dropna(subset=["miou_mean"])
    numbers = averages(runs)
    known = pd.DataFrame([_known(reliability, row) for row in numbers.to_dict("records")])
    numbers = pd.concat([numbers.drop(columns="best").assign(near_best=_near_best(numbers)), known], axis=1)
    several = len(set(numbers["partition"])) > 1
    words = ["partition", "method"] if several else ["method"]
    rows = [[*(str(row[word]) for word in words), *_cells(row)] for row in numbers.to_dict("records")]
    header = ["n", "mIoU on val", "difference", "region score", "probability", "score difference"]
    caption = (
        "By this rows are chosen: mIoU on val at the last step in per cent, mean of the two segmenters; "
        f"{counts(numbers['n'])}, mean ± standard deviation over seeds; difference to {REFERENCE}, paired over seeds, "
        "with its 95 % interval (Student t); bold: no further below the best one than the standard error of that. "
        "AUROC of the row's region score and of the probability of both networks, within classes of pseudo-labels, and "
        "their difference, paired over seeds."
    )
    return Table("validation", numbers, [*words, *header], rows, len(words), caption)


def _cells(row: Mapping[Hashable, Any]) -> list[str]:
    """Return the cells of a row behind its words."""
    bounds = (row["difference"], row["difference_low"], row["difference_high"])
    score = (row["auroc_difference"], row["auroc_low"], row["auroc_high"])
    return [
        str(row["n"]),
        deviating(row["miou_mean"], row["miou_std"]),
        bold(difference(*bounds), row["near_best"]),
        *(number(row[f"auroc_{name}"], 3) for name in (LEARNED, RIVAL)),
        difference(*score, 3),
    ]


def _near_best(numbers: pd.DataFrame) -> pd.Series:
    """Say which rows are no further below the best of their partition than the standard error of its difference."""
    near = pd.Series(False, numbers.index)
    rivals = numbers[(numbers["labels"] == "partition") | (numbers["partition"] == "all")].dropna(subset=["difference"])
    for _, part in rivals.groupby("partition"):
        best = part.nlargest(1, "difference").iloc[0]
        near[part.index] = part["difference"] >= best["difference"] - best["difference_std"] / math.sqrt(best["n"])
    return near


def _known(reliability: pd.DataFrame, row: Mapping[Hashable, Any]) -> dict[str, float]:
    """Return what the region score and its rival know of the pseudo-labels of val in the runs of a row."""
    own = reliability[
        (reliability["partition"].astype(str) == row["partition"])
        & (reliability["method"] == row["method"])
        & (reliability["split"] == "val")
        & (reliability["class"] == EVERYTHING)
    ]
    last = own[own["step"] == own["step"].max()]
    by_seed = last.pivot_table(index="seed", columns="score", values="auroc_within").reindex(columns=[LEARNED, RIVAL])
    interval = paired_interval(by_seed[LEARNED] - by_seed[RIVAL])
    means = {f"auroc_{name}": float(by_seed[name].mean()) for name in (LEARNED, RIVAL)}
    return means | dict(zip(SCORE_INTERVAL, interval.values(), strict=True))
