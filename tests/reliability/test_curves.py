"""Curves of a run: means of both segmenters by hand, and what has no value."""

import math

import pandas as pd
import pytest

from rrn.reliability import measures
from rrn.reliability.curves import COVERAGES, RunCurves, run_curves
from rrn.reliability.measures import HALF

REGIONS = pd.DataFrame(
    {
        "segmenter": [1, 1, 2, 2],
        "confidence": [0.9, 0.1, 0.9, 0.1],
        "agreement": [0.5, 0.5, 0.5, math.nan],
        "pixels": 100,
        "right": [100, 0, 80, 20],
    }
)
RULE = HALF.model_copy(update={"by": "confidence"})


def test_risk_and_calibration_are_means_of_both_segmenters():
    found = run_curves(REGIONS, RULE)
    assert (found.pixels, found.right, found.kept) == (400, 200, 0.5)
    curves = found.scores["confidence"]
    assert (len(curves.risk), len(curves.accuracy), len(curves.shares)) == (100, measures.BINS, measures.BINS)
    risk = dict(zip(COVERAGES.round(2), curves.risk, strict=True))
    assert risk[0.5] == pytest.approx((0 + 0.2) / 2) and risk[1.0] == pytest.approx(0.5)
    assert (curves.accuracy[1], curves.accuracy[13]) == (pytest.approx(0.1), pytest.approx(0.9))
    assert curves.accuracy[0] is None and sum(curves.shares) == pytest.approx(1)
    assert curves.ece == pytest.approx(0.1)


def test_scores_that_are_not_known_everywhere_are_left_out_and_all_is_read_back():
    found = run_curves(REGIONS, RULE)
    assert list(found.scores) == ["confidence"]
    assert RunCurves.model_validate_json(found.model_dump_json()) == found
