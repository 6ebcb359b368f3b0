"""Does a score know where pseudo-labels are wrong? Numbers in, numbers out; no torch, no files.

Everything starts from a table with one row per region and segmenter (`rrn.evaluation.region_tables`): its scores, and
how many of its valid pixels there are and are right, in all and by the class of the pseudo-label. Pixels themselves
are never kept: memory stays flat. All measures are exact over the pixels, each with its region's score.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from rrn.config import Filter
from rrn.reliability.scores import RANKED
from rrn.reliability.selection import Floats, kept_count, kept_share

EVERYTHING = "(all)"
"""Stands for a class where all classes are meant together."""

MEASURES = ("auroc", "auroc_within", "aurc", "ece", "coverage", "accuracy", "accuracy_kept", "accuracy_dropped")
BINS = 15
ENOUGH = 100
"""Regions that a class must have to count in `auroc_within`."""
HALF = Filter(by="none", keep="fraction", tau=0.5, fraction=0.5, start=0)
"""The rule at which scores are compared if none is named: the better half of the regions by each of them."""


def of_class(name: str) -> tuple[str, str]:
    """Return the columns that count the pixels, and the right ones, whose pseudo-label is a class, or `EVERYTHING`."""
    return ("pixels", "right") if name == EVERYTHING else (f"pixels:{name}", f"right:{name}")


def classes_of(table: pd.DataFrame) -> list[str]:
    """Return the classes that a region table counts."""
    return [str(column).removeprefix("pixels:") for column in table if str(column).startswith("pixels:")]


def auroc(score: npt.ArrayLike, pixels: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """Return the probability that a right pixel scores higher than a wrong one, ties counting 1/2.

    Args:
        score: float [R], one per region.
        pixels: number of pixels [R].
        right: how many of them are right [R].

    Returns:
        0..1; NaN if there is no right or no wrong pixel, or if a score is not a number.
    """
    _, count, good = _by_score(score, pixels, right)
    bad = count - good
    pairs = good.sum() * bad.sum()
    return float((bad * (good.cumsum() - good / 2)).sum() / pairs) if pairs else float("nan")


def auroc_within(score: npt.ArrayLike, counts: Iterable[tuple[Floats, Floats]]) -> float:
    """Return the mean AUROC within the classes of pseudo-labels, weighted by their pixels.

    A score that only tells easy classes from hard ones has 1/2 here, whatever its `auroc`.

    Args:
        score: float [R], one per region.
        counts: for each class, the numbers of its pixels [R], and of those that are right [R].

    Returns:
        0..1, over the classes that have a pixel in `ENOUGH` regions or more, and an `auroc`; NaN if there is none.
    """
    rows = [(auroc(score, pixels, right), pixels.sum()) for pixels, right in counts if (pixels > 0).sum() >= ENOUGH]
    known = [row for row in rows if not np.isnan(row[0])]
    values, weights = np.array(known).reshape(-1, 2).T
    return float(np.average(values, weights=weights)) if known else float("nan")


def risk_coverage(score: npt.ArrayLike, pixels: npt.ArrayLike, right: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return coverage and risk where regions are kept from the best score down to each that occurs.

    Args:
        score: float [R], one per region.
        pixels: number of pixels [R].
        right: how many of them are right [R].

    Returns:
        coverage [K], rising to 1, the share of the pixels that are kept, and risk [K], the share of those that are
        wrong; empty without pixels, or if a score is not a number.
    """
    _, count, good = _by_score(score, pixels, right)
    kept = count.cumsum()
    return (kept / kept[-1], 1 - good.cumsum() / kept) if len(kept) else (kept, kept)


def aurc(score: npt.ArrayLike, pixels: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """Return the area under the risk-coverage curve: the mean risk over all coverages; 0 is best.

    Regions tied in score are taken in random order: between two points of the curve the wrong pixels grow linearly.

    Args:
        score: float [R], one per region.
        pixels: number of pixels [R].
        right: how many of them are right [R].

    Returns:
        0..1; NaN without pixels, or if a score is not a number.
    """
    coverage, risk = risk_coverage(score, pixels, right)
    if not len(coverage):
        return float("nan")
    start, wrong = np.r_[0.0, coverage[:-1]], np.r_[0.0, (coverage * risk)[:-1]]
    slope = (coverage * risk - wrong) / (coverage - start)
    offset = wrong - slope * start  # wrong pixels at coverage c are offset + slope c; their share of c is integrated
    logarithm = np.log(coverage / np.where(start > 0, start, coverage))
    return float((slope * (coverage - start) + offset * logarithm).sum())


def calibration(score: npt.ArrayLike, pixels: npt.ArrayLike, right: npt.ArrayLike, bins: int = BINS) -> pd.DataFrame:
    """Compare scores, read as probabilities, with how often pixels are right, in bins of equal width.

    Args:
        score: 0..1 [R], one per region.
        pixels: number of pixels [R].
        right: how many of them are right [R].
        bins: how many.

    Returns:
        one row per bin that holds a pixel: low, high (its borders), score (mean over its pixels), accuracy, pixels.
    """
    values, count, good = _by_score(score, pixels, right)
    place = np.minimum((values * bins).astype(np.int64), bins - 1)
    total, hits, sums = (np.bincount(place, weight, bins) for weight in (count, good, values * count))
    held = total.nonzero()[0]
    columns = [held / bins, (held + 1) / bins, sums[held] / total[held], hits[held] / total[held], total[held]]
    return pd.DataFrame(dict(zip(("low", "high", "score", "accuracy", "pixels"), columns, strict=True)))


def ece(score: npt.ArrayLike, pixels: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """Return the expected calibration error over `BINS` bins: mean distance of score and accuracy, weighted by pixels.

    Args:
        score: 0..1 [R], one per region.
        pixels: number of pixels [R].
        right: how many of them are right [R].

    Returns:
        0..1; NaN without pixels, or if a score is not a number.
    """
    table = calibration(score, pixels, right)
    if table.empty:
        return float("nan")
    return float(np.average((table["score"] - table["accuracy"]).abs(), weights=table["pixels"]))


def _by_score(score: npt.ArrayLike, pixels: npt.ArrayLike, right: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return the scores that occur, best first, with the pixels and right pixels of each; empty if one is NaN."""
    values, count, good = (np.asarray(v, dtype=np.float64) for v in (score, pixels, right))
    if np.isnan(values).any():
        return np.zeros(0), np.zeros(0), np.zeros(0)
    held = count > 0
    values, place = np.unique(-values[held], return_inverse=True)
    total, hits = (np.bincount(place, weight[held], len(values)).astype(np.float64) for weight in (count, good))
    return -values, total, hits


def summarize(table: pd.DataFrame, rule: Filter = HALF) -> pd.DataFrame:
    """Compare the scores of pseudo-labels with their correctness over a whole data set.

    Args:
        table: of `rrn.evaluation.region_tables`.
        rule: of the row; every score keeps as many regions of a segmenter, its best, as the row does (`kept_count`), so
            that all are compared at equal coverage.

    Returns:
        one row per segmenter, score that exists and class, `EVERYTHING` first: segmenter, score, class (of the
        pseudo-label), auroc, auroc_within (`EVERYTHING` alone), aurc, ece, coverage (share of the pixels that is
        kept), accuracy, accuracy_kept, accuracy_dropped (shares of right pixels); all 0..1, NaN where undefined.
    """
    rows = []
    for segmenter, part in table.groupby("segmenter"):
        count = kept_count(part, rule)
        for score in RANKED:
            if score in part and part[score].notna().any():
                rows += [{"segmenter": segmenter, "score": score, **row} for row in _rows(part, score, count)]
    return pd.DataFrame(rows, columns=["segmenter", "score", "class", *MEASURES])


def _rows(part: pd.DataFrame, score: str, count: int) -> Iterator[dict[str, str | float]]:
    """Yield the numbers of `summarize` for everything and for each class, where `count` regions are kept."""
    share, classes = kept_share(part[score], count), classes_of(part)
    within = auroc_within(part[score], (_counts(part, name) for name in classes))
    for name in (EVERYTHING, *classes):
        pixels, right = _counts(part, name)
        counted = part[score], pixels, right
        values = (
            *(auroc(*counted), within if name == EVERYTHING else float("nan"), aurc(*counted), ece(*counted)),
            float((share * pixels).sum() / pixels.sum()) if pixels.sum() else float("nan"),
            *(_accuracy(pixels, right, weight) for weight in (np.ones_like(share), share, 1 - share)),
        )
        yield {"class": name, **dict(zip(MEASURES, values, strict=True))}


def _counts(part: pd.DataFrame, name: str) -> tuple[Floats, Floats]:
    """Return the numbers of pixels and of right pixels of a class, or of `EVERYTHING`, by region [R]."""
    pixels, right = (part[column].to_numpy(np.float64) for column in of_class(name))
    return pixels, right


def _accuracy(pixels: Floats, right: Floats, weight: Floats) -> float:
    """Return the share of right pixels in weighted regions [R]; NaN without pixels."""
    total = (weight * pixels).sum()
    return float((weight * right).sum() / total) if total else float("nan")
