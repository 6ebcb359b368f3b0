"""The explorer's figure of a whole split: what each score is worth, and what the rule that is chosen makes of it."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rrn.explorer import analysis
from rrn.explorer.analysis import Choice, Regions
from rrn.explorer.image_view import ERRORS
from rrn.plotting.style import SCORE_STYLE, STYLE, Picture, escape_mathtext, styled
from rrn.reliability.measures import EVERYTHING, calibration, ece
from rrn.reliability.scores import SCORES

SIZE = (11.4, 3.2)
"""Inches, width and height of a figure of few classes."""
POINTS = 200
"""Of a curve, at most."""
LONGEST = 16
"""Letters of a class name."""
RIGHT, WRONG, DROPPED = (f"#{bytes(ERRORS[name]).hex()}" for name in ("right, kept", "wrong, kept", "right, dropped"))
OTHER = "#882255"
"""Color of the other discriminator's score, which is no rule and so in no other figure."""


@styled
def split_figure(regions: Regions, choice: Choice) -> Figure:
    """Draw coverage against accuracy, the reliability diagram, the histogram of the score, and the classes.

    Args:
        regions: of the split.
        choice: its segmenters, rule and score; its image plays no part.
    """
    table = analysis.class_table(regions, choice)
    height = max(SIZE[1], 0.9 + 0.2 * len(table))
    fig = Picture(figsize=(SIZE[0], height))
    axes = fig.subplots(1, 5, width_ratios=(1.25, 0.9, 1, 0.01, 1.25))
    fig.subplots_adjust(0.045, 0.5 / height, 0.99, 1 - 0.42 / height, wspace=0.34)
    axes[3].set_axis_off()  # room for the names of the classes
    _coverage(axes[0], regions, choice, table.iloc[0])
    _calibration(axes[1], regions, choice)
    _histogram(axes[2], regions, choice)
    _classes(axes[4], table)
    return fig


def figure_png(fig: Figure) -> bytes:
    """Return a figure as a PNG for the screen."""
    stream = BytesIO()
    with style.context(STYLE):
        fig.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()


def _coverage(axis: Axes, regions: Regions, choice: Choice, everything: pd.Series) -> None:
    """Draw how right the best pixels of each score are, and where the rule cuts."""
    for score, curve in analysis.coverage_curves(regions, choice.segmenters).groupby("score", sort=False):
        chosen = np.unique(np.linspace(0, len(curve) - 1, POINTS).astype(int))
        width = 2.2 if score == choice.by else 1.0
        coverage, accuracy = (100 * curve[name].to_numpy()[chosen] for name in ("coverage", "accuracy"))
        look = SCORE_STYLE[str(score)]
        axis.plot(coverage, accuracy, color=look.color, ls=look.dash, lw=width, label=SCORES[str(score)])
    place = 100 * everything["kept"], 100 * everything["accuracy_kept"]
    axis.axvline(place[0], color="black", lw=0.8, ls=":")
    axis.plot(*place, "o", color="black", ms=6, zorder=5, label="kept now")
    low = 100 * everything["accuracy"]
    axis.set(xlim=(0, 102), ylim=(max(0, low - 0.15 * (100 - low) - 1), 100.5), xlabel="pixels kept (%)")
    axis.set(ylabel="accuracy of what is kept (%)", title="Best regions first: how right is what is kept?")
    axis.legend(loc="lower left", borderpad=0.1, labelspacing=0.25)


def _calibration(axis: Axes, regions: Regions, choice: Choice) -> None:
    """Draw how often pixels of a score are right."""
    counted, color = analysis.shown_counts(regions, choice), OTHER
    if choice.score in SCORE_STYLE:
        color = SCORE_STYLE[choice.score].color
    table, error = calibration(*counted), ece(*counted)
    axis.plot([0, 1], [0, 1], color="black", ls="--", lw=0.8, label="perfect")
    sizes = 4 + 60 * table["pixels"] / table["pixels"].max()
    axis.plot(table["score"], table["accuracy"], color=color, lw=1)
    axis.scatter(table["score"], table["accuracy"], s=sizes, color=color, label="area: pixels")
    axis.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel=SCORES[choice.score], ylabel="accuracy")
    axis.set(title=f"Calibration error {100 * error:.1f} %")
    axis.legend(loc="upper left", borderpad=0.1)


def _histogram(axis: Axes, regions: Regions, choice: Choice) -> None:
    """Draw how the right and the wrong pixels spread over the score."""
    table = analysis.histogram(regions, choice)
    edges = [*table["low"], table["high"].iloc[-1]]
    for name, color in (("right", RIGHT), ("wrong", WRONG)):
        share = 100 * table[name] / max(1.0, table[name].sum())
        axis.stairs(share, edges, color=color, fill=True, alpha=0.35)
        axis.stairs(share, edges, color=color, lw=1.2, label=f"{name} pixels")
    if choice.score == choice.by and choice.keep == "threshold":
        axis.axvline(choice.value, color="black", lw=0.8, ls=":", label="threshold")
    shown = table[(table["right"] + table["wrong"]) > 0]
    axis.set(xlim=(min(shown["low"].min(), 0.9), 1), xlabel=SCORES[choice.score], ylabel="of all right / wrong (%)")
    axis.set(title="Where do right and wrong pixels lie?")
    axis.legend(loc="upper left", borderpad=0.1)


def _classes(axis: Axes, table: pd.DataFrame) -> None:
    """Draw for each class of pseudo-labels which share is kept, and how right what is kept and dropped is."""
    places = -np.arange(len(table))
    axis.barh(places, 100 * table["kept"], color="#DDDDDD", height=0.8, label="kept")
    for name, color, shape in (("accuracy_kept", RIGHT, "o"), ("accuracy_dropped", DROPPED, "D")):
        what = name.removeprefix("accuracy_")
        axis.plot(100 * table[name], places, shape, color=color, mec=RIGHT, mew=0.8, ms=5, label=f"right, of {what}")
    names = ["all" if name == EVERYTHING else name for name in table["class"]]
    names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
    axis.set_yticks(places, [*map(escape_mathtext, names)])
    axis.set(xlim=(0, 103), xlabel="pixels of the pseudo-label's class (%)", title="Is every class filtered alike?")
    axis.set_ylim(-len(table) - 0.6, 0.6)
    axis.legend(loc="lower center", ncols=3, borderpad=0.0, handlelength=1.0, columnspacing=0.8, handletextpad=0.4)
