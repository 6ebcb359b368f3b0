"""Measures of a score: by hand, against slow references on single pixels, and where nothing is defined."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_auroc, binary_calibration_error

from rrn.reliability import measures as rel
from rrn.reliability.scores import LATER, RANKED

regions = st.lists(
    st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.integers(0, 5), st.integers(0, 5)),
    min_size=1,
    max_size=12,
)


def columns(rows):
    """Return scores, pixels and right pixels of (score, right, wrong)."""
    score, right, wrong = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    return score, right + wrong, right


def expanded(rows):
    """Return the score of each pixel, and whether it is right."""
    pixels = [p for score, right, wrong in rows for p in [(score, 1)] * right + [(score, 0)] * wrong]
    values, targets = zip(*pixels, strict=True)
    return torch.tensor(values), torch.tensor(targets)


@given(regions)
@settings(max_examples=60, deadline=None)
def test_auroc_equals_torchmetrics_on_the_expanded_pixels(rows):
    _, pixels, right = columns(rows)
    if not right.sum() or not (pixels - right).sum():
        assert math.isnan(rel.auroc(*columns(rows)))
        return
    assert rel.auroc(*columns(rows)) == pytest.approx(float(binary_auroc(*expanded(rows))), abs=1e-6)


def test_auroc_by_hand():
    assert rel.auroc([0.9, 0.1], [3, 5], [3, 0]) == 1.0
    assert rel.auroc([0.1, 0.9], [3, 5], [3, 0]) == 0.0
    assert rel.auroc([0.4, 0.4], [5, 6], [3, 1]) == 0.5
    # pairs of right and wrong: (0.9 vs 0.9) 2, tied; (0.9 vs 0.2) 6; (0.2 vs 0.2) 3, tied; (0.2 vs 0.9) 1
    assert rel.auroc([0.9, 0.2], [3, 4], [2, 1]) == pytest.approx((1 + 6 + 1.5) / 12)
    assert math.isnan(rel.auroc([0.9, 0.2], [2, 1], [2, 1]))
    assert math.isnan(rel.auroc([0.9, math.nan], [3, 2], [2, 1]))
    assert math.isnan(rel.auroc([], [], []))


def expected_classes(regions):
    """Return a score that is high for class a, right in 9 of 10 pixels, and low for class b, right in 1 of 10."""
    score = np.repeat([0.9, 0.1], regions)
    easy, hard = (np.repeat(held, regions) * 10.0 for held in ((1, 0), (0, 1)))
    return score, [(easy, easy * 0.9), (hard, hard * 0.1)]


def test_within_classes_a_score_that_only_tells_the_classes_apart_is_a_coin():
    score, counts = expected_classes(100)
    pixels, right = (sum(parts) for parts in zip(*counts, strict=True))
    assert rel.auroc(score, pixels, right) == pytest.approx(0.9)
    assert rel.auroc_within(score, counts) == pytest.approx(0.5)


def test_within_classes_the_mean_is_weighted_by_pixels():
    score = np.linspace(0, 1, 100)
    knows = np.where(score > 0.5, 1.0, 0.0)
    counts = [(np.ones(100), knows), (3 * np.ones(100), 3 - 3 * knows)]
    assert rel.auroc_within(score, counts) == pytest.approx((1 * 1 + 3 * 0) / 4)


def test_within_classes_a_class_counts_from_100_regions_on_if_it_is_right_and_wrong():
    score = np.linspace(0, 1, 101)
    knows = np.where(score > 0.5, 1.0, 0.0)
    every, fewer = np.ones(101), np.r_[np.zeros(2), np.ones(99)]
    just = np.r_[np.zeros(1), np.ones(100)]
    assert rel.auroc_within(score, [(every, knows)]) == 1
    assert rel.auroc_within(score, [(just, just * knows)]) == 1
    assert math.isnan(rel.auroc_within(score, [(fewer, fewer * knows)]))
    assert rel.auroc_within(score, [(every, knows), (fewer, fewer * (1 - knows))]) == 1
    assert rel.auroc_within(score, [(every, knows), (every, every), (9 * every, 0 * every)]) == 1
    assert math.isnan(rel.auroc_within(score, [(every, every), (every, 0 * every)]))
    assert math.isnan(rel.auroc_within(score, []))
    assert math.isnan(rel.auroc_within(np.r_[math.nan, score[1:]], [(every, knows)]))


def test_the_summary_has_the_auroc_within_classes_for_all_classes_together():
    score, ((a, a_right), (b, b_right)) = expected_classes(100)
    counts = {"pixels:a": a, "right:a": a_right, "pixels:b": b, "right:b": b_right}
    table = rel.summarize(table_of(score, a + b, a_right + b_right, **counts)).set_index(["score", "class"])
    for name in RANKED:
        assert table.loc[(name, rel.EVERYTHING), ["auroc", "auroc_within"]].tolist() == pytest.approx([0.9, 0.5])
        assert table.loc[(name, ["a", "b"]), "auroc_within"].isna().all()
    few, ((a, a_right), (b, b_right)) = expected_classes(99)
    counts = {"pixels:a": a, "right:a": a_right, "pixels:b": b, "right:b": b_right}
    assert rel.summarize(table_of(few, a + b, a_right + b_right, **counts))["auroc_within"].isna().all()


def test_a_score_that_an_older_table_lacks_is_not_measured():
    table = table_of([0.9, 0.8, 0.2, 0.1], [4, 4, 4, 8], [4, 3, 2, 0])
    older = rel.summarize(table.drop(columns=[*LATER]))
    assert set(older["score"]) == set(RANKED) - set(LATER) and "probability" in LATER
    newer = rel.summarize(table)
    pd.testing.assert_frame_equal(older, newer[~newer["score"].isin(LATER)].reset_index(drop=True))


def test_risk_coverage_by_hand():
    coverage, risk = rel.risk_coverage([0.2, 0.9, 0.5, 0.9, 0.7], [4, 2, 4, 2, 0], [0, 2, 3, 2, 0])
    assert coverage.tolist() == pytest.approx([4 / 12, 8 / 12, 1])  # a region without pixels is no point
    assert risk.tolist() == pytest.approx([0, 1 / 8, 5 / 12])
    assert [len(part) for part in rel.risk_coverage([math.nan], [1], [1])] == [0, 0]


@given(regions)
@settings(max_examples=60, deadline=None)
def test_area_under_the_risk_coverage_curve_is_the_mean_risk_over_all_coverages(rows):
    """Reference: the integral on a fine grid, with the wrong pixels of tied regions growing linearly."""
    score, pixels, right = columns(rows)
    if not pixels.sum():
        assert math.isnan(rel.aurc(score, pixels, right))
        return
    coverage, risk = rel.risk_coverage(score, pixels, right)
    places = (np.arange(20000) + 0.5) / 20000
    wrong = np.interp(places, np.r_[0, coverage], np.r_[0, coverage * risk])
    assert rel.aurc(score, pixels, right) == pytest.approx(float((wrong / places).mean()), abs=2e-4)


def test_area_of_a_score_that_knows_everything_and_of_one_that_knows_nothing():
    assert rel.aurc([0.5, 0.5], [5, 5], [5, 2]) == pytest.approx(0.3)  # ties: the risk is the same at every coverage
    # half is right and comes first: the risk is 0 up to 1/2, then (c - 1/2) / c, whose integral is 1/2 - log(2)/2
    assert rel.aurc([1.0, 0.0], [5, 5], [5, 0]) == pytest.approx(0.5 - math.log(2) / 2)


@given(regions)
@settings(max_examples=60, deadline=None)
def test_calibration_error_equals_torchmetrics_on_the_expanded_pixels(rows):
    score, pixels, right = columns(rows)
    if not pixels.sum():
        assert math.isnan(rel.ece(score, pixels, right))
        return
    values, targets = expanded(rows)
    low = torch.where(values == 1, 1 - 1e-6, values) + 1e-7  # theirs puts a border into the lower bin, ours the upper
    theirs = binary_calibration_error(low, targets, n_bins=rel.BINS, norm="l1")
    assert rel.ece(score, pixels, right) == pytest.approx(float(theirs), abs=1e-5)


def test_calibration_by_hand():
    table = rel.calibration([0.05, 0.08, 0.95, 1.0], [10, 10, 5, 5], [0, 4, 5, 3], bins=10)
    assert table.to_dict("list") == {
        "low": [0.0, 0.9],
        "high": [0.1, 1.0],
        "score": [pytest.approx(0.065), pytest.approx(0.975)],
        "accuracy": [pytest.approx(0.2), pytest.approx(0.8)],
        "pixels": [20, 10],
    }
    assert rel.ece([0.05, 0.08, 0.95, 1.0], [10, 10, 5, 5], [0, 4, 5, 3]) > 0
    assert rel.ece([0.5], [10], [5]) == 0
    assert rel.ece([0.9], [10], [5]) == pytest.approx(0.4)


def table_of(score, pixels, right, **counts):
    """Return a region table of one segmenter in which all scores are the same, for classes a and b."""
    count = len(score)
    values = {"segmenter": [1] * count} | {name: score for name in RANKED}
    values |= {"pixels": pixels, "right": right, "pixels:a": pixels, "right:a": right}
    return pd.DataFrame(values | {"pixels:b": [0] * count, "right:b": [0] * count} | counts)


def test_summary_by_hand():
    table = rel.summarize(table_of([0.9, 0.8, 0.2, 0.1], [4, 4, 4, 8], [4, 3, 2, 0]), rel.HALF)
    row = table[(table["score"] == "confidence") & (table["class"] == rel.EVERYTHING)].iloc[0]
    assert row[["coverage", "accuracy", "accuracy_kept", "accuracy_dropped"]].tolist() == pytest.approx(
        [8 / 20, 9 / 20, 7 / 8, 2 / 12]
    )
    assert list(table.columns) == ["segmenter", "score", "class", *rel.MEASURES]
    assert table["class"].tolist() == [rel.EVERYTHING, "a", "b"] * len(RANKED)


def test_classes_are_measured_by_their_own_pixels_at_the_common_cut():
    counts = {"pixels:a": [4, 0, 4, 0], "right:a": [4, 0, 1, 0], "pixels:b": [0, 4, 0, 8], "right:b": [0, 1, 0, 6]}
    table = rel.summarize(table_of([0.9, 0.8, 0.2, 0.1], [4, 4, 4, 8], [4, 1, 1, 6], **counts), rel.HALF)
    rows = table[table["score"] == "region_score"].set_index("class")
    assert rows["coverage"].tolist() == pytest.approx([8 / 20, 1 / 2, 4 / 12])
    assert rows["accuracy"].tolist() == pytest.approx([12 / 20, 5 / 8, 7 / 12])
    assert rows.loc["a", ["accuracy_kept", "accuracy_dropped"]].tolist() == [1, 0.25]
    assert rows.loc["b", ["accuracy_kept", "accuracy_dropped"]].tolist() == [0.25, 0.75]
    assert rows.loc["a", "auroc"] > 0.5 > rows.loc["b", "auroc"]


def test_a_class_that_no_pseudo_label_has_is_undefined_and_no_error():
    table = rel.summarize(table_of([0.9, 0.1], [4, 4], [4, 1]))
    assert table.loc[table["class"] == "b", list(rel.MEASURES)].isna().all(axis=None)


def test_a_threshold_sets_the_coverage_of_every_score():
    table = table_of([0.9, 0.7, 0.5, 0.1], [4, 4, 4, 4], [4, 4, 0, 0])
    table["confidence"] = [0.1, 0.2, 0.3, 0.4]

    def rule(tau):
        return rel.HALF.model_copy(update={"by": "confidence", "keep": "threshold", "tau": tau})

    def coverage(tau):
        summary = rel.summarize(table, rule(tau))
        return summary.loc[summary["class"] == rel.EVERYTHING, "coverage"].tolist()

    assert coverage(0.6) == [0.5] * len(RANKED)
    assert coverage(0.5) == [0.75] * len(RANKED)  # a score at the threshold is kept
    assert coverage(0.05) == [1] * len(RANKED)
    assert coverage(0.95) == [0] * len(RANKED)
    nothing = rel.summarize(table, rule(0.95))
    assert nothing["accuracy_kept"].isna().all()
    table["region_score"] = math.nan
    summary = rel.summarize(table, rule(0.6))
    assert summary.loc[summary["class"] == rel.EVERYTHING, "coverage"].eq(0.5).all()
    assert "region_score" not in set(summary["score"])
