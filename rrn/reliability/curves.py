"""What the scores of one run are worth on one split, in numbers small enough for git: risk and calibration. No torch.

A curve is computed for each segmenter and averaged over the two. It lies at places that do not depend on the run, so
that curves of several seeds can be averaged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from rrn.config import Filter
from rrn.reliability import measures
from rrn.reliability.scores import RANKED
from rrn.reliability.selection import Floats, kept_regions
from rrn.settings.limits import Section

COVERAGES = np.linspace(0.01, 1, 100)
"""Where risk is told."""

Curve = Callable[[pd.Series, pd.Series, pd.Series], Floats]
"""Score, pixels and right pixels of R regions -> the values of a curve."""
Numbers = tuple[float | None, ...]


class ScoreCurves(Section):
    """What one score is worth: means of both segmenters, 0..1; None where neither has a value.

    Attributes:
        risk: share of wrong pixels among what is kept, at `COVERAGES`, the best regions first.
        accuracy: of the pixels whose region has a score in each of `measures.BINS` bins of equal width.
        shares: of all pixels, by bin.
        ece: calibration error.
    """

    risk: Numbers
    accuracy: Numbers
    shares: Numbers
    ece: float | None


class RunCurves(Section):
    """What the scores of a run are worth on a split.

    Attributes:
        pixels: valid pixels, those of both segmenters' pseudo-labels.
        right: how many of them are right.
        kept: share of the pixels that the row keeps, mean of both segmenters, 0..1.
        scores: of those that the run has, by name.
    """

    pixels: int
    right: int
    kept: float
    scores: dict[str, ScoreCurves]


def run_curves(regions: pd.DataFrame, rule: Filter) -> RunCurves:
    """Describe what each score of a run is worth.

    Args:
        regions: of one split, as `rrn.evaluation.region_tables` has them; scores that hold a NaN are left out.
        rule: the row's filter, which says what is kept.
    """
    present = [score for score in RANKED if score in regions and regions[score].notna().all()]
    parts = [part for _, part in regions.groupby("segmenter")]
    kept = [np.average(kept_regions(part, rule), weights=part["pixels"]) for part in parts]
    return RunCurves(
        pixels=int(regions["pixels"].sum()),
        right=int(regions["right"].sum()),
        kept=float(f"{np.mean(kept):.6g}"),
        scores={score: _score_curves(parts, score) for score in present},
    )


def _score_curves(parts: Sequence[pd.DataFrame], score: str) -> ScoreCurves:
    """Return the curves of a score from the regions of each segmenter."""
    risk, accuracy, shares, ece = (_mean(parts, score, curve) for curve in (_risk, _accuracy, _shares, _ece))
    return ScoreCurves(risk=risk, accuracy=accuracy, shares=shares, ece=ece[0])


def _mean(parts: Sequence[pd.DataFrame], score: str, curve: Curve) -> Numbers:
    """Return the mean curve of the segmenters with six digits; None where neither has a value."""
    values = pd.DataFrame([curve(part[score], part["pixels"], part["right"]) for part in parts]).mean()
    return tuple(None if math.isnan(value) else float(f"{value:.6g}") for value in values)


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


def _ece(score: pd.Series, pixels: pd.Series, right: pd.Series) -> Floats:
    """Return the calibration error [1]."""
    return np.array([measures.ece(score, pixels, right)])


def _binned(table: pd.DataFrame, column: str) -> npt.NDArray[np.float64]:
    """Return a column of `measures.calibration` for every bin, NaN where it has none."""
    values = np.full(measures.BINS, np.nan)
    values[np.rint(table["low"] * measures.BINS).astype(int)] = table[column]
    return values
