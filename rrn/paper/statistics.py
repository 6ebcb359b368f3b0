"""Rows of an ablation against each other, paired over seeds: differences, their intervals, and who leads beyond noise.

A difference is taken for each seed that both rows have, since runs of one seed begin alike; its interval is the 95 %
one of Student's t, and there is none where two rows share fewer than two seeds. No torch, no files.
"""

from __future__ import annotations

import math

import pandas as pd
from scipy import stats

REFERENCE = "cps_cutmix"
"""The row that differences refer to."""

LEVEL = 0.95
"""Of the intervals."""

ENOUGH = 3
"""Seeds that a lead needs: the deviation of two can be 0 by chance."""

GROUP = ["name", "partition", "method"]
Group = tuple[str, str, str]
Rows = dict[Group, pd.DataFrame]


def paired(differences: pd.Series) -> dict[str, float]:
    """Describe differences that are paired over seeds.

    Args:
        differences: one a seed; NaN ones do not count.

    Returns:
        difference (mean), difference_std, difference_low and difference_high (95 % interval of
        Student's t for the mean); all NaN where there are fewer than two.
    """
    values = differences.dropna()
    if len(values) < 2:
        return dict.fromkeys(("difference", "difference_std", "difference_low", "difference_high"), math.nan)
    mean, deviation = float(values.mean()), float(values.std())
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    return {
        "difference": mean,
        "difference_std": deviation,
        "difference_low": mean - half,
        "difference_high": mean + half,
    }


def minus(part: pd.DataFrame, other: pd.DataFrame, column: str) -> pd.Series:
    """Return the differences of a column, for each seed that both have."""
    return (part.set_index("seed")[column] - other.set_index("seed")[column]).dropna()


def by_row(runs: pd.DataFrame) -> Rows:
    """Return the runs of every name, partition and method, in their order."""
    groups = runs.groupby(GROUP, sort=False)
    return {(str(name), str(partition), str(method)): part for (name, partition, method), part in groups}


def to_reference(group: Group, rows: Rows, column: str = "miou_mean") -> dict[str, float]:
    """Return what `paired` says of a row and cps_cutmix: that of the same name, else of another one."""
    name, partition, method = group
    if method == REFERENCE:
        return paired(pd.Series(dtype=float))
    known = [key for key in rows if key[1:] == (partition, REFERENCE)]
    own = [key for key in known if key[0] == name]
    return paired(minus(rows[group], rows[(own or known)[0]], column) if known else pd.Series(dtype=float))


def leading(rows: Rows) -> set[Group]:
    """Return the rows that lead each competitor of their partition in `ENOUGH` seeds and beyond noise."""
    rivals = [key for key, part in rows.items() if part["labels"].iloc[0] == "partition" or key[1] == "all"]
    ahead = set()
    for key in rivals:
        others = [other for other in rivals if other[1] == key[1] and other != key]
        leads = [minus(rows[key], rows[other], "miou_mean") for other in others]
        if leads and all(len(lead) >= ENOUGH and paired(lead)["difference_low"] > 0 for lead in leads):
            ahead.add(key)
    return ahead


def averages(runs: pd.DataFrame) -> pd.DataFrame:
    """Average runs over seeds: name, partition, method, labels, n, miou_mean, miou_std, best."""
    found = by_row(runs)
    ahead = leading(found)
    rows = [
        {
            **dict(zip(GROUP, key, strict=True)),
            **{"labels": part["labels"].iloc[0], "n": len(part)},
            **{"miou_mean": part["miou_mean"].mean(), "miou_std": part["miou_mean"].std()},
            "best": key in ahead,
        }
        for key, part in found.items()
    ]
    return pd.DataFrame(rows)
