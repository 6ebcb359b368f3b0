"""Rows of an ablation against each other, paired over seeds: differences, their intervals, and who leads beyond noise.

A difference is taken for each seed that both rows have, since runs of one seed begin alike; its interval is the 95 %
one of Student's t, and there is none where two rows share fewer than two seeds. Beside it stands what the seeds could
have found, and, where there are enough of them, a test. How far other test images would move it, `over_images` says.
No torch, no files.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special, stats

REFERENCE = "cps_cutmix"
"""The row that differences refer to."""

LEVEL = 0.95
"""Of the intervals."""

POWER = 0.8
"""With which a difference that is called detectable is found, at two-sided 1 - LEVEL."""

ENOUGH = 3
"""Seeds that a lead needs: the deviation of two can be 0 by chance."""

TESTED = 8
"""Seeds from which on there is a p value: of fewer, the interval says more."""

INTERVAL = ("difference", "difference_std", "difference_low", "difference_high")
OVER_IMAGES = ("miou_mean", "image_se", "difference", "difference_image_se")
GROUP = ["name", "partition", "method"]
Group = tuple[str, str, str]
Rows = dict[Group, pd.DataFrame]


def paired_interval(differences: pd.Series) -> dict[str, float]:
    """Describe differences that are paired over seeds.

    Args:
        differences: one a seed; NaN ones do not count.

    Returns:
        difference (mean), difference_std, difference_low and difference_high (95 % interval of
        Student's t for the mean); all NaN where there are fewer than two.
    """
    values = differences.dropna()
    if len(values) < 2:
        return dict.fromkeys(INTERVAL, math.nan)
    mean, deviation = float(values.mean()), float(values.std())
    low, high = mean, mean
    if deviation:  # or else t is 0/0 or infinite, and the interval of scipy is NaN
        low, high = stats.ttest_1samp(values, 0).confidence_interval(LEVEL)  # as `ttest_rel` of the two rows
    return dict(zip(INTERVAL, (mean, deviation, float(low), float(high)), strict=True))


def p_value(differences: pd.Series) -> float:
    """Return the p of a paired t-test, two-sided, 0..1; NaN of fewer than `TESTED` differences."""
    values = differences.dropna()
    if len(values) < TESTED:
        return math.nan
    if not values.std():  # or else t is 0/0 or infinite
        return 0.0 if values.any() else 1.0
    return float(stats.ttest_1samp(values, 0).pvalue)


def holm(p_values: pd.Series) -> pd.Series:
    """Return p values as Holm corrects them for their number (Scandinavian Journal of Statistics 6, 1979).

    Args:
        p_values: of one family; NaN ones do not count, and stay.
    """
    known = p_values.dropna().sort_values()
    return (known * np.arange(len(known), 0, -1)).cummax().clip(upper=1).reindex(p_values.index)


def detectable(deviation: float, n: int) -> float:
    """Return the least true difference that a paired t-test of this design finds with `POWER`.

    Args:
        deviation: of the differences; the result has its unit.
        n: differences, at least two.
    """
    least = stats.t.isf((1 - LEVEL) / 2, n - 1)
    return float(deviation / math.sqrt(n) * special.nctdtrinc(n - 1, 1 - POWER, least))


def paired_differences(part: pd.DataFrame, other: pd.DataFrame, column: str) -> pd.Series:
    """Return the differences of a column, for each seed that both have."""
    return (part.set_index("seed")[column] - other.set_index("seed")[column]).dropna()


def by_row(runs: pd.DataFrame) -> Rows:
    """Return the runs of every name, partition and method, in their order."""
    groups = runs.groupby(GROUP, sort=False)
    return {(str(name), str(partition), str(method)): part for (name, partition, method), part in groups}


def _less_reference(group: Group, rows: Rows, column: str) -> pd.Series:
    """Return a row less cps_cutmix of the same name, else of another one, by seed; empty without such a row."""
    name, partition, method = group
    known = [key for key in rows if key[1:] == (partition, REFERENCE)]
    if method == REFERENCE or not known:
        return pd.Series(dtype=float)
    own = [key for key in known if key[0] == name]
    return paired_differences(rows[group], rows[(own or known)[0]], column)


def to_reference(group: Group, rows: Rows, column: str = "miou_mean") -> dict[str, float]:
    """Return what `paired_interval` says of a row and cps_cutmix: that of the same name, else of another one."""
    return paired_interval(_less_reference(group, rows, column))


def paired_tests(runs: pd.DataFrame) -> pd.DataFrame:
    """Test each row against cps_cutmix, in the order of `averages`.

    Returns:
        p_value; p_adjusted, as `holm` corrects it for the rows of the partition; detectable (points). NaN where there
        are too few seeds.
    """
    rows = by_row(runs)
    differences = {key: _less_reference(key, rows, "miou_mean") for key in rows}
    table = pd.DataFrame({"p_value": [p_value(values) for values in differences.values()]})
    adjusted = table["p_value"].groupby([partition for _, partition, _ in rows]).transform(holm)
    known = [detectable(v.std(), len(v)) if len(v) > 1 else math.nan for v in differences.values()]
    return table.assign(p_adjusted=adjusted, detectable=known)


def each_pair(runs: pd.DataFrame) -> pd.DataFrame:
    """Set each row against each that stands before it.

    Args:
        runs: of `collect.collect`, of one name.

    Returns:
        partition, method, other, n (seeds that both have), what `paired_interval` says of method less other (points of
        mIoU), p_value (not corrected; NaN of fewer than `TESTED` seeds).
    """
    table = []
    for (_, part), (_, other) in itertools.combinations(by_row(runs).items(), 2):
        names = [other["partition"].iloc[0], other["method"].iloc[0], part["method"].iloc[0]]
        if part["partition"].iloc[0] == names[0]:
            lead = paired_differences(other, part, "miou_mean")
            table.append([*names, len(lead), *paired_interval(lead).values(), p_value(lead)])
    return pd.DataFrame(table, columns=["partition", "method", "other", "n", *INTERVAL, "p_value"])


def significant_leaders(rows: Rows) -> set[Group]:
    """Return the rows that lead each competitor of their partition in `ENOUGH` seeds and beyond noise."""
    rivals = [key for key, part in rows.items() if part["labels"].iloc[0] == "partition" or key[1] == "all"]
    ahead = set()
    for key in rivals:
        others = [other for other in rivals if other[1] == key[1] and other != key]
        leads = [paired_differences(rows[key], rows[other], "miou_mean") for other in others]
        if leads and all(len(lead) >= ENOUGH and paired_interval(lead)["difference_low"] > 0 for lead in leads):
            ahead.add(key)
    return ahead


def averages(runs: pd.DataFrame) -> pd.DataFrame:
    """Average runs over seeds.

    Returns:
        name, partition, method, labels, n, miou_mean, miou_std, what `to_reference` says, best (`significant_leaders`).
    """
    rows = by_row(runs)
    leaders = significant_leaders(rows)
    means = {"miou_mean": ("miou_mean", "mean"), "miou_std": ("miou_mean", "std")}
    averaged = runs.groupby(GROUP, sort=False).agg(labels=("labels", "first"), n=("seed", "size"), **means)
    differences = pd.DataFrame([to_reference(key, rows) for key in rows], averaged.index)
    return averaged.join(differences).assign(best=[key in leaders for key in rows]).reset_index()


def over_images(runs: pd.DataFrame, replicates: pd.DataFrame) -> pd.DataFrame:
    """Say how far the mIoU of rows, and what they differ from cps_cutmix, would move with other test images.

    A standard error is the deviation over draws of test images, mean over seeds: that of one training. A difference is
    taken draw by draw, since all runs have the same draws.

    Args:
        runs: of `collect.collect`, of one name.
        replicates: of `collect.collect_table`, of bootstrap.

    Returns:
        partition, method, n (seeds), miou_mean, image_se, difference and difference_image_se (to cps_cutmix, over the
        seeds that both have; NaN where there are none); points of mIoU.
    """
    draws = {key: part["miou_mean"].to_numpy() for key, part in replicates.groupby([*GROUP[1:], "seed"])}
    rows, table = by_row(runs), []
    for group, part in rows.items():
        own = {seed: draws[group[1], group[2], seed] for seed in part["seed"]}
        reference = {seed: draws.get((group[1], REFERENCE, seed)) for seed in own if group[2] != REFERENCE}
        paired = [own[seed] - values for seed, values in reference.items() if values is not None]
        means = part["miou_mean"].mean(), _mean_deviation(own.values())
        differences = _less_reference(group, rows, "miou_mean").mean(), _mean_deviation(paired)
        table.append((*group[1:], len(own), *means, *differences))
    return pd.DataFrame(table, columns=[*GROUP[1:], "n", *OVER_IMAGES])


def _mean_deviation(each: Iterable[npt.NDArray[np.float64]]) -> float:
    """Return the mean over seeds of the deviation over draws; NaN where there are none."""
    deviations = [float(values.std(ddof=1)) for values in each]
    return float(np.mean(deviations)) if deviations else math.nan
