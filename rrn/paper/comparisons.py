"""Figures of a paper: tables in, a matplotlib Figure out; nothing is read or shown here. No torch.

The ablation stage alone draws them, so that a change here trains nothing again. Looks and `save` are those of
`rrn.plotting.style`; a band or an error bar is one standard deviation over seeds, and there is none where there is one
seed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rrn.paper.statistics import REFERENCE
from rrn.plotting.style import (
    COLUMN,
    PAGE,
    Look,
    escape_mathtext,
    known,
    legend_below,
    mean_band,
    method_style,
    name_ticks,
    styled,
    subplot_grid,
    wrap_classes,
)
from rrn.settings.rows import Method

CURVES = {
    "miou_mean": "val mIoU (%)",
    "supervised": "supervised loss",
    "consistency": "consistency loss",
    "coverage": "regions kept",
    "weight": "mean weight",
    "agreement": "agreement",
}
ALL_CLASSES = "mean"
SAME_COVERAGE = 0.01
"""Variants whose coverage differs by no more, as by rounding of a count, keep the same."""

KEEPING = {"filter.fraction": ("local_filter", "best share"), "filter.tau": ("threshold_filter", "threshold")}
"""Setting that decides how much is kept -> the row whose look its curve has, and what it is called."""

SETTING_LABELS = {
    "filter.fraction": "share of regions kept",
    "filter.tau": "threshold on the region score",
    "grid": "regions per side of a crop",
}


# ---- curves


@styled
def plot_training_curves(history: pd.DataFrame) -> Figure:
    """Draw val mIoU, losses and pseudo-label statistics of every method against the step.

    Args:
        history: history.csv of all runs, joined: method, seed, step, miou_mean and others; what is empty is left out.
    """
    panels = known(history, CURVES)
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    fig, axes = subplot_grid(rows, columns, (PAGE, 0.4 + 1.8 * rows))
    methods = list(dict.fromkeys(history["method"]))
    for axis, (column, label) in zip(axes.flat, panels.items(), strict=False):
        for method in methods:
            part = history[history["method"] == method].dropna(subset=[column])
            if len(part):
                values = part.pivot_table(index="seed", columns="step", values=column)
                mean_band(axis, values.columns.to_numpy(), values.to_numpy(), method_style(method), markersize=2.5)
        axis.set(xlabel="step", ylabel=label)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    legend_below(fig, [method_style(method) for method in methods])
    return fig


# ---- gains


@styled
def per_class_gain(table: pd.DataFrame) -> Figure:
    """Draw what every method gains in IoU over cps_cutmix, by class and in the mean of the classes, paired over seeds.

    Several partitions are drawn below each other.

    Args:
        table: name, partition, method, seed, class, iou_mean (per cent); cps_cutmix has a row for each class and seed.

    Raises:
        ValueError: the table has no other method, or no cps_cutmix.
    """
    gains = _gains(table)
    parts = {str(name): part for name, part in gains.groupby("partition", sort=False)}
    methods = list(dict.fromkeys(gains["method"]))
    lines = [(name, line) for name, part in parts.items() for line in wrap_classes(list(dict.fromkeys(part["class"])))]
    fig, axes = subplot_grid(len(lines), 1, (PAGE, 0.6 + 0.05 * len(methods) + 1.9 * len(lines)))
    for axis, (name, classes) in zip(axes.flat, lines, strict=True):
        part = parts[name]
        for place, method in enumerate(methods):
            values = part[part["method"] == method].groupby("class")["gain"].agg(["mean", "std"]).reindex(classes)
            x = np.arange(len(classes)) + _dodge(place, len(methods))
            _bars(axis, x, values["mean"], values["std"], method_style(method), joined=False)
        axis.axhline(0, color="black", lw=0.6)
        for border in np.arange(len(classes) - 1) + 0.5:
            last = border > len(classes) - 2 and classes[-1] == ALL_CLASSES
            axis.axvline(border, color="black" if last else "#DDDDDD", lw=0.5)
        axis.set(ylabel="gain in IoU (points)", xlim=(-0.5, len(classes) - 0.5))
        title = f"gain over {method_style(REFERENCE).label}, mean and standard deviation over seeds"
        axis.set_title(title + f", {name}" * (len(parts) > 1))
        axis.set_xticks(range(len(classes)), [*map(escape_mathtext, classes)])
        name_ticks(fig, axis)
    legend_below(fig, [method_style(method) for method in methods])
    return fig


def _gains(table: pd.DataFrame) -> pd.DataFrame:
    """Return partition, method, seed, class and gain of every other method, and of the mean of the classes."""
    keys = ["partition", "seed", "class"]
    means = table.groupby(["partition", "method", "seed"], sort=False)["iou_mean"].mean().reset_index()
    everything = pd.concat([table, means.assign(**{"class": ALL_CLASSES})], ignore_index=True)
    reference = everything[everything["method"] == REFERENCE][[*keys, "iou_mean"]]
    others = everything[everything["method"] != REFERENCE]
    gains = others.merge(reference, on=keys, suffixes=("", "_reference"))
    if gains.empty:
        raise ValueError(
            f"per_class_gain: no method to compare with {REFERENCE}, the table has {', '.join(set(table['method']))}; "
            f"list {REFERENCE} and another method in ablation.methods"
        )
    return gains.assign(gain=gains["iou_mean"] - gains["iou_mean_reference"])


# ---- sweeps


@styled
def sweep(table: pd.DataFrame) -> Figure:
    """Draw the mIoU of the variants of a sweep, and that of cps_cutmix as a line with a band.

    One setting that varies, by numbers, is the x axis of a curve; so is the share of regions that is kept, where only
    what decides it varies. Otherwise each variant is a line of a dot plot, beside it that share, where it varies.

    Args:
        table: `tables.variants`, of one partition: a row per variant with method, miou_mean, miou_std (per
            cent; NaN without), and a column for each setting that varies, named as in params.yaml within a row (grid,
            filter.tau, discriminator.objective), text or number, empty where it is without effect; optionally coverage
            (0..1). The row cps_cutmix is the reference.
    """
    variants = table[table["method"] != REFERENCE]
    reference = table[table["method"] == REFERENCE]
    settings = [str(column) for column in table if _is_setting(str(column)) and len(set(variants[column].dropna())) > 1]
    if set(settings) & {*KEEPING} and set(settings) <= {*KEEPING, "filter.keep"} and _coverage_varies(variants):
        return _coverage_curve(variants, reference)
    if len(settings) == 1:
        numbers = pd.to_numeric(variants[settings[0]], errors="coerce")
        if numbers.notna().all():
            return _sweep_curve(variants.assign(**{settings[0]: numbers}), reference, settings[0])
    return _sweep_dots(variants, reference)


def _is_setting(column: str) -> bool:
    """Whether a column is named as a setting of a row that a sweep varies."""
    return column != "labels" and column.partition(".")[0] in Method.model_fields


def _sweep_curve(variants: pd.DataFrame, reference: pd.DataFrame, setting: str) -> Figure:
    """Draw mIoU against the one number that varies."""
    fig, axes = subplot_grid(1, 1, (COLUMN, 2.6))
    axis = axes[0, 0]
    part = variants.sort_values(setting)
    look = method_style("local_filter")._replace(label="variants")
    lines = _reference(axis, reference, upright=False)
    _bars(axis, part[setting], part["miou_mean"], part["miou_std"], look)
    axis.set(xlabel=SETTING_LABELS.get(setting, setting), ylabel="mIoU (%)", xticks=part[setting])
    legend_below(fig, [look], *lines)
    return fig


def _coverage_varies(variants: pd.DataFrame) -> bool:
    """Whether variants keep different shares of the regions."""
    return "coverage" in variants and variants["coverage"].max() - variants["coverage"].min() > SAME_COVERAGE


def _coverage_curve(variants: pd.DataFrame, reference: pd.DataFrame) -> Figure:
    """Draw mIoU against the share of regions that is kept, a curve for each way to choose them."""
    fig, axes = subplot_grid(1, 1, (COLUMN, 2.8))
    axis = axes[0, 0]
    lines, looks = _reference(axis, reference, upright=False), []
    for setting, (method, label) in KEEPING.items():
        values = pd.to_numeric(variants[setting], errors="coerce") if setting in variants else pd.Series(dtype=float)
        part = variants.loc[values.dropna().index].sort_values("coverage")
        if len(part):
            looks.append(method_style(method)._replace(label=label))
            _bars(axis, 100 * part["coverage"], part["miou_mean"], part["miou_std"], looks[-1])
    axis.set(xlabel="regions kept (%)", ylabel="mIoU (%)")
    legend_below(fig, looks, *lines)
    return fig


def _sweep_dots(variants: pd.DataFrame, reference: pd.DataFrame) -> Figure:
    """Draw one line for each variant: its name, mIoU, and the share that it keeps."""
    keeps = _coverage_varies(variants)
    size = PAGE if keeps else COLUMN, 0.9 + 0.2 * len(variants)
    fig, axes = subplot_grid(1, 1 + int(keeps), size, sharey=True, width_ratios=[3, 1][: 1 + keeps])
    left = axes[0, 0]
    lines = _reference(left, reference, upright=True)
    for place, row in enumerate(variants.to_dict("records")):
        look = method_style(str(row["method"]))
        options: dict[str, Any] = {
            "color": look.color,
            "marker": look.marker,
            "linestyle": "none",
            "elinewidth": 0.8,
            "capsize": 2,
        }
        left.errorbar([row["miou_mean"]], [place], xerr=[np.nan_to_num(row["miou_std"])], **options)
        if keeps:
            axes[0, 1].barh(place, 100 * row["coverage"], 0.6, **look.bar)
    left.set_yticks(range(len(variants)), [method_style(method).label for method in variants["method"]])
    left.set(xlabel="mIoU (%)", ylim=(len(variants) - 0.4, -0.6))
    if keeps:
        axes[0, 1].set(xlabel="regions kept (%)", xlim=(0, 100))
    if lines:
        fig.legend(handles=lines, loc="outside lower center")
    return fig


# ---- partitions


@styled
def plot_partitions(runs: pd.DataFrame, quoted: pd.DataFrame | None = None) -> Figure:
    """Draw mIoU against the share of labels for every method.

    Args:
        runs: a row per run: partition, method, seed, miou_mean (per cent).
        quoted: numbers that others published under the same protocol (`collect.quoted`): partition, method (their
            name), epoch (best | last | unknown), miou; those of the same partitions are hollow markers, called quoted.
    """
    order = sorted(set(runs["partition"]), key=_share)
    others = pd.DataFrame(columns=["partition", "method", "epoch", "miou"]) if quoted is None else quoted
    others = others[others["partition"].isin(order)]
    papers = others.groupby(["method", "epoch"], sort=False)
    fig, axes = subplot_grid(1, 1, (COLUMN, 2.9 + 0.12 * len(papers)))
    axis: Axes = axes[0, 0]
    methods = list(dict.fromkeys(runs["method"]))
    for place, method in enumerate(methods):
        part = runs[runs["method"] == method]
        values = part.groupby("partition")["miou_mean"].agg(["mean", "std"]).reindex(order)
        x = np.arange(len(order)) + _dodge(place, len(methods)) / 4
        _bars(axis, x, values["mean"], values["std"], method_style(method))
    marks = []
    for place, ((name, epoch), part) in enumerate(papers):
        options: dict[str, Any] = {"ls": "none", "mfc": "white", "mec": "#444444", "marker": "sodv^<>ph"[place % 9]}
        axis.plot([order.index(value) + 0.12 + 0.06 * place for value in part["partition"]], part["miou"], **options)
        which = "quoted" if epoch == "unknown" else f"quoted, {epoch} epoch"
        marks.append(Line2D([], [], label=f"{name} ({which})", **options))
    axis.set_xticks(range(len(order)), [name.replace("of", "/") for name in order])
    axis.set(xlabel="labeled images", ylabel="mIoU (%)")
    legend_below(fig, [method_style(method) for method in methods], *marks)
    return fig


def _share(partition: str) -> tuple[int, float]:
    """Return what sorts partitions: numbers of images, then shares, then all."""
    if partition == "all":
        return 2, 0.0
    part, of, whole = partition.partition("of")
    return (1, int(part) / int(whole)) if of else (0, int(part))


# ---- parts


def _dodge(place: int, count: int) -> float:
    """Return how far, in places of the axis, one of `count` neighbors is moved aside."""
    return 0.7 * ((place + 0.5) / count - 0.5)


def _bars(axis: Axes, x: npt.ArrayLike, mean: pd.Series, deviation: pd.Series, look: Look, joined: bool = True) -> None:
    """Draw means with error bars, joined by a line, or else with dashed bars; an unknown deviation is no bar."""
    line = look.line if joined else {**look.line, "linestyle": "none"}
    bars = axis.errorbar(x, mean, yerr=deviation, elinewidth=0.8, capsize=1.5, **line)
    for part in bars[2]:
        part.set_linestyle("-" if joined else look.dash)


def _reference(axis: Axes, table: pd.DataFrame, upright: bool) -> list[Line2D]:
    """Draw the reference of a sweep as a line with its band, if the table has it; return it for the legend."""
    look = method_style(REFERENCE)
    options: dict[str, Any] = {"color": look.color, "ls": look.dash, "lw": 1.0}
    for mean, deviation in zip(table["miou_mean"], table["miou_std"].fillna(0), strict=True):
        line, span = (axis.axvline, axis.axvspan) if upright else (axis.axhline, axis.axhspan)
        line(mean, **options)
        span(mean - deviation, mean + deviation, color=look.color, alpha=0.15, lw=0)
    return [Line2D([], [], label=look.label, **options)] * (len(table) > 0)
