"""Figures that say what a score of pseudo-labels is worth: curves of runs in, a Figure out; no torch.

A curve of a run is the mean of its two segmenters (`rrn.reliability.curves`). It is drawn as the mean over seeds with a
band of one standard deviation; there is none where there is one seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rrn.plotting.style import COLUMN, PAGE, SCORE_STYLE, Look, legend_below, mean_band, styled, subplot_grid
from rrn.reliability import measures
from rrn.reliability.curves import COVERAGES, RunCurves
from rrn.reliability.selection import Floats

Runs = Sequence[RunCurves]
"""Of one row on one split, one a seed; scores that one of them does not have are left out."""


@styled
def plot_risk_coverage(runs: Runs) -> Figure:
    """Draw the share of wrong pixels among what is kept against the share that is kept, best regions first.

    Args:
        runs: of all seeds; the mean share of the pixels that they keep is marked.
    """
    fig, axes = subplot_grid(1, 1, (COLUMN, 2.9))
    axis: Axes = axes[0, 0]
    looks = _present(runs)
    for score, look in looks.items():
        mean_band(axis, 100 * COVERAGES, 100 * _over_seeds(runs, score, "risk"), look, markevery=(5, 20))
    everything = 100 * (1 - sum(run.right for run in runs) / sum(run.pixels for run in runs))
    kept = 100 * float(np.mean([run.kept for run in runs]))
    axis.axhline(everything, color="black", ls=":", lw=0.8)
    axis.axvline(kept, color="black", ls="--", lw=0.8)
    more = [
        Line2D([], [], color="black", ls=":", lw=0.8, label="everything kept"),
        Line2D([], [], color="black", ls="--", lw=0.8, label="kept by the row"),
    ]
    axis.set(xlabel="coverage: pixels kept (%)", ylabel="risk: wrong among them (%)", xlim=(0, 101))
    axis.set_ylim(bottom=0)
    legend_below(fig, [*looks.values()], *more)
    return fig


def risk_points(runs: Runs) -> pd.DataFrame:
    """Return the curves of `plot_risk_coverage` at every second of their places, means over seeds.

    Returns:
        score, coverage and risk, both in per cent.
    """
    curves = {score: 100 * _over_seeds(runs, score, "risk").mean(axis=0)[1::2] for score in _present(runs)}
    parts = [pd.DataFrame({"score": s, "coverage": 100 * COVERAGES[1::2], "risk": risk}) for s, risk in curves.items()]
    return pd.concat(parts, ignore_index=True)


@styled
def reliability_diagram(runs: Runs) -> Figure:
    """Draw, for each score, the accuracy of regions against the score, and below it the share of pixels that has it.

    Bins are `measures.BINS` of equal width; the diagonal is a calibrated score. The legend has the calibration
    error (ECE), its mean and standard deviation over seeds.
    """
    looks = _present(runs)
    heights = {"height_ratios": [3, 1], "sharex": True, "sharey": "row"}
    fig, axes = subplot_grid(2, len(looks), (PAGE if len(looks) > 2 else COLUMN, 2.5), **heights)
    middles = (np.arange(measures.BINS) + 0.5) / measures.BINS
    place: dict[str, Any] = {"loc": "upper left", "borderaxespad": 0.1}
    place |= {"handlelength": 0, "handletextpad": 0, "markerscale": 0}  # text alone: the title says whose it is
    for (upper, lower), (score, look) in zip(axes.T, looks.items(), strict=True):
        upper.plot([0, 1], [0, 1], color="black", ls=":", lw=0.8)
        mean_band(upper, middles, _over_seeds(runs, score, "accuracy"), look, markersize=2.5)
        error = _over_seeds(runs, score, "ece")
        legend = upper.legend([upper.lines[-1]], [f"ECE {_with_deviation(error)}"], **place)
        legend.set_in_layout(False)
        upper.set(title=look.label, xlim=(0, 1), ylim=(0, 1.18), yticks=[0, 0.5, 1])
        shares = 100 * _over_seeds(runs, score, "shares").mean(axis=0)
        lower.bar(middles, shares, 1 / measures.BINS, **look.bar)
        lower.set(xlabel="score", xticks=[0, 0.5, 1], xticklabels=["0", "0.5", "1"])
    axes[0, 0].set_ylabel("accuracy")
    axes[1, 0].set_ylabel("pixels (%)")
    return fig


def _present(runs: Runs) -> dict[str, Look]:
    """Return the scores that all runs have, and their looks."""
    return {score: look for score, look in SCORE_STYLE.items() if all(score in run.scores for run in runs)}


def _over_seeds(runs: Runs, score: str, curve: str) -> Floats:
    """Return a curve of each seed [seeds, places], or a number [seeds]; NaN where it has no value."""
    return np.array([getattr(run.scores[score], curve) for run in runs], dtype=np.float64)


def _with_deviation(values: Floats) -> str:
    """Return mean and standard deviation over seeds, or the one value."""
    deviation = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{deviation}"
