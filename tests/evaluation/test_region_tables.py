"""What is seen of whole images, region by region: counted by hand, whatever the batches, void left out."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from fake import CLASSES, Fake, described, make_batch, random_batch

from rrn.data.batches import WholeBatch
from rrn.evaluation.region_tables import COLUMNS, predict_batches
from rrn.reliability import measures as rel

SCORED = Fake(score=torch.ones(1))


def test_every_valid_pixel_is_counted_once():
    batch = random_batch(5, height=10, width=13)
    table = described(SCORED, [batch], CLASSES)
    for k in range(2):
        part = table[table.segmenter == k + 1]
        hit = batch.images[:, k] == batch.labels
        assert part.right.sum() == hit.sum()
        assert part.pixels.sum() == (batch.labels != 255).sum()
        for index, name in enumerate(CLASSES):
            chosen = (batch.images[:, k] == index) & (batch.labels != 255)
            assert part[f"pixels:{name}"].sum() == chosen.sum()
            assert part[f"right:{name}"].sum() == (chosen & hit).sum()
    assert (table.row.max(), table.column.max()) == (2, 3)
    region = table[(table.id == "i2") & (table.row == 2) & (table.column == 3)].iloc[0]
    corner = batch.labels[2, 8:, 12:]
    valid = corner != 255
    assert region.right == ((batch.images[2, 0, 8:, 12:] == corner) & valid).sum()
    same = (batch.images[2, 0, 8:, 12:] == batch.images[2, 1, 8:, 12:]) & valid
    assert region.agreement == pytest.approx(float(same.sum() / valid.sum()))


def test_scores_by_hand():
    """One region; segmenter 1 gives odds e^5 to 1 to 1, segmenter 2 the root; they agree on half of the pixels."""
    one, two = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
    two[:, :2] = 1
    batch = make_batch(one, two, one, torch.full((1, 4, 4), 51))
    first, second = (row for _, row in described(SCORED, [batch], CLASSES).iterrows())
    p, q = (math.exp(odds) / (math.exp(odds) + 2) for odds in (5, 2.5))
    assert first.confidence == pytest.approx(p) and second.confidence == pytest.approx(q)
    # half of the pixels: both give the same class p and q; the other half: the other one gives it a share of the rest
    assert first.probability == pytest.approx(((p + q) / 2 + (p + (1 - q) / 2) / 2) / 2)
    assert second.probability == pytest.approx(((p + q) / 2 + (q + (1 - p) / 2) / 2) / 2)
    entropy = -p * math.log(p) - (1 - p) * math.log((1 - p) / 2)
    assert first.certainty == pytest.approx(1 - entropy / math.log(3), abs=1e-6)
    assert (first.agreement, second.agreement) == (0.5, 0.5)
    assert (first.region_score, first.other_score, first["product"]) == pytest.approx((0.2, 0.8, 0.16))
    assert 0 < first.divergence == second.divergence < math.log(2)
    assert (first.pixels, first.right, second.right) == (16, 16, 8)


def test_void_counts_for_no_score_and_a_region_of_void_is_left_out():
    one, two, labels = torch.zeros(1, 4, 8), torch.zeros(1, 4, 8), torch.zeros(1, 4, 8)
    two[..., :2] = 1
    labels[..., :2], labels[..., 4:] = 255, 255
    table = described(Fake(), [make_batch(one, two, labels)], CLASSES)
    assert table[["segmenter", "row", "column", "pixels", "right", "agreement"]].to_numpy().tolist() == [
        [1, 0, 0, 8, 8, 1],
        [2, 0, 0, 8, 8, 1],
    ]
    assert table["divergence"].between(0, 0.2).all()
    agreed = make_batch(one, one, labels)
    same = described(Fake(), [agreed], CLASSES)
    assert table["probability"].tolist() == pytest.approx(same["probability"].tolist())  # they differ on void alone


def test_batches_and_their_order_change_nothing():
    batch = random_batch(1, count=6)
    pieces = [
        WholeBatch(batch.images[i : i + n], batch.labels[i : i + n], batch.ids[i : i + n])
        for i, n in ((3, 3), (1, 2), (0, 1))
    ]
    keys = ["id", "segmenter", "row", "column"]
    whole, parts = (described(SCORED, b, CLASSES).sort_values(keys, ignore_index=True) for b in ([batch], pieces))
    pd.testing.assert_frame_equal(whole, parts, rtol=1e-12)
    pd.testing.assert_frame_equal(rel.summarize(whole), rel.summarize(parts), rtol=1e-12)


def test_predictions_are_those_of_both_segmenters_and_of_their_mean():
    batch = random_batch(2)
    (seen,) = predict_batches(Fake(), [batch])
    assert torch.equal(seen.predicted[:2], batch.images[:, :2].long().transpose(0, 1))
    assert torch.equal(seen.predicted[2], seen.predicted[0])  # segmenter 1 is the surer one
    assert torch.allclose(seen.probabilities.sum(2), torch.ones(2, *batch.labels.shape))


def test_nothing_to_describe_gives_the_same_columns_without_rows():
    empty = make_batch(*torch.zeros(2, 1, 8, 8), torch.full((1, 8, 8), 255))
    full = described(Fake(), [random_batch(3)], CLASSES)
    for nothing in ([empty], []):
        table = described(Fake(), nothing, CLASSES)
        assert table.empty and list(table.columns) == list(full.columns)
        assert rel.summarize(table).empty
    assert list(full.columns)[: len(COLUMNS)] == list(COLUMNS)
    assert full[["region_score", "other_score", "product"]].isna().all(axis=None)


def scored_batch(inverse: bool) -> WholeBatch:
    """Left regions are all right, right regions all wrong; the score knows, or is the inverse."""
    predicted = torch.zeros(1, 8, 8)
    predicted[..., 4:] = 1
    score = 255 * (predicted if inverse else 1 - predicted)
    return make_batch(predicted, torch.zeros(1, 8, 8), torch.zeros(1, 8, 8), score)


@pytest.mark.parametrize(("inverse", "auroc", "kept"), [(False, 1.0, 1.0), (True, 0.0, 0.0)])
def test_reliability_of_a_perfect_and_of_an_inverse_score(inverse, auroc, kept):
    table = rel.summarize(described(SCORED, [scored_batch(inverse)], CLASSES))
    table = table[table["class"] == rel.EVERYTHING]
    row = table[(table.segmenter == 1) & (table.score == "region_score")].iloc[0]
    assert (row.auroc, row.accuracy_kept, row.accuracy_dropped) == (auroc, kept, 1 - kept)
    assert (row.coverage, row.accuracy) == (0.5, 0.5)
    agreement = table[(table.segmenter == 1) & (table.score == "agreement")].iloc[0]
    assert agreement.auroc == 1.0  # segmenter 2 is right everywhere
    confidence = table[(table.segmenter == 1) & (table.score == "confidence")].iloc[0]
    assert confidence.auroc == 0.5  # equally sure everywhere
    assert confidence.accuracy_kept == 0.5
    assert table[table.segmenter == 2].auroc.isna().all()  # all right: undefined, no error


def test_ids_are_texts_and_counts_whole_numbers():
    table = described(SCORED, [random_batch(4)], CLASSES)
    assert table["id"].map(type).eq(str).all()
    counts = [column for column in table if column.split(":")[0] in ("pixels", "right")]
    assert len(counts) == 2 * (1 + len(CLASSES))
    assert all(table[column].dtype == np.int64 for column in counts)
