"""Figures: numbers and arrays in, a matplotlib Figure out; nothing is read or shown here.

Same colour and label for a method, a score and a class everywhere. `save` writes PNG and PDF that
are the same bytes whenever the numbers are the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from rrn.drawing import COLUMN, METHOD_STYLE, PAGE, STYLE, grid, method_style, save, styled
from rrn.pictures import batch, qualitative, samples

__all__ = [
    "METHOD_STYLE",
    "STYLE",
    "batch",
    "class_frequencies",
    "learning_curves",
    "loss_curves",
    "per_class",
    "qualitative",
    "reliability_curves",
    "samples",
    "save",
]

SCORE_STYLE = {
    "region_score": ("#EE6677", "region score"),
    "confidence": ("#228833", "confidence"),
    "agreement": ("#4477AA", "agreement"),
}
TERMS = {
    "supervised": "supervised",
    "consistency": "consistency",
    "feature_matching": "feature matching",
    "discriminator_1": "discriminator 1",
    "discriminator_2": "discriminator 2",
}
SHARES = {"coverage": "regions kept", "weight": "mean weight", "agreement": "agreement"}
MIOUS = {"miou_1": "segmenter 1", "miou_2": "segmenter 2", "miou_ensemble": "ensemble"}
LABELS = {
    "miou_mean": "val mIoU (%)",
    "supervised": "supervised loss",
    "consistency": "consistency loss",
    **SHARES,
}


# ---- curves


@styled
def learning_curves(history: pd.DataFrame) -> Figure:
    """Draw val mIoU, losses and pseudo-label statistics of every method against the step.

    Args:
        history: history.csv of all runs, joined: method, seed, step, miou_mean and others. The band
            is one standard deviation over seeds; there is none where a method has one seed.
    """
    panels = _known(history, LABELS)
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    fig, axes = grid(rows, columns, (PAGE, 0.3 + 1.8 * rows))
    styles = [method_style(method) for method in dict.fromkeys(history["method"])]
    colours = {label: colour for colour, label in styles}
    data = history.assign(label=[method_style(method)[1] for method in history["method"]])
    options: dict[str, Any] = {"hue": "label", "palette": colours, "errorbar": "sd"}
    for axis, (column, label) in zip(axes.flat, panels.items(), strict=False):
        part = data.dropna(subset=[column])
        sns.lineplot(part, x="step", y=column, ax=axis, legend=False, err_kws={"lw": 0}, **options)
        axis.set(xlabel="step", ylabel=label)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    _line_legend(fig, colours)
    return fig


@styled
def loss_curves(history: pd.DataFrame) -> Figure:
    """Draw loss terms, pseudo-label statistics and val mIoU of one run (history.csv)."""
    groups = {"loss, weighted": TERMS, "share": SHARES, "val mIoU (%)": MIOUS}
    shown = {label: _known(history, names) for label, names in groups.items()}
    shown = {label: names for label, names in shown.items() if names}
    fig, axes = grid(1, len(shown), (COLUMN if len(shown) == 1 else PAGE, 2.6))
    for axis, (label, names) in zip(axes.flat, shown.items(), strict=True):
        for column, name in names.items():
            part = history.dropna(subset=[column])
            marker = "o" if len(part) < 10 else None
            axis.plot(part["step"], part[column], label=name, marker=marker)
        axis.set(xlabel="step", ylabel=label)
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.12, 1.0)}
        axis.legend(**place, ncols=2, borderpad=0.1, handlelength=1.0, columnspacing=0.8)
    return fig


@styled
def reliability_curves(reliability: pd.DataFrame) -> Figure:
    """Draw what each score of pseudo-labels is worth, against the step.

    Args:
        reliability: reliability.csv: step, split, segmenter, score, auroc, accuracy, accuracy_kept;
            segmenters, and runs if several are joined, are averaged.
    """
    splits = list(dict.fromkeys(reliability["split"]))
    fig, axes = grid(len(splits), 2, (PAGE, 0.3 + 2.0 * len(splits)))
    for (left, right), split in zip(axes, splits, strict=True):
        part = reliability[reliability["split"] == split]
        for score, (colour, _) in SCORE_STYLE.items():
            mean = part[part["score"] == score].groupby("step").mean(numeric_only=True)
            left.plot(mean.index, mean["auroc"], color=colour, marker="o")
            right.plot(mean.index, 100 * mean["accuracy_kept"], color=colour, marker="o")
        everything = 100 * part.groupby("step")["accuracy"].mean()
        right.plot(everything.index, everything, color="black", ls="--")
        left.axhline(0.5, color="black", ls=":", lw=0.8)
        left.set(ylabel="AUROC of right pixels", title=f"{split} images", xlabel="step")
        right.set(ylabel="accuracy of kept (%)", title=f"{split} images", xlabel="step")
    present = set(reliability["score"])
    colours = {name: colour for key, (colour, name) in SCORE_STYLE.items() if key in present}
    _line_legend(fig, colours, Line2D([], [], color="black", ls="--", label="all regions"))
    return fig


def _known(history: pd.DataFrame, names: Mapping[str, str]) -> dict[str, str]:
    """Return those names whose column exists and holds something."""
    return {k: v for k, v in names.items() if k in history and history[k].notna().any()}


def _line_legend(fig: Figure, colours: Mapping[str, str], *more: Line2D) -> None:
    """Put label -> colour, and more lines, below the figure."""
    handles = [Line2D([], [], color=colour, label=label) for label, colour in colours.items()]
    handles += more
    fig.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)))


# ---- classes


@styled
def class_frequencies(frequencies: pd.DataFrame) -> Figure:
    """Draw the share of pixels of every class.

    Args:
        frequencies: a column `class`, and one column of pixel counts or shares for each set of
            images (labeled, unlabeled, val, ...); each is drawn as per cent of its sum, and not if it is NaN.
    """
    numbers = frequencies.select_dtypes("number")
    colours = dict(zip(numbers.columns, sns.color_palette(n_colors=numbers.shape[1]), strict=True))
    sets = numbers.dropna(axis="columns", how="all").columns.tolist()
    shares = frequencies.set_index("class")[sets]
    shares = 100 * shares / shares.sum()
    data = shares.reset_index().melt("class", var_name="images", value_name="share")
    wide = len(frequencies) * len(sets) > 14
    fig, axes = grid(1, 1, (PAGE if wide else COLUMN, 2.3))
    sns.barplot(data, x="class", y="share", hue="images", hue_order=sets, ax=axes[0, 0], palette=colours, saturation=1)
    axes[0, 0].set(xlabel="", ylabel="pixels (%)")
    _name_ticks(axes[0, 0])
    axes[0, 0].legend(title="")
    return fig


@styled
def per_class(table: pd.DataFrame) -> Figure:
    """Draw the IoU of every class and method (columns method, class, iou_mean), in per cent.

    Several partitions, if a column says so, are drawn below each other.
    """
    partitions = table["partition"] if "partition" in table else pd.Series("", table.index)
    names = list(dict.fromkeys(partitions))
    fig, axes = grid(len(names), 1, (PAGE, 0.4 + 2.0 * len(names)))
    styles = {method: method_style(method) for method in dict.fromkeys(table["method"])}
    colours = {method: colour for method, (colour, _) in styles.items()}
    for axis, name in zip(axes.flat, names, strict=True):
        part = table[partitions == name]
        options: dict[str, Any] = {"hue": "method", "palette": colours, "saturation": 1}
        sns.barplot(part, x="class", y="iou_mean", ax=axis, legend=False, errorbar=None, **options)
        axis.set(xlabel="", ylabel="IoU (%)", title=name)
        _name_ticks(axis)
    handles = [Patch(color=colour, label=label) for colour, label in styles.values()]
    fig.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)))
    return fig


def _name_ticks(axis: Axes) -> None:
    """Turn long class names so that they do not touch each other."""
    names = [text.get_text() for text in axis.get_xticklabels()]
    inches = axis.get_window_extent().width / axis.figure.dpi / max(1, len(names))
    if max(map(len, names), default=0) * 0.065 > inches:
        axis.tick_params(axis="x", rotation=35)
        for text in axis.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
