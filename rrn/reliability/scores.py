"""The scores of regions by name: the one list that tables, measures, figures and the explorer read. No torch.

A score is a column of a region table, 0 to 1, high where a pseudo-label is trusted. Its numbers are those of the
function of its name in `rrn.evaluation.scores`.
"""

from __future__ import annotations

SCORES = {
    "region_score": "region score",
    "other_score": "other discriminator's score",
    "product": "product of both discriminators",
    "confidence": "confidence",
    "probability": "probability by both segmenters",
    "certainty": "certainty",
    "agreement": "agreement",
}
"""Column of a region table, in this order -> its words. confidence: mean max-softmax; probability: mean of both
segmenters' probability of the pseudo-label; certainty: 1 - entropy / log C; agreement: the share of the pixels on which
the two segmenters agree [all ours, but the region score: abstract]."""

LATER = ("probability",)
"""Scores that older region tables lack."""

RANKED = tuple(name for name in SCORES if name != "other_score")
"""The scores that are measured, and that can decide which regions are kept: all but that of the branch's other
discriminator alone."""
