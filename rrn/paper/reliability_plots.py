"""Figures that say what a score of pseudo-labels is worth: region tables in, a Figure out; no torch.

A curve is computed for each seed and segmenter, averaged over the two segmenters, and drawn as the mean over seeds with
a band of one standard deviation; there is none where there is one seed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rrn.plotting.style import COLUMN, PAGE, SCORE_STYLE, Look, legend_below, mean_band, styled, subplot_grid
from rrn.reliability import measures

Floats = npt.NDArray[np.float64]
Curve = Callable[[pd.Series, pd.Series, pd.Series], Floats]
"""Score, pixels and right pixels of R regions -> the values of a curve, at places that do not depend on them."""

COVERAGES = np.linspace(0.01, 1, 100)
"""Where risk-coverage curves of different runs are averaged."""


@styled
def plot_risk_coverage(regions: pd.DataFrame, coverage: float | None = None) -> Figure:
    """Draw the share of wrong pixels among what is kept against the share that is kept, best regions first.

    Args:
        regions: region tables of all runs of one row on one split (regions.csv of their evidence), joined, and a column
            seed. Scores that the row does not have are left out.
        coverage: share of the pixels, 0..1, that the row keeps, to be marked; None: nothing is.
    """
    fig, axes = subplot_grid(1, 1, (COLUMN, 2.9))
    axis: Axes = axes[0, 0]
    looks = _present(regions)
    for score, look in looks.items():
        curves = 100 * _over_seeds(regions, score, _risk)
        mean_band(axis, 100 * COVERAGES, curves, look, markevery=(5, 20))
    everything = 100 * (1 - regions["right"].sum() / regions["pixels"].sum())
    axis.axhline(everything, color="black", ls=":", lw=0.8)
    more = [Line2D([], [], color="black", ls=":", lw=0.8, label="everything kept")]
    if coverage is not None:
        axis.axvline(100 * coverage, color="black", ls="--", lw=0.8)
        more.append(Line2D([], [], color="black", ls="--", lw=0.8, label="kept by the row"))
    axis.set(xlabel="coverage: pixels kept (%)", ylabel="risk: wrong among them (%)", xlim=(0, 101))
    axis.set_ylim(bottom=0)
    legend_below(fig, [*looks.values()], *more)
    return fig


def risk_points(regions: pd.DataFrame) -> pd.DataFrame:
    """Return the curves of `plot_risk_coverage` at every second of their places, means over seeds.

    Args:
        regions: see `plot_risk_coverage`.

    Returns:
        score, coverage and risk, both in per cent.
    """
    curves = {score: 100 * _over_seeds(regions, score, _risk).mean(axis=0)[1::2] for score in _present(regions)}
    parts = [pd.DataFrame({"score": s, "coverage": 100 * COVERAGES[1::2], "risk": risk}) for s, risk in curves.items()]
    return pd.concat(parts, ignore_index=True)


@styled
def reliability_diagram(regions: pd.DataFrame) -> Figure:
    """Draw, for each score, the accuracy of regions against the score, and below it the share of pixels that has it.

    Bins are `measures.BINS` of equal width; the diagonal is a calibrated score. The legend has the calibration
    error (ECE), its mean and standard deviation over seeds.

    Args:
        regions: see `plot_risk_coverage`.
    """
    looks = _present(regions)
    heights = {"height_ratios": [3, 1], "sharex": True, "sharey": "row"}
    fig, axes = subplot_grid(2, len(looks), (PAGE if len(looks) > 2 else COLUMN, 2.5), **heights)
    middles = (np.arange(measures.BINS) + 0.5) / measures.BINS
    place: dict[str, Any] = {"loc": "upper left", "borderaxespad": 0.1}
    place |= {"handlelength": 0, "handletextpad": 0, "markerscale": 0}  # text alone: the title says whose it is
    for (upper, lower), (score, look) in zip(axes.T, looks.items(), strict=True):
        upper.plot([0, 1], [0, 1], color="black", ls=":", lw=0.8)
        mean_band(upper, middles, _over_seeds(regions, score, _accuracy), look, markersize=2.5)
        error = _over_seeds(regions, score, lambda *counts: np.array([measures.ece(*counts)]))
        legend = upper.legend([upper.lines[-1]], [f"ECE {_with_deviation(error)}"], **place)
        legend.set_in_layout(False)
        upper.set(title=look.label, xlim=(0, 1), ylim=(0, 1.18), yticks=[0, 0.5, 1])
        shares = 100 * _over_seeds(regions, score, _shares).mean(axis=0)
        lower.bar(middles, shares, 1 / measures.BINS, **look.bar)
        lower.set(xlabel="score", xticks=[0, 0.5, 1], xticklabels=["0", "0.5", "1"])
    axes[0, 0].set_ylabel("accuracy")
    axes[1, 0].set_ylabel("pixels (%)")
    return fig


def _present(regions: pd.DataFrame) -> dict[str, Look]:
    """Return the scores that all regions have, and their looks."""
    return {score: look for score, look in SCORE_STYLE.items() if score in regions and regions[score].notna().all()}


def _over_seeds(regions: pd.DataFrame, score: str, curve: Curve) -> Floats:
    """Return a curve for each seed, the mean of both segmenters' [seeds, places]; NaN where neither has a value."""
    rows = {}
    for (seed, segmenter), part in regions.groupby(["seed", "segmenter"]):
        rows[seed, segmenter] = curve(part[score], part["pixels"], part["right"])
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(rows, names=["seed", "segmenter"])
    return table.groupby("seed").mean().to_numpy(np.float64)


def _risk(score: pd.Series, pixels: pd.Series, right: pd.Series) -> Floats:
    """Return the risk at COVERAGES; between two points the wrong pixels grow linearly, as in `measures.aurc`."""
    coverage, risk = measures.risk_coverage(score, pixels, right)
    return np.interp(COVERAGES, np.r_[0, coverage], np.r_[0, coverage * risk]) / COVERAGES


def _accuracy(score: pd.Series, pixels: pd.Series, right: pd.Series) -> Floats:
    """Return the accuracy in each bin; NaN in one without pixels."""
    return _binned(measures.calibration(score, pixels, right), "accuracy")


def _shares(score: pd.Series, pixels: pd.Series, right: pd.Series) -> Floats:
    """Return the share of the pixels in each bin."""
    return np.nan_to_num(_binned(measures.calibration(score, pixels, right), "pixels")) / pixels.sum()


def _binned(table: pd.DataFrame, column: str) -> Floats:
    """Return a column of `rrn.reliability.measures.calibration` for every bin, NaN where it has none."""
    values = np.full(measures.BINS, np.nan)
    values[np.rint(table["low"] * measures.BINS).astype(int)] = table[column]
    return values


def _with_deviation(values: Floats) -> str:
    """Return mean and standard deviation over seeds, or the one value."""
    deviation = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{deviation}"
