"""The tables of the paper: DataFrames of `collect` in, `table_format.Table` out. No torch, no files.

Every IoU is in per cent; a deviation is that of the sample, over seeds. A difference is paired over
the seeds that both rows have, with a 95 % interval of Student's t; it is left empty where they share
fewer than two. Nothing is bold that is within noise: bold is a row whose lead over each competitor
has an interval that excludes 0. Rows that read all labels of a smaller partition do not compete.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from rrn import config
from rrn.paper.statistics import ENOUGH, GROUP, REFERENCE, averages, by_row, to_reference
from rrn.paper.table_format import Table, bold, counts, deviating, difference, number
from rrn.reliability.measures import EVERYTHING

COST = ["parameters", "macs"]
DIFFERENCE = ["difference", "difference_low", "difference_high"]


# ---- (b) the ablation


def ablation(runs: pd.DataFrame, images: str = "test") -> Table:
    """Average the runs over seeds, one row per name, partition and method, in their order.

    Args:
        runs: of `collect.collect`.
        images: the split that was evaluated.

    Returns:
        the table `ablation`. Numbers: name, partition, method, labels, n, miou_mean and miou_std (of
        the mean of the two segmenters), miou_ensemble, ensemble_std, difference, difference_std,
        difference_low, difference_high (to cps_cutmix), parameters, macs, best (it is bold).
    """
    parts = by_row(runs)
    more = [
        {
            **{"miou_ensemble": part["miou_ensemble"].mean(), "ensemble_std": part["miou_ensemble"].std()},
            **to_reference(key, parts),
            **{column: int(part[column].iloc[0]) for column in COST},
        }
        for key, part in parts.items()
    ]
    numbers = _averaged(runs, more)
    words = _words(numbers)
    rows = [
        [
            *[str(row[word]) for word in words],
            str(row["n"]),
            bold(deviating(row["miou_mean"], row["miou_std"]), row["best"]),
            deviating(row["miou_ensemble"], row["ensemble_std"]),
            difference(*(row[column] for column in DIFFERENCE)),
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['macs'] / 1e9:.3f} G",
        ]
        for row in numbers.to_dict("records")
    ]
    header = [*words, "n", "mIoU", "ensemble", "difference", "parameters", "MACs"]
    return Table("ablation", numbers, header, rows, len(words), _ablation_caption(numbers, images))


def _averaged(runs: pd.DataFrame, more: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the averages of the rows with more columns, before the last one, which says what is bold."""
    averaged = averages(runs)
    return pd.concat([averaged.drop(columns="best"), pd.DataFrame(more), averaged["best"]], axis=1)


def _several(column: pd.Series) -> bool:
    """Return whether a column holds more than one value."""
    return len(set(column)) > 1


def _words(numbers: pd.DataFrame) -> list[str]:
    """Return the columns that say which row it is: the name only where there are several."""
    return GROUP if _several(numbers["name"]) else GROUP[1:]


def _ablation_caption(numbers: pd.DataFrame, images: str) -> str:
    """Say what the numbers of `ablation` are."""
    text = f"mIoU on {images} in per cent: mean of the two segmenters, and their ensemble; {counts(numbers['n'])}"
    return f"{text}{_of_seeds(numbers)}"


def _of_seeds(numbers: pd.DataFrame) -> str:
    """Say how deviations, differences and bold numbers come about; or that one seed gives none."""
    if numbers["n"].max() < 2:
        return ", so no deviation and no ranking."
    parts = [", mean ± standard deviation over seeds"]
    if "difference" in numbers and numbers["difference"].notna().any():
        parts.append(f"difference to {REFERENCE}, paired over seeds, with its 95 % interval (Student t)")
    parts.append(
        f"bold: its lead over all rows but upper bounds, paired over {ENOUGH} seeds or more, has an interval above 0"
        if numbers["best"].any()
        else "no row leads every other one by more than noise (paired 95 % intervals), so none is bold"
    )
    return "; ".join(parts) + "."


# ---- (a) partitions x methods


def partitions(runs: pd.DataFrame, images: str = "test", quoted: pd.DataFrame | None = None) -> Table | None:
    """Set methods against partitions.

    Args:
        runs: of `collect.collect`.
        images: the split that was evaluated.
        quoted: of `collect.quoted`: numbers of papers under the same protocol, marked with a dagger.

    Returns:
        the table `partitions`, or None where one partition was run. Numbers: name, partition, method, labels, n,
        miou_mean, miou_std, difference, difference_std, difference_low, difference_high (to cps_cutmix of the same
        partition), best, epoch, source; the last two of quoted ones only.
    """
    columns = list(dict.fromkeys(runs["partition"].astype(str)))
    if len(columns) < 2:
        return None
    parts = by_row(runs)
    averaged = _averaged(runs, [to_reference(key, parts) for key in parts])
    words = [word for word in _words(averaged) if word != "partition"]
    varying, against = _several(averaged["n"]), averaged["difference"].notna().any()
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for row in averaged.to_dict("records"):
        text = bold(deviating(row["miou_mean"], row["miou_std"]), row["best"])
        place = cells.setdefault(tuple(str(row[word]) for word in words), {})
        place[row["partition"]] = f"{text} ({row['n']})" if varying else text
        place[f"{row['partition']} difference"] = difference(*(row[column] for column in DIFFERENCE))
    beside = pd.DataFrame() if quoted is None else quoted[quoted["partition"].isin(columns)]
    for row in beside.to_dict("records"):
        name = f"{row['method']}†" if row["epoch"] == "unknown" else f"{row['method']}† ({row['epoch']} epoch)"
        key = ("quoted", name) if len(words) == 2 else (name,)
        cells.setdefault(key, {})[row["partition"]] = number(row["miou"])
    header = [name for column in columns for name in (column, f"{column} difference")] if against else columns
    rows = [[*key, *[places.get(column, "") for column in header]] for key, places in cells.items()]
    numbers = averaged.assign(epoch="", source="")
    if len(beside):
        kept = beside[["partition", "method", "miou", "epoch", "source"]].rename(columns={"miou": "miou_mean"})
        numbers = pd.concat([numbers, kept.assign(name="quoted", best=False)], ignore_index=True)
    caption = _partitions_caption(averaged, images, beside)
    return Table("partitions", numbers, [*words, *header], rows, len(words), caption)


def _partitions_caption(averaged: pd.DataFrame, images: str, beside: pd.DataFrame) -> str:
    """Say what the numbers of `partitions` are, and where quoted ones come from."""
    place = " in brackets" if _several(averaged["n"]) else ""
    text = f"mIoU on {images} in per cent for each share of labeled images: mean of the two segmenters; "
    text += f"{counts(averaged['n'])}{place}{_of_seeds(averaged)}"
    if beside.empty:
        return text
    sources = [
        f"{method}: {row['backbone']}, crop {row['crop']}, lists {row['lists']}, {row['epoch']} epoch, {row['source']}"
        for method, part in beside.groupby("method", sort=False)
        for row in part.drop_duplicates(["epoch", "source"]).to_dict("records")
    ]
    return f"{text} † quoted, not measured here: {'; '.join(sources)}."


# ---- (c), (d), (e) variants of the method


def variants(runs: pd.DataFrame, settings: config.Settings, history: pd.DataFrame, reliability: pd.DataFrame) -> Table:
    """Set what differs between the rows of a study against what they keep, know and reach.

    Args:
        runs: of `collect.collect`.
        settings: those of the study, without a row laid on `method`.
        history: of `collect.collect_curves`, of history.csv.
        reliability: of `collect.collect_curves`, of reliability.csv.

    Returns:
        the table `variants`. Numbers: name, partition, method, a column for each setting of `method`
        that two rows have in effect and differ in, n, coverage and weight (mean of the last quarter
        of training, 0..1), auroc_region_score and auroc_confidence (val, last step), accuracy_kept
        (val, last step, by the score that the row filters by; at random as right as everything; NaN
        of a row without filter; 0..1), miou_mean, miou_std, difference, difference_std, difference_low,
        difference_high, best.
    """
    changing = differing(settings)
    parts = by_row(runs)
    averaged = averages(runs)
    rows = []
    for row in averaged[averaged["name"] == settings.name].to_dict("records"):
        key = (row["name"], row["partition"], row["method"])
        rows.append(
            {
                **{word: row[word] for word in GROUP},
                **changing[row["method"]],
                "n": row["n"],
                **_kept(history[_is(history, row)]),
                **_known(reliability[_is(reliability, row)], settings, row["method"]),
                **{column: row[column] for column in ("miou_mean", "miou_std")},
                **to_reference(key, parts),
                "best": row["best"],
            }
        )
    numbers = pd.DataFrame(rows)
    names = list(next(iter(changing.values())))
    words = GROUP[1:] if _several(numbers["partition"]) else GROUP[2:]
    header = [
        *words,
        *map(_short, names),
        "n",
        "kept (%)",
        "weight",
        "AUROC",
        "AUROC of confidence",
        "kept right (%)",
        "mIoU",
        "difference",
    ]
    lines = [
        [
            *[str(row[word]) for word in (*words, *names, "n")],
            number(100 * row["coverage"], 1),
            number(row["weight"]),
            number(row["auroc_region_score"], 3),
            number(row["auroc_confidence"], 3),
            number(100 * row["accuracy_kept"], 1),
            bold(deviating(row["miou_mean"], row["miou_std"]), row["best"]),
            difference(*(row[column] for column in DIFFERENCE)),
        ]
        for row in rows
    ]
    caption = _variants_caption(numbers, settings.dataset.test)
    return Table("variants", numbers, header, lines, len(words) + len(names), caption)


def _short(name: str) -> str:
    """Return a dotted setting as a column is called: filter.tau is tau, filter.by is filter."""
    return "filter" if name == "filter.by" else name.rsplit(".", maxsplit=1)[-1]


def differing(settings: config.Settings) -> dict[str, dict[str, str]]:
    """Return method -> setting of `method` -> value as text, of settings in which rows of the ablation differ.

    A setting that is without effect in a row (the threshold of a row that keeps a fraction, the
    grid of one without a filter) is empty there, and does not count as another value.
    """
    rows = {row: _in_effect(config.in_row(settings, row)) for row in settings.ablation.methods}
    names = list(dict.fromkeys(itertools.chain.from_iterable(rows.values())))
    names = [name for name in names if len({row[name] for row in rows.values() if name in row}) > 1]
    return {method: {name: row.get(name, "") for name in names} for method, row in rows.items()}


def _in_effect(method: Any) -> dict[str, str]:
    """Return the settings of a row that have an effect: dotted name -> text."""
    values = _flat(method.model_dump(mode="json"))
    unused: list[str] = []
    if not method.consistency:
        unused += ["cutmix", "lambda_u", "teacher_statistics", "filter", "rho"]
    if method.filter.by == "none":
        unused += ["filter.keep", "filter.tau", "filter.fraction", "filter.start", "grid", "discriminator"]
    if method.filter.keep == "threshold":
        unused += ["filter.fraction"]
    elif method.rho != "votes":
        unused += ["filter.tau"]
    return {name: text for name, text in values.items() if not name.startswith(tuple(unused))}


def _flat(values: Mapping[str, Any], where: str = "") -> dict[str, str]:
    """Return nested settings as dotted name -> text."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{where}{key}.")
        elif isinstance(value, bool):
            flat[f"{where}{key}"] = "yes" if value else "no"
        else:
            flat[f"{where}{key}"] = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return flat


def _is(table: pd.DataFrame, row: Mapping[Hashable, Any]) -> pd.Series:
    """Return which lines of a table are of a row's partition and method."""
    return (table["partition"].astype(str) == row["partition"]) & (table["method"] == row["method"])


def _kept(history: pd.DataFrame) -> dict[str, float]:
    """Return mean coverage and weight over the last quarter of the steps of every seed, then over seeds."""
    late = history[history["step"] > 0.75 * history["step"].max()]
    late_means = late.reindex(columns=["seed", "coverage", "weight"]).groupby("seed").mean().mean()
    return {"coverage": late_means["coverage"], "weight": late_means["weight"]}


def _known(reliability: pd.DataFrame, settings: config.Settings, method: str) -> dict[str, float]:
    """Return what scores of pseudo-labels of val were worth at the last step, over segmenters and seeds."""
    by = config.in_row(settings, method).filter.by
    rows = reliability[(reliability["split"] == "val") & (reliability["class"] == EVERYTHING)]
    last = rows[rows["step"] == rows["step"].max()].groupby("score")[["auroc", "accuracy", "accuracy_kept"]].mean()
    aurocs = {f"auroc_{score}": last["auroc"].get(score, math.nan) for score in ("region_score", "confidence")}
    kept = last["accuracy"].mean() if by == "random" else last["accuracy_kept"].get(by, math.nan)
    return {**aurocs, "accuracy_kept": float(kept)}


def _variants_caption(numbers: pd.DataFrame, images: str) -> str:
    """Say what the numbers of `variants` are."""
    return (
        "Settings in which the rows differ (empty: without effect); regions kept and mean weight of pixels over the "
        "last quarter of training; AUROC of the region score and of confidence, and right pixels among the kept ones "
        "(by the row's own score; at random, as right as all), on val at the last step; "
        f"mIoU on {images} in per cent, mean of the two segmenters; {counts(numbers['n'])}{_of_seeds(numbers)}"
    )


# ---- (f) classes


def per_class(classes: pd.DataFrame, images: str = "test") -> Table:
    """Set classes against methods: the IoU, mean of both segmenters, over seeds.

    Args:
        classes: of `collect.collect_classes`.
        images: the split that was evaluated.

    Returns:
        the table `per_class`. Numbers: name, partition, method, class, iou_mean, iou_std,
        iou_ensemble (over seeds, NaN where a class is absent), pixels of the truth, n seeds.
    """
    grouped = classes.groupby([*GROUP, "class"], sort=False)
    numbers = grouped.agg(
        iou_mean=("iou_mean", "mean"),
        iou_std=("iou_mean", "std"),
        iou_ensemble=("iou_ensemble", "mean"),
        pixels=("pixels", "first"),
        n=("iou_mean", "count"),
    ).reset_index()
    texts = [deviating(*pair) for pair in zip(numbers["iou_mean"], numbers["iou_std"], strict=True)]
    one = numbers["n"].max() < 2
    caption = f"IoU on {images} in per cent of every class: mean of the two segmenters; {counts(numbers['n'])}" + (
        "." if one else ", mean ± standard deviation over seeds."
    )
    return _by_class("per_class", numbers, texts, caption)


def class_gain(classes: pd.DataFrame, images: str = "test") -> Table | None:
    """Set classes against methods: the IoU less that of cps_cutmix, paired over seeds.

    Args:
        classes: of `collect.collect_classes`.
        images: the split that was evaluated.

    Returns:
        the table `class_gain`, or None where there is no cps_cutmix, nothing else, or one seed.
        Numbers: name, partition, method, class, n, difference, difference_std, difference_low,
        difference_high.
    """
    rows = []
    for name, part in classes.groupby("class", sort=False):
        parts = by_row(part)
        for key, own in parts.items():
            if key[2] != REFERENCE:
                labels = dict(zip(GROUP, key, strict=True))
                seeds = own["iou_mean"].notna().sum()
                rows.append({**labels, "class": name, "n": seeds, **to_reference(key, parts, "iou_mean")})
    numbers = pd.DataFrame(rows)
    if numbers.empty or numbers["difference"].isna().all():
        return None
    texts = [difference(*row) for row in numbers[DIFFERENCE].itertuples(index=False)]
    caption = (
        f"IoU of every class on {images} less that of {REFERENCE}, in points, mean of the two segmenters; "
        f"{counts(numbers['n'])}, paired over seeds, with 95 % intervals (Student t), not corrected for their number."
    )
    return _by_class("class_gain", numbers, texts, caption)


def _by_class(name: str, numbers: pd.DataFrame, texts: list[str], caption: str) -> Table:
    """Return a table with a row for each class, and partition if there are several, and a column for each method."""
    words = ["partition", "class"] if _several(numbers["partition"]) else ["class"]
    methods = list(dict.fromkeys(numbers["method"]))
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for row, text in zip(numbers.to_dict("records"), texts, strict=True):
        cells.setdefault(tuple(str(row[word]) for word in words), {})[row["method"]] = text
    rows = [[*key, *[places.get(method, "") for method in methods]] for key, places in cells.items()]
    return Table(name, numbers, [*words, *methods], rows, len(words), caption)
