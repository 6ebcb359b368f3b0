"""Does a score know where pseudo-labels are wrong? Numbers in, numbers out; no torch, no files.

Everything starts from a table with one row per region (`rrn.evaluate.region_table`): its scores and
how many of its pixels are right and wrong. Pixels themselves are never kept: memory stays flat.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

SCORES = ("region_score", "confidence", "agreement")
Floats = npt.NDArray[np.float64]
Threshold = tuple[str, float]
"""A score and the value from which it keeps a region, as ("region_score", 0.6)."""


def auroc(score: npt.ArrayLike, right: npt.ArrayLike, wrong: npt.ArrayLike) -> float:
    """Return the probability that a right pixel scores higher than a wrong one, ties counting 1/2.

    Exactly the AUROC over all pixels, each with its region's score, computed from counts.

    Args:
        score: float [R], one per region.
        right: number of right pixels [R].
        wrong: number of wrong pixels [R].

    Returns:
        0..1; NaN if there is no right or no wrong pixel, or if a score is not a number.
    """
    values, place = np.unique(np.asarray(score, dtype=np.float64), return_inverse=True)
    if np.isnan(values).any():
        return float("nan")
    good = np.bincount(place, np.asarray(right, dtype=np.float64), len(values))
    bad = np.bincount(place, np.asarray(wrong, dtype=np.float64), len(values))
    pairs = good.sum() * bad.sum()
    return float((good * (bad.cumsum() - bad / 2)).sum() / pairs) if pairs else float("nan")


def kept_share(score: npt.ArrayLike, count: float) -> Floats:
    """Return which of the scores [R] are among the `count` best: 1 kept, 0 dropped.

    Regions tied at the cut share what is left of it, so the order of the regions does not matter.
    """
    ordered, place, ties = np.unique(np.asarray(score), return_inverse=True, return_counts=True)
    better = ties.sum() - ties.cumsum()
    return np.clip((count - better) / ties, 0.0, 1.0)[place] if len(ordered) else np.zeros(0)


def keep_count(fraction: float, regions: int) -> int:
    """Return how many of `regions` a fraction (0..1) keeps, a half rounded up."""
    return int(np.floor(fraction * regions + 0.5))


def summarise(table: pd.DataFrame, fraction: float = 0.5, threshold: Threshold | None = None) -> pd.DataFrame:
    """Compare the scores of pseudo-labels with their correctness over a whole data set.

    Args:
        table: of `rrn.evaluate.region_table`.
        fraction: share of the regions that is kept, the best by each score, 0..1.
        threshold: a score, and the value from which it keeps regions instead; the other scores keep
            as many regions of the same segmenter, so that all are compared at equal coverage. Falls
            back to `fraction` where the row does not have that score.

    Returns:
        one row per segmenter and score that exists: segmenter, score, auroc (per valid pixel),
        coverage (share of regions kept), accuracy, accuracy_kept, accuracy_dropped (shares of right
        pixels, 0..1); NaN where undefined.
    """
    rows = []
    for segmenter, part in table.groupby("segmenter"):
        kept = keep_count(fraction, len(part))
        if threshold is not None and part[threshold[0]].notna().all():
            kept = int((part[threshold[0]] >= threshold[1]).sum())
        for score in SCORES:
            if part[score].notna().any():
                rows.append({"segmenter": segmenter, "score": score, **_row(part, score, kept)})
    names = ["auroc", "coverage", "accuracy", "accuracy_kept", "accuracy_dropped"]
    return pd.DataFrame(rows, columns=["segmenter", "score", *names])


def _row(part: pd.DataFrame, score: str, kept: int) -> dict[str, float]:
    """Return the numbers of one row of `summarise`; `kept` regions are kept."""
    right, wrong = (part[name].to_numpy(np.float64) for name in ("right", "wrong"))
    share = kept_share(part[score], kept)
    return {
        "auroc": auroc(part[score], right, wrong),
        "coverage": kept / len(part),
        "accuracy": _accuracy(right, wrong, np.ones_like(share)),
        "accuracy_kept": _accuracy(right, wrong, share),
        "accuracy_dropped": _accuracy(right, wrong, 1 - share),
    }


def _accuracy(right: Floats, wrong: Floats, weight: Floats) -> float:
    """Return the share of right pixels in weighted regions [R]; NaN without pixels."""
    pixels = (weight * (right + wrong)).sum()
    return float((weight * right).sum() / pixels) if pixels else float("nan")
