"""Figures: numbers and arrays in, a matplotlib Figure out; nothing is read or shown here.

Same color and label for a method, a score and a class everywhere. `save` writes PNG and PDF that
are the same bytes whenever the numbers are the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from rrn.plotting.pictures import samples
from rrn.plotting.style import (
    COLUMN,
    HATCHES,
    METHOD_STYLE,
    PAGE,
    SCORE_STYLE,
    STYLE,
    Look,
    escape_mathtext,
    known,
    legend_below,
    method_style,
    name_ticks,
    save,
    styled,
    subplot_grid,
    wrap_classes,
)
from rrn.reliability.measures import EVERYTHING

__all__ = [
    "METHOD_STYLE",
    "STYLE",
    "class_frequencies",
    "class_reliability",
    "loss_curves",
    "plot_per_class",
    "reliability_curves",
    "samples",
    "save",
]

TERMS = {
    "supervised": "supervised",
    "consistency": "consistency",
    "negative": "negative learning",
    "feature_matching": "feature matching",
    "discriminator_1": "discriminator 1",
    "discriminator_2": "discriminator 2",
}
SHARES = {"coverage": "regions kept", "weight": "mean weight", "agreement": "agreement"}
MIOUS = {"miou_1": "segmenter 1", "miou_2": "segmenter 2", "miou_ensemble": "ensemble"}


# ---- curves


@styled
def loss_curves(history: pd.DataFrame) -> Figure:
    """Draw loss terms, pseudo-label statistics and val mIoU of one run (history.csv)."""
    groups = {"loss, weighted": TERMS, "share": SHARES, "val mIoU (%)": MIOUS}
    shown = {label: known(history, names) for label, names in groups.items()}
    shown = {label: names for label, names in shown.items() if names}
    fig, axes = subplot_grid(1, len(shown), (COLUMN if len(shown) == 1 else PAGE, 2.6))
    for axis, (label, names) in zip(axes.flat, shown.items(), strict=True):
        for column, name in names.items():
            part = history.dropna(subset=[column])
            marker = "o" if len(part) < 10 else None
            axis.plot(part["step"], part[column], label=name, marker=marker)
        axis.set(xlabel="step", ylabel=label)
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.12, 1.0)}
        axis.legend(**place, ncols=2, borderpad=0.1, handlelength=1.0, columnspacing=0.8)
    return fig


MEASURES = {
    "auroc": "AUROC",
    "aurc": "AURC (%)",
    "ece": "calibration error (%)",
    "accuracy_kept": "right of the kept (%)",
}
"""Column of reliability.csv -> its name; AURC is the area under the risk-coverage curve. All but AUROC in per cent."""


@styled
def reliability_curves(reliability: pd.DataFrame) -> Figure:
    """Draw what each score of pseudo-labels is worth, against the step.

    Args:
        reliability: reliability.csv: step, split, segmenter, score, class, accuracy, and the columns of MEASURES; only
            what it says of all classes together is drawn; segmenters, and runs if several are joined, are averaged.
    """
    reliability = reliability[reliability["class"] == EVERYTHING]
    looks = {score: look for score, look in SCORE_STYLE.items() if score in set(reliability["score"])}
    splits = list(dict.fromkeys(reliability["split"]))
    fig, axes = subplot_grid(len(splits), len(MEASURES), (PAGE, 0.4 + 1.7 * len(splits)))
    for line, split in zip(axes, splits, strict=True):
        part = reliability[reliability["split"] == split]
        means = part.groupby(["score", "step"]).mean(numeric_only=True)
        for axis, (measure, label) in zip(line, MEASURES.items(), strict=True):
            scale = 1 if measure == "auroc" else 100
            for score, look in looks.items():
                axis.plot(means.loc[score].index, scale * means.loc[score, measure], **look.line)
            axis.set(ylabel=label, xlabel="step", title=f"{split} images")
        everything = part.groupby("step")["accuracy"].mean()
        line[-1].plot(everything.index, 100 * everything, color="black", ls="--")
    legend_below(fig, [*looks.values()], Line2D([], [], color="black", ls="--", label="all regions"))
    return fig


@styled
def class_reliability(reliability: pd.DataFrame) -> Figure:
    """Draw by class of the pseudo-label what each score is worth at the last step: AUROC, and how right the kept are.

    Args:
        reliability: as for `reliability_curves`, of one split; crosses are the dropped pixels.
    """
    last = reliability[reliability["step"] == reliability["step"].max()]
    last = last[last["class"] != EVERYTHING]
    lines = wrap_classes(list(dict.fromkeys(last["class"])))
    looks = {score: look for score, look in SCORE_STYLE.items() if score in set(last["score"])}
    fig, axes = subplot_grid(2 * len(lines), 1, (PAGE, 4.0 * len(lines)))
    means = last.groupby(["score", "class"]).mean(numeric_only=True)
    for (upper, lower), classes in zip(axes.reshape(-1, 2), lines, strict=True):
        _class_values(upper, lower, {look: means.loc[score].reindex(classes) for score, look in looks.items()})
        lower.set_xticks(range(len(classes)), [*map(escape_mathtext, classes)])
        name_ticks(fig, lower)
    axes[0, 0].set_title(f"{last['split'].iloc[0]} images, step {last['step'].iloc[0]}")
    dropped = Line2D([], [], color="black", marker="x", ls="none", label="right of the dropped")
    legend_below(fig, [*looks.values()], dropped)
    return fig


def _class_values(upper: Axes, lower: Axes, looks: dict[Look, pd.DataFrame]) -> None:
    """Draw AUROC, and how right the kept and the dropped pixels are, of a table by class for each look."""
    for place, (look, values) in enumerate(looks.items()):
        at = [index + 0.13 * (place - (len(looks) - 1) / 2) for index in range(len(values))]
        options: dict[str, Any] = {"color": look.color, "ls": "none"}
        upper.plot(at, values["auroc"], marker=look.marker, **options)
        lower.plot(at, 100 * values["accuracy_kept"], marker=look.marker, **options)
        lower.plot(at, 100 * values["accuracy_dropped"], marker="x", **options)
    upper.axhline(0.5, color="black", ls=":", lw=0.8)
    upper.set(ylabel="AUROC", xticks=range(len(values)), xticklabels=[])
    lower.set(ylabel="right (%)")


# ---- classes


@styled
def class_frequencies(frequencies: pd.DataFrame) -> Figure:
    """Draw the share of pixels of every class.

    Args:
        frequencies: a column `class`, and one column of pixel counts or shares for each set of
            images (labeled, unlabeled, val, ...); each is drawn as per cent of its sum, and not if it is NaN.
    """
    numbers = frequencies.select_dtypes("number")
    colors = dict(zip(numbers.columns, sns.color_palette(n_colors=numbers.shape[1]), strict=True))
    hatches = dict(zip(numbers.columns, itertools.cycle(HATCHES.values()), strict=False))
    sets = numbers.dropna(axis="columns", how="all").columns.tolist()
    shares = frequencies.assign(**{"class": frequencies["class"].map(escape_mathtext)}).set_index("class")[sets]
    shares = 100 * shares / shares.sum()
    wide = len(frequencies) * len(sets) > 14
    lines = wrap_classes(list(shares.index))
    fig, axes = subplot_grid(len(lines), 1, (PAGE if wide else COLUMN, 2.3 * len(lines)), sharey=True)
    for axis, classes in zip(axes.flat, lines, strict=True):
        data = shares.loc[classes].reset_index().melt("class", var_name="images", value_name="share")
        options: dict[str, Any] = {"hue": "images", "hue_order": sets, "palette": colors, "saturation": 1}
        sns.barplot(data, x="class", y="share", ax=axis, legend=False, **options)
        axis.set(xlabel="", ylabel="pixels (%)")
        _hatch(axis, [hatches[name] for name in sets])
        name_ticks(fig, axis)
    axes[0, 0].legend(axes[0, 0].containers, sets, title="")
    return fig


@styled
def plot_per_class(table: pd.DataFrame) -> Figure:
    """Draw the IoU of every class and method (columns method, class, iou_mean), in per cent.

    Several partitions, if a column says so, are drawn below each other.
    """
    partitions = table["partition"] if "partition" in table else pd.Series("", table.index)
    lines = [
        (name, classes)
        for name in dict.fromkeys(partitions)
        for classes in wrap_classes(list(dict.fromkeys(table["class"][partitions == name])))
    ]
    fig, axes = subplot_grid(len(lines), 1, (PAGE, 0.4 + 2.0 * len(lines)))
    looks = {method: method_style(method) for method in dict.fromkeys(table["method"])}
    colors = {method: look.color for method, look in looks.items()}
    for axis, (name, classes) in zip(axes.flat, lines, strict=True):
        part = table[(partitions == name) & table["class"].isin(classes)]
        part = part.assign(**{"class": part["class"].map(escape_mathtext)})
        options: dict[str, Any] = {"hue": "method", "hue_order": list(looks), "palette": colors, "saturation": 1}
        sns.barplot(part, x="class", y="iou_mean", ax=axis, legend=False, errorbar=None, **options)
        axis.set(xlabel="", ylabel="IoU (%)", title=name)
        _hatch(axis, [look.hatch for look in looks.values()])
        name_ticks(fig, axis)
    handles = [Patch(**look.bar, label=look.label) for look in looks.values()]
    fig.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)))
    return fig


def _hatch(axis: Axes, hatches: Sequence[str]) -> None:
    for bars, hatch in zip(axis.containers, hatches, strict=True):
        for bar in bars:
            bar.set(hatch=hatch, edgecolor="white", hatchcolor="white")
