"""The tables of the paper: DataFrames of `collect` in, `table_format.Table` out. No torch, no files.

Every IoU is in per cent; a deviation is that of the sample, over seeds. A difference is paired over
the seeds that both rows have, with a 95 % interval of Student's t; it is left empty where they share
fewer than two, and undecided where the interval holds 0. Nothing is bold that is within noise: bold
is a row whose lead over each competitor has an interval that excludes 0. Rows that read all labels of
a smaller partition do not compete.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from rrn import config
from rrn.paper.statistics import ENOUGH, GROUP, INTERVAL, POWER, REFERENCE, averages, by_row, paired_tests, to_reference
from rrn.paper.table_format import Table, bold, counts, deviating, difference, format_p, number
from rrn.reliability.measures import EVERYTHING

DIFFERENCE = ["difference", "difference_low", "difference_high"]
OUTCOME = ["miou_mean", "miou_std", *INTERVAL, "best"]
Row = Mapping[Hashable, Any]
Cells = defaultdict[tuple[str, ...], dict[str, str]]
"""Words that begin a line -> column -> text."""


# ---- (b) the ablation


def ablation(runs: pd.DataFrame, images: str = "test") -> Table:
    """Average the runs over seeds, one row per name, partition and method, in their order.

    Args:
        runs: of `collect.collect`.
        images: the split that was evaluated.

    Returns:
        the table `ablation`. Numbers: name, partition, method, labels, n, miou_mean and miou_std (of
        the mean of the two segmenters), image_se (standard error of miou_mean over test images, mean over seeds),
        miou_ensemble, ensemble_std, difference, difference_std, difference_low, difference_high (to cps_cutmix),
        p_value, p_adjusted, detectable (of it, as `statistics.paired_tests` says), parameters, macs, best (it is bold).
    """
    ensemble = {"miou_ensemble": ("miou_ensemble", "mean"), "ensemble_std": ("miou_ensemble", "std")}
    cost = {"parameters": ("parameters", "first"), "macs": ("macs", "first")}
    images_se = {"image_se": ("image_se", "mean")}
    more = runs.groupby(GROUP, sort=False).agg(**ensemble, **images_se, **cost).reset_index(drop=True)
    tested = paired_tests(runs)
    order = [*GROUP, "labels", "n", *OUTCOME[:2], *images_se, *ensemble, *INTERVAL, *tested, *cost, "best"]
    numbers = pd.concat([averages(runs), more, tested], axis=1)[order]
    words = _words(numbers)
    shown = {
        "n": [str(n) for n in numbers["n"]],
        "mIoU": [_miou(row) for row in numbers.to_dict("records")],
        "ensemble": [*map(deviating, numbers["miou_ensemble"], numbers["ensemble_std"])],
        "difference": [_difference(row) for row in numbers.to_dict("records")],
    }
    if numbers["detectable"].notna().any():
        shown["detectable"] = [*map(number, numbers["detectable"])]
    if numbers["p_adjusted"].notna().any():
        shown["p (Holm)"] = [*map(format_p, numbers["p_adjusted"])]
    texts = numbers[[*words]].astype(str).assign(**shown)
    caption = (
        f"mIoU on {images} in per cent: mean of the two segmenters, and their ensemble; {_seeds(numbers)}"
        f"{_tested(shown)} A segmenter: {_cost(numbers)}."
    )
    return Table("ablation", numbers, [*texts], texts.to_numpy().tolist(), len(words), caption)


def _tested(shown: Iterable[str]) -> str:
    """Say what the columns beside a difference are."""
    power = f"{100 * POWER:.0f} % power at two-sided 5 %"
    says = {
        "detectable": f" Detectable: least true difference, in points, that so many seeds so noisy show with {power}.",
        "p (Holm)": " p: paired t-test, corrected by Holm for the rows of a partition.",
    }
    return "".join(says[column] for column in shown if column in says)


def _cost(numbers: pd.DataFrame) -> str:
    """Say what a segmenter costs, each different one."""
    pairs = numbers[["parameters", "macs"]].drop_duplicates().itertuples(index=False)
    return " or ".join(f"{parameters / 1e6:.2f} M parameters, {macs / 1e9:.3f} G MACs" for parameters, macs in pairs)


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
    averaged = averages(runs)
    words = [word for word in _words(averaged) if word != "partition"]
    varying, against = _several(averaged["n"]), averaged["difference"].notna().any()
    cells: Cells = defaultdict(dict)
    for row in averaged.to_dict("records"):
        place = cells[tuple(row[word] for word in words)]
        place[row["partition"]] = f"{_miou(row)} ({row['n']})" if varying else _miou(row)
        place[f"{row['partition']} difference"] = _difference(row)
    beside = pd.DataFrame() if quoted is None else quoted[quoted["partition"].isin(columns)]
    for row in beside.to_dict("records"):
        name = f"{row['method']}†" if row["epoch"] == "unknown" else f"{row['method']}† ({row['epoch']} epoch)"
        cells[("quoted", name)[-len(words) :]][row["partition"]] = number(row["miou"])
    numbers = averaged.assign(epoch="", source="")
    if len(beside):
        kept = beside[["partition", "method", "miou", "epoch", "source"]].rename(columns={"miou": "miou_mean"})
        numbers = pd.concat([numbers, kept.assign(name="quoted", best=False)], ignore_index=True)
    header = [name for column in columns for name in (column, f"{column} difference")] if against else columns
    caption = (
        f"mIoU on {images} in per cent for each share of labeled images: mean of the two segmenters; "
        f"{_seeds(averaged, ' in brackets' if varying else '')}{_sources(beside)}"
    )
    return Table("partitions", numbers, [*words, *header], _lines(cells, header), len(words), caption)


def _sources(quoted: pd.DataFrame) -> str:
    """Say under which protocol quoted numbers were measured, and where they stand; nothing without any."""
    if quoted.empty:
        return ""
    sources = [
        f"{method}: {row['backbone']}, crop {row['crop']}, lists {row['lists']}, {row['epoch']} epoch, {row['source']}"
        for method, part in quoted.groupby("method", sort=False)
        for row in part.drop_duplicates(["epoch", "source"]).to_dict("records")
    ]
    return f" † quoted, not measured here: {'; '.join(sources)}."


# ---- (c), (d), (e) variants of the method


def variants(runs: pd.DataFrame, settings: config.Settings, history: pd.DataFrame, reliability: pd.DataFrame) -> Table:
    """Set what differs between the rows of a study against what they keep, know and reach.

    Args:
        runs: of `collect.collect`.
        settings: those of the study, without a row laid on `method`.
        history: of `collect.collect_table`, of history.
        reliability: of `collect.collect_table`, of reliability.

    Returns:
        the table `variants`. Numbers: name, partition, method, a column for each setting of `method`
        that two rows have in effect and differ in, n, coverage and weight (mean of the last quarter
        of training, 0..1), auroc_region_score and auroc_confidence (val, last step), accuracy_kept
        (val, last step, by the score that the row filters by; at random as right as everything; NaN
        of a row without filter; 0..1), miou_mean, miou_std, difference, difference_std, difference_low,
        difference_high, best.
    """
    changing = differing(settings)
    averaged = averages(runs)
    numbers = pd.DataFrame(
        {word: row[word] for word in GROUP}
        | changing[row["method"]]
        | {"n": row["n"]}
        | _kept(_of(history, row))
        | _known(_of(reliability, row), config.in_row(settings, row["method"]).filter.by)
        | {column: row[column] for column in OUTCOME}
        for row in averaged[averaged["name"] == settings.name].to_dict("records")
    )
    names = list(next(iter(changing.values())))
    words = [*(GROUP[1:] if _several(numbers["partition"]) else GROUP[2:]), *names]
    rows = [[*[str(row[word]) for word in words], *_variant(row)] for row in numbers.to_dict("records")]
    short = ["filter" if word == "filter.by" else word.rpartition(".")[2] for word in words]  # filter.tau: tau
    header = ["n", "kept (%)", "weight", "AUROC", "AUROC of confidence", "kept right (%)", "mIoU", "difference"]
    caption = (
        "Settings in which the rows differ (empty: without effect); regions kept and mean weight of pixels over the "
        "last quarter of training; AUROC of the region score and of confidence, and right pixels among the kept ones "
        "(by the row's own score; at random, as right as all), on val at the last step; "
        f"mIoU on {settings.dataset.test} in per cent, mean of the two segmenters; {_seeds(numbers)}"
    )
    return Table("variants", numbers, [*short, *header], rows, len(words), caption)


def _variant(row: Row) -> list[str]:
    """Return the cells of a row of `variants`, without its words."""
    return [
        str(row["n"]),
        number(100 * row["coverage"], 1),
        number(row["weight"]),
        number(row["auroc_region_score"], 3),
        number(row["auroc_confidence"], 3),
        number(100 * row["accuracy_kept"], 1),
        _miou(row),
        _difference(row),
    ]


def differing(settings: config.Settings) -> dict[str, dict[str, str]]:
    """Return method -> setting of `method` -> value as text, of settings in which rows of the ablation differ.

    A setting that is without effect in a row (the threshold of a row that keeps a fraction, the
    grid of one without a filter) is empty there, and does not count as another value.
    """
    rows = {row: _in_effect(config.in_row(settings, row)) for row in settings.ablation.methods}
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    names = [name for name in names if len({row[name] for row in rows.values() if name in row}) > 1]
    return {method: {name: row.get(name, "") for name in names} for method, row in rows.items()}


def _in_effect(method: Any) -> dict[str, str]:
    """Return the settings of a row that have an effect: dotted name -> text."""
    rule, filtered = method.filter, method.filter.by != "none"
    asks_tau = (filtered and rule.keep == "threshold") or method.rho == "votes" or method.labels_from.endswith("tau")
    without_effect = {
        ("networks", "cutmix", "strong", "lambda_u", "labels_from", "teacher", "filter", "rho"): not method.consistency,
        ("discriminator.input_stride",): method.discriminator.network == "relations",
        ("filter.keep",): not filtered,
        ("filter.per", "filter.fraction"): not filtered or rule.keep != "fraction",
        ("filter.floor",): not filtered or rule.keep != "soft",
        ("filter.tau",): not asks_tau,
        ("filter.start", "grid"): not filtered and method.rho == "none",
        ("discriminator",): not method.uses_discriminators,
        ("teacher_decay",): method.teacher == "current" and method.students == 2,
    }
    unused = tuple(name for names, without in without_effect.items() if without for name in names)
    values = method.model_dump(mode="json")
    values["strong"] = values["strong"] or config.Strong().model_dump()  # null: nothing is changed
    values["negative"] = values["negative"] or {"weight": 0}
    values = _flat(values)
    return {name: text for name, text in values.items() if not name.startswith(unused)}


def _flat(values: Mapping[str, Any], where: str = "") -> dict[str, str]:
    """Return nested settings as dotted name -> text, in their order, which `pd.json_normalize` would change."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{where}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: _text(value)}
    return flat


def _text(value: Any) -> str:
    """Return the value of a setting as a reader takes it: yes or no, items of a list without marks."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _of(table: pd.DataFrame, row: Row) -> pd.DataFrame:
    return table[(table["partition"].astype(str) == row["partition"]) & (table["method"] == row["method"])]


def _kept(history: pd.DataFrame) -> dict[str, float]:
    """Return mean coverage and weight over the last quarter of the steps of every seed, then over seeds."""
    late = history[history["step"] > 0.75 * history["step"].max()]
    return late.reindex(columns=["seed", "coverage", "weight"]).groupby("seed").mean().mean().to_dict()


def _known(reliability: pd.DataFrame, by: str) -> dict[str, float]:
    """Return what scores of pseudo-labels of val were worth at the last step, over segmenters and seeds."""
    rows = reliability[(reliability["split"] == "val") & (reliability["class"] == EVERYTHING)]
    last = rows[rows["step"] == rows["step"].max()].groupby("score")[["auroc", "accuracy", "accuracy_kept"]].mean()
    aurocs = {f"auroc_{score}": last["auroc"].get(score, math.nan) for score in ("region_score", "confidence")}
    kept = last["accuracy"].mean() if by == "random" else last["accuracy_kept"].get(by, math.nan)
    return {**aurocs, "accuracy_kept": float(kept)}


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
    over = ", mean ± standard deviation over seeds" if numbers["n"].max() > 1 else ""
    caption = f"IoU on {images} in per cent of every class: mean of the two segmenters; {counts(numbers['n'])}{over}."
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
    texts = [*map(difference, *(numbers[column] for column in DIFFERENCE))]
    caption = (
        f"IoU of every class on {images} less that of {REFERENCE}, in points, mean of the two segmenters; "
        f"{counts(numbers['n'])}, paired over seeds, with 95 % intervals (Student t), not corrected for their number."
    )
    return _by_class("class_gain", numbers, texts, caption)


def _by_class(name: str, numbers: pd.DataFrame, texts: list[str], caption: str) -> Table:
    """Return a table with a row for each class, and partition if there are several, and a column for each method."""
    words = ["partition", "class"] if _several(numbers["partition"]) else ["class"]
    methods = list(dict.fromkeys(numbers["method"]))
    cells: Cells = defaultdict(dict)
    for row, text in zip(numbers.to_dict("records"), texts, strict=True):
        cells[tuple(str(row[word]) for word in words)][row["method"]] = text
    return Table(name, numbers, [*words, *methods], _lines(cells, methods), len(words), caption)


# ---- parts of several tables


def _several(column: pd.Series) -> bool:
    return len(set(column)) > 1


def _words(numbers: pd.DataFrame) -> list[str]:
    return GROUP if _several(numbers["name"]) else GROUP[1:]


def _miou(row: Row) -> str:
    """Return mean and deviation of the mIoU of a row, bold if it leads."""
    return bold(deviating(row["miou_mean"], row["miou_std"]), row["best"])


def _difference(row: Row) -> str:
    """Return the difference of a row with its interval, which is undecided where it holds 0."""
    text = difference(*(row[column] for column in DIFFERENCE))
    return f"{text} undecided" if row["difference_low"] <= 0 <= row["difference_high"] else text


def _lines(cells: Cells, columns: Sequence[str]) -> list[list[str]]:
    """Return the lines of a table; what is not known is empty."""
    return [[*words, *[places.get(column, "") for column in columns]] for words, places in cells.items()]


def _seeds(numbers: pd.DataFrame, place: str = "") -> str:
    """Say of how many seeds numbers are, and how deviations, differences and bold ones come about."""
    text = f"{counts(numbers['n'])}{place}"
    if numbers["n"].max() < 2:
        return f"{text}, so no deviation and no ranking."
    parts = [f"{text}, mean ± standard deviation over seeds"]
    if numbers["difference"].notna().any():
        parts.append(
            f"difference to {REFERENCE}, paired over seeds, with its 95 % interval (Student t), undecided if it holds 0"
        )
    parts.append(
        f"bold: its lead over all rows but upper bounds, paired over {ENOUGH} seeds or more, has an interval above 0"
        if numbers["best"].any()
        else "no row leads every other one by more than noise (paired 95 % intervals), so none is bold"
    )
    return "; ".join(parts) + "."
