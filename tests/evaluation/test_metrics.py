"""The measuring tool: confusion matrix and mIoU."""

from __future__ import annotations

import math

import pytest
import torch
from fake import CLASSES, Fake, make_batch, random_batch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_confusion_matrix, multiclass_jaccard_index

from rrn.data.batches import WholeBatch
from rrn.evaluation import metrics as ev
from rrn.evaluation.region_tables import predict_batches


def evaluated(model, batches, classes=CLASSES):
    return ev.evaluate(predict_batches(model, batches), classes)


def test_confusion_matrix_of_a_worked_example():
    labels = torch.tensor([[0, 0, 0, 1], [1, 1, 2, 255]])
    prediction = torch.tensor([[0, 0, 1, 1], [1, 2, 0, 2]])
    matrix = ev.confusion_matrix(prediction, labels, 3)
    assert matrix.tolist() == [[2, 1, 0], [0, 2, 1], [1, 0, 0]]
    assert matrix.dtype == torch.int64
    # sky: 2 hits, 1 false, 1 missed; road: 2, 1, 1; tree: 0 of 2
    assert ev.iou(matrix).tolist() == pytest.approx([0.5, 0.5, 0.0])
    assert ev.miou(matrix) == pytest.approx(1 / 3)


def test_a_class_that_is_absent_everywhere_does_not_count_but_a_false_one_does():
    labels = torch.tensor([0, 0, 1, 1])
    absent = ev.confusion_matrix(torch.tensor([0, 0, 1, 0]), labels, 3)
    assert math.isnan(ev.iou(absent)[2])
    assert ev.miou(absent) == pytest.approx((2 / 3 + 1 / 2) / 2)
    false = ev.confusion_matrix(torch.tensor([0, 0, 1, 2]), labels, 3)
    assert ev.iou(false).tolist() == pytest.approx([1.0, 0.5, 0.0])
    assert math.isnan(ev.miou(torch.zeros(3, 3)))


@given(st.integers(0, 2**31), st.integers(2, 6))
@settings(max_examples=20, deadline=None)
def test_confusion_matrix_equals_torchmetrics(seed: int, classes: int):
    draw = torch.Generator().manual_seed(seed)
    prediction, labels = torch.randint(0, classes, (2, 2, 5, 7), generator=draw)
    labels[torch.rand(labels.shape, generator=draw) < 0.3] = 255
    labels[0, 0, :classes] = torch.arange(classes)[:7]
    ours = ev.confusion_matrix(prediction, labels, classes)
    theirs = multiclass_confusion_matrix(prediction, labels, classes, ignore_index=255)
    assert torch.equal(ours, theirs)
    jaccard = multiclass_jaccard_index(prediction, labels, classes, average="none", ignore_index=255)
    assert torch.allclose(ev.iou(ours).float(), jaccard)


def test_ignored_pixels_change_nothing():
    batch = random_batch(0)
    void = (batch.labels == 255)[:, None].expand_as(batch.images)
    other = torch.where(void & (torch.arange(3) < 2).view(3, 1, 1), 2 - batch.images, batch.images)
    changed = WholeBatch(other, batch.labels, batch.ids)
    assert not torch.equal(changed.images, batch.images)
    first, second = (evaluated(Fake(), [b]) for b in (batch, changed))
    for name in ev.SEGMENTERS:
        assert torch.equal(first.matrices[name], second.matrices[name])


def test_the_mean_is_of_the_segmenters_that_learned():
    seen = list(predict_batches(Fake(), [random_batch(2)]))
    pair, student = (ev.evaluate(seen, CLASSES, students).metrics() for students in (2, 1))
    assert pair["miou_1"] != pair["miou_2"] and pair["miou_mean"] == (pair["miou_1"] + pair["miou_2"]) / 2
    classes = ev.evaluate(seen, CLASSES, 1).per_class()
    assert classes["iou_mean"].equals(classes["iou_1"]) and not classes["iou_mean"].equals(classes["iou_2"])
    assert student == pair | {"miou_mean": pair["miou_1"]} and pair == ev.evaluate(seen, CLASSES).metrics()


def test_batches_and_their_order_change_nothing():
    batch = random_batch(1, count=6)
    pieces = [
        WholeBatch(batch.images[i : i + n], batch.labels[i : i + n], batch.ids[i : i + n])
        for i, n in ((3, 3), (1, 2), (0, 1))
    ]
    assert evaluated(Fake(), [batch]).metrics() == evaluated(Fake(), pieces).metrics()


def test_metrics_of_segmenters_and_of_the_mean_of_their_probabilities():
    labels = torch.tensor([[[0, 1], [1, 2]]])
    right, wrong = labels.clone(), torch.tensor([[[0, 1], [1, 1]]])
    result = evaluated(Fake(), [make_batch(right, wrong, labels)])
    metrics = result.metrics()
    assert metrics["miou_1"] == pytest.approx(100)
    assert metrics["miou_2"] == pytest.approx(100 * (1 + 2 / 3) / 3)
    assert metrics["miou_mean"] == pytest.approx((metrics["miou_1"] + metrics["miou_2"]) / 2)
    assert metrics["miou_ensemble"] == pytest.approx(100)  # segmenter 1 is the surer one
    assert metrics["pixel_accuracy"] == 100
    table = result.per_class()
    assert table["class"].tolist() == list(CLASSES)
    assert table["pixels"].tolist() == [1, 2, 1]
    assert table["iou_2"].tolist() == pytest.approx([100, 200 / 3, 0])


def test_counts_are_whole_numbers_by_segmenter_and_the_accuracy_is_that_of_the_ensemble():
    labels = torch.tensor([[[0, 1], [1, 2]]])
    one, two = torch.tensor([[[0, 1], [1, 1]]]), labels.clone()  # the first, the surer one, has 3 of 4 right
    result = evaluated(Fake(), [make_batch(one, two, labels)])
    assert list(result.matrices) == ["segmenter 1", "segmenter 2", "ensemble"]
    assert all(matrix.dtype == torch.int64 for matrix in result.matrices.values())  # float32 loses count at 2^24 pixels
    assert [int(matrix.trace()) for matrix in result.matrices.values()] == [3, 4, 3]
    assert result.metrics()["pixel_accuracy"] == 75
    assert list(result.per_class()) == ["class", "iou_1", "iou_2", "iou_mean", "iou_ensemble", "pixels"]


def test_where_the_label_is_void_a_prediction_may_be_anything():
    """A network may be asked about classes that the data set does not have."""
    labels, prediction = torch.tensor([0, 1, 255, 255, 255]), torch.tensor([0, 0, 5, 6, 7])
    assert ev.confusion_matrix(prediction, labels, 2).tolist() == [[1, 0], [1, 0]]
