"""Which regions a rule keeps, and how rho weighs them: the method's selection, on region tables. No torch.

The formulas are those of `RRN.keep`, `RRN.rho` and `regions.normalized`, with all regions of a table in place of those
of a batch. Each segmenter's regions are selected among themselves.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from rrn.config import Filter

RHOS = ("none", "product", "mean", "votes", "agreement", "divergence", "probability")

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]


def keep_count(fraction: float, regions: int) -> int:
    """Return how many of `regions` a fraction (0..1) keeps, a half rounded up."""
    return int(np.floor(fraction * regions + 0.5))


def kept_count(regions: pd.DataFrame, rule: Filter) -> int:
    """Return how many regions of one segmenter a row keeps; the controls keep as many as the region score would.

    A row that filters no regions, or keeps all with soft weights, gets the count at which its scores are compared: its
    fraction, or half of the regions where it says `keep: threshold`.
    """
    if rule.keep != "threshold":
        return keep_count(rule.fraction, len(regions))
    if rule.by in ("none", "pixel_confidence") or regions["region_score"].isna().any():
        return keep_count(0.5, len(regions))
    return int((regions["region_score"] >= rule.tau).sum())


def kept_regions(regions: pd.DataFrame, rule: Filter) -> Flags:
    """Return which regions of one segmenter, R rows of a region table, a row's filter keeps: bool [R].

    A row without filter keeps all, and so does one with soft weights. So, here, does the random one, whose coins were
    those of training, and one that filters pixels. Regions tied at the cut stay or go together.
    """
    if rule.by in ("none", "random", "pixel_confidence") or rule.keep == "soft":
        return np.ones(len(regions), bool)
    score = filter_score(regions, rule.by)
    if rule.keep == "threshold" and rule.by == "region_score":
        return score >= rule.tau
    if rule.per == "batch":
        return kept_share(score, kept_count(regions, rule)) >= 0.5
    kept, classes = np.zeros(len(regions), bool), region_classes(regions)
    for c in np.unique(classes):
        own = classes == c
        kept[own] = kept_share(score[own], keep_count(rule.fraction, int(own.sum()))) >= 0.5
    return kept


def filter_score(regions: pd.DataFrame, by: str) -> Floats:
    """Return the score that `filter.by` names of R rows of a region table [R], the best highest."""
    if by == "confidence_divergence":
        return (regions["confidence"] * np.exp(-regions["divergence"])).to_numpy(np.float64)
    return regions[by].to_numpy(np.float64)


def region_classes(regions: pd.DataFrame) -> Places:
    """Return the number of the most frequent class of each region's pseudo-labels [R]."""
    return regions.filter(regex="^pixels:").to_numpy().argmax(1)


def rank_scores(score: Floats, segmenter: Places) -> Places:
    """Return how many regions of the same segmenter are better [R]; ties in a fixed, random order.

    Ties at a cut are so kept from images everywhere, as in the shuffled batches of a training.
    """
    coins = np.random.default_rng(0).permutation(len(score))
    order = np.lexsort((coins, -score, segmenter))
    first = np.searchsorted(segmenter[order], segmenter[order])
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order)) - first
    return ranks


def best_fraction(ranks: Places, segmenter: Places, fraction: float) -> Flags:
    """Return which regions are among the best `fraction` (0..1) of their segmenter's, 1 | 2 [R]: bool [R]."""
    counts = np.array([keep_count(fraction, int(regions)) for regions in np.bincount(segmenter, minlength=3)])
    return ranks < counts[segmenter]


def kept_share(score: npt.ArrayLike, count: float) -> Floats:
    """Return which of the scores [R] are among the `count` best: 1 kept, 0 dropped.

    Regions tied at the cut share what is left of it, so the order of the regions does not matter.
    """
    ordered, place, ties = np.unique(np.asarray(score), return_inverse=True, return_counts=True)
    better = ties.sum() - ties.cumsum()
    return np.clip((count - better) / ties, 0.0, 1.0)[place] if len(ordered) else np.zeros(0)


def rate_regions(regions: pd.DataFrame, kind: str, tau: float) -> Floats:
    """Rate every region by the diversity of the two networks [R], at least 0.

    Args:
        regions: R rows of a region table.
        kind: one of RHOS, other than none.
        tau: from which region score on a discriminator votes for a region.

    Raises:
        ValueError: the table is older than the probability.
    """
    if kind == "probability" and kind not in regions:
        raise ValueError("the region table has no column probability, which rho: probability reads: evaluate again")
    if kind in ("agreement", "probability"):
        return regions[kind].to_numpy(np.float64)
    if kind == "divergence":
        return np.exp(-regions["divergence"].to_numpy(np.float64))
    both = regions[["region_score", "other_score"]].to_numpy(np.float64)
    if kind == "votes":
        both = (both >= tau).astype(np.float64)
    return cast(Floats, both.prod(1) if kind == "product" else both.mean(1))


def weigh_regions(regions: pd.DataFrame, chosen: Flags, rating: Floats) -> Floats:
    """Return the weight W of every region [R]: 0 if dropped, and 1 in the mean over the pixels that a segmenter keeps.

    Args:
        regions: R rows of a region table.
        chosen: which of them are kept, bool [R].
        rating: of `rho` [R].
    """
    rated, pixels = rating * chosen, regions["pixels"].to_numpy(np.float64)
    for k in (1, 2):
        own = (regions["segmenter"] == k).to_numpy()
        mass = (rated * pixels)[own].sum()
        rated[own] *= (chosen * pixels)[own].sum() / mass if mass > 0 else 1.0
    return rated
