"""The bootstrap over test images: counts by hand, draws that all runs share, replicates against plain matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fake import CLASSES, Fake, random_batch

from rrn.evaluation import bootstrap, metrics
from rrn.evaluation.region_tables import predict_batches

DRAWN = [[0, 1, 1, 3, 0], [1, 1, 0, 2, 1], [1, 1, 2, 0, 1]]
"""Of five images; with other numbers, runs of two versions could not be paired."""


def predicted(count=6):
    return list(predict_batches(Fake(), [random_batch(seed, count=count // 2) for seed in range(2)]))


def test_counts_are_those_of_each_images_matrix():
    (batch, _), classes = predicted(), len(CLASSES)
    right, called = bootstrap.iou_counts(batch, classes)
    assert right.dtype == torch.int64 and right.shape == (3, 3, classes)
    for one in range(3):
        for image in range(3):
            matrix = metrics.confusion_matrix(batch.predicted[one, image], batch.batch.labels[image], classes)
            assert right[one, image].tolist() == matrix.diagonal().tolist()
            assert called[one, image].tolist() == (matrix.sum(0) + matrix.sum(1)).tolist()


def test_a_replicate_is_the_miou_of_the_images_that_are_drawn():
    batches, classes = predicted(), len(CLASSES)
    table = bootstrap.replicates(bootstrap.iou_counts(batch, classes) for batch in batches)
    assert table.columns.tolist() == ["miou_1", "miou_2", "miou_mean", "miou_ensemble"] and len(table) == 200
    pairs = [(batch, image) for batch in batches for image in range(3)]
    for number in (0, 199):
        total = torch.zeros(3, classes, classes, dtype=torch.int64)
        for times, (batch, image) in zip(bootstrap.draws(6)[number], pairs, strict=True):
            for one in range(3):
                prediction = batch.predicted[one, image]
                total[one] += times * metrics.confusion_matrix(prediction, batch.batch.labels[image], classes)
        one, two, both = (100 * metrics.miou(matrix) for matrix in total)
        assert table.loc[number].tolist() == pytest.approx([one, two, (one + two) / 2, both], abs=1e-4)


def test_batches_change_nothing():
    classes = len(CLASSES)
    counts = [bootstrap.iou_counts(batch, classes) for batch in predicted()]
    assert bootstrap.replicates(counts).equals(bootstrap.replicates([torch.cat(counts, dim=2)]))


def test_draws_depend_on_the_number_of_images_alone_and_stay_what_they_are():
    first = bootstrap.draws(5)
    assert first.shape == (200, 5) and (first.sum(axis=1) == 5).all()
    assert np.array_equal(first, bootstrap.draws(5)) and bootstrap.draws(7).shape == (200, 7)
    assert first[:3].tolist() == DRAWN
    assert first.mean(axis=0) == pytest.approx(1, abs=0.2)


def test_a_miou_without_a_valid_pixel_is_none():
    table = bootstrap.replicates([torch.zeros(2, 3, 4, 3, dtype=torch.int64)])
    assert table.isna().all(axis=None)
