"""The measuring tool: confusion matrix, mIoU, reliability of pseudo-labels, evidence, cost, files."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchmetrics.functional.classification import (
    binary_auroc,
    multiclass_confusion_matrix,
    multiclass_jaccard_index,
)

from rrn import config
from rrn import evaluate as ev
from rrn import reliability as rel
from rrn.data import splits
from rrn.data.loaders import WholeBatch
from rrn.data.sets import ImageSet

CLASSES = ("sky", "road", "tree")


class Fake:
    """A model whose logits are functions of the image: channels 0 and 1 are the predicted classes."""

    device = torch.device("cpu")
    region = 4
    segmenters = nn.ModuleList([nn.Conv2d(3, 3, 1)] * 2)

    def __init__(self, score: Tensor | None = None, sure: float = 5.0):
        self.score, self.sure = score, sure

    def logits(self, images: Tensor) -> Tensor:
        predicted = images[:, :2].long().transpose(0, 1)  # [2, B, H, W]
        one_hot = nn.functional.one_hot(predicted, 3).permute(0, 1, 4, 2, 3).float()
        return one_hot * self.sure * torch.tensor([1.0, 0.5]).view(2, 1, 1, 1, 1)

    def region_scores(self, logits: Tensor, images: Tensor) -> Tensor | None:
        """Score = mean of channel 2 of the region / 255 (both segmenters)."""
        if self.score is None:
            return None
        total = ev.region_total(images[:, 2].float() / 255, self.region)
        return (total / self.region**2).expand(2, *total.shape)


def make_batch(one: Tensor, two: Tensor, labels: Tensor, third: Tensor | None = None) -> WholeBatch:
    third = torch.zeros_like(one) if third is None else third
    images = torch.stack([one, two, third], dim=1).to(torch.uint8)
    return WholeBatch(images, labels.long(), tuple(f"i{n}" for n in range(len(one))))


def random_batch(seed: int, count: int = 4, height: int = 10, width: int = 13) -> WholeBatch:
    draw = torch.Generator().manual_seed(seed)
    shape = (count, height, width)
    one, two, labels = torch.randint(0, 3, (3, *shape), generator=draw)
    third = torch.randint(0, 256, shape, generator=draw)
    labels[torch.rand(shape, generator=draw) < 0.2] = 255
    return make_batch(one, two, labels, third)


# ---- confusion matrix


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
    first, second = (ev.evaluate(Fake(), [b], CLASSES) for b in (batch, changed))
    for name in ev.SEGMENTERS:
        assert torch.equal(first.matrices[name], second.matrices[name])
    pd.testing.assert_frame_equal(*[ev.reliability(Fake(), [b]) for b in (batch, changed)])


def test_batches_and_their_order_change_nothing():
    batch = random_batch(1, count=6)
    pieces = [
        WholeBatch(batch.images[i : i + n], batch.labels[i : i + n], batch.ids[i : i + n])
        for i, n in ((3, 3), (1, 2), (0, 1))
    ]
    model = Fake(score=torch.ones(1))
    assert ev.evaluate(model, [batch], CLASSES).metrics() == ev.evaluate(model, pieces, CLASSES).metrics()
    whole, parts = ev.reliability(model, [batch]), ev.reliability(model, pieces)
    pd.testing.assert_frame_equal(whole, parts, rtol=1e-12)
    first, second = ev.evidence(model, [batch]), ev.evidence(model, pieces)
    assert all(np.array_equal(first[key], second[key]) for key in first)


def test_metrics_of_segmenters_and_of_the_mean_of_their_probabilities():
    labels = torch.tensor([[[0, 1], [1, 2]]])
    right, wrong = labels.clone(), torch.tensor([[[0, 1], [1, 1]]])
    result = ev.evaluate(Fake(), [make_batch(right, wrong, labels)], CLASSES)
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


# ---- reliability

regions = st.lists(
    st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.integers(0, 5), st.integers(0, 5)),
    min_size=1,
    max_size=12,
)


@given(regions)
@settings(max_examples=60, deadline=None)
def test_auroc_equals_torchmetrics_on_the_expanded_pixels(rows: list[tuple[float, int, int]]):
    score, right, wrong = zip(*rows, strict=True)
    if not sum(right) or not sum(wrong):
        assert math.isnan(rel.auroc(score, right, wrong))
        return
    pixels = [p for s, r, w in rows for p in [(s, 1)] * r + [(s, 0)] * w]
    values, targets = (torch.tensor(column) for column in zip(*pixels, strict=True))
    assert rel.auroc(score, right, wrong) == pytest.approx(float(binary_auroc(values, targets)), abs=1e-6)


def test_auroc_by_hand():
    assert rel.auroc([0.9, 0.1], [3, 0], [0, 5]) == 1.0
    assert rel.auroc([0.1, 0.9], [3, 0], [0, 5]) == 0.0
    assert rel.auroc([0.4, 0.4], [3, 1], [2, 5]) == 0.5
    # pairs of right and wrong: (0.9 vs 0.9) 2, tied; (0.9 vs 0.2) 6; (0.2 vs 0.2) 3, tied; (0.2 vs 0.9) 1
    assert rel.auroc([0.9, 0.2], [2, 1], [1, 3]) == pytest.approx((1 + 6 + 1.5) / 12)
    assert math.isnan(rel.auroc([0.9, 0.2], [2, 1], [0, 0]))
    assert math.isnan(rel.auroc([0.9, math.nan], [2, 1], [1, 1]))
    assert math.isnan(rel.auroc([], [], []))


def test_regions_tied_at_the_cut_share_it():
    assert rel.kept_share([0.9, 0.5, 0.5, 0.1], 2).tolist() == [1, 0.5, 0.5, 0]
    assert rel.kept_share([0.9, 0.5, 0.5, 0.1], 3).tolist() == [1, 1, 1, 0]
    assert rel.kept_share([0.3, 0.3], 0).tolist() == [0, 0]
    assert rel.kept_share([], 1).tolist() == []


def scored_batch(inverse: bool) -> WholeBatch:
    """Left regions are all right, right regions all wrong; the score knows, or is the inverse."""
    labels = torch.zeros(1, 8, 8)
    predicted = torch.zeros(1, 8, 8)
    predicted[..., 4:] = 1
    score = 255 * (predicted if inverse else 1 - predicted)
    return make_batch(predicted, torch.zeros(1, 8, 8), labels, score)


@pytest.mark.parametrize(("inverse", "auroc", "kept"), [(False, 1.0, 1.0), (True, 0.0, 0.0)])
def test_reliability_of_a_perfect_and_of_an_inverse_score(inverse: bool, auroc: float, kept: float):
    table = ev.reliability(Fake(score=torch.ones(1)), [scored_batch(inverse)])
    row = table[(table.segmenter == 1) & (table.score == "region_score")].iloc[0]
    assert (row.auroc, row.accuracy_kept, row.accuracy_dropped) == (auroc, kept, 1 - kept)
    assert (row.coverage, row.accuracy) == (0.5, 0.5)
    agreement = table[(table.segmenter == 1) & (table.score == "agreement")].iloc[0]
    assert agreement.auroc == 1.0  # segmenter 2 is right everywhere
    confidence = table[(table.segmenter == 1) & (table.score == "confidence")].iloc[0]
    assert confidence.auroc == 0.5  # equally sure everywhere
    assert confidence.accuracy_kept == 0.5
    assert table[table.segmenter == 2].auroc.isna().all()  # all right: undefined, no error


def test_reliability_without_discriminators_and_without_anything():
    table = ev.reliability(Fake(), [random_batch(3)])
    assert table.groupby("segmenter").score.agg(list).tolist() == [["confidence", "agreement"]] * 2
    empty = make_batch(*torch.zeros(2, 1, 8, 8), torch.full((1, 8, 8), 255))
    assert ev.reliability(Fake(), [empty]).empty
    assert ev.reliability(Fake(), []).columns.tolist() == table.columns.tolist()


def test_a_threshold_sets_the_coverage_of_every_score():
    labels = torch.zeros(1, 4, 16)
    score = torch.tensor([0.9, 0.7, 0.5, 0.1]).repeat_interleave(4).expand(1, 4, 16) * 255
    batch = make_batch(torch.zeros(1, 4, 16), torch.zeros(1, 4, 16), labels, score)
    model = Fake(score=torch.ones(1))
    table = ev.reliability(model, [batch], threshold=("region_score", 0.6))
    assert table.coverage.tolist() == [0.5] * 6
    assert ev.reliability(model, [batch], threshold=("region_score", 0.05)).coverage.eq(1).all()
    nothing = ev.reliability(model, [batch], threshold=("region_score", 0.95))
    assert nothing.coverage.eq(0).all() and nothing.accuracy_kept.isna().all()
    assert ev.reliability(Fake(), [batch], threshold=("region_score", 0.6)).coverage.eq(0.5).all()


def test_region_table_counts_every_valid_pixel_once():
    batch = random_batch(5, height=10, width=13)
    table = ev.region_table(Fake(score=torch.ones(1)), [batch])
    for k in range(2):
        part = table[table.segmenter == k + 1]
        right = (batch.images[:, k] == batch.labels).sum()
        assert part.right.sum() == right
        assert part.right.sum() + part.wrong.sum() == (batch.labels != 255).sum()
    assert (table.row.max(), table.column.max()) == (2, 3)
    region = table[(table.id == "i2") & (table.row == 2) & (table.column == 3)].iloc[0]
    corner = batch.labels[2, 8:, 12:]
    valid = corner != 255
    assert region.right == ((batch.images[2, 0, 8:, 12:] == corner) & valid).sum()
    same = (batch.images[2, 0, 8:, 12:] == batch.images[2, 1, 8:, 12:]) & valid
    assert region.agreement == pytest.approx(float(same.sum() / valid.sum()))


# ---- evidence, cost, files


def test_evidence_shows_the_images_with_most_classes():
    labels = torch.zeros(5, 8, 8)
    labels[1, :4], labels[3, :4], labels[4, :4], labels[4, 6:] = 1, 2, 1, 2
    labels[0, :4] = 255
    batch = make_batch(torch.zeros(5, 8, 8), torch.ones(5, 8, 8), labels)
    arrays = ev.evidence(Fake(), [batch], count=3)
    assert arrays["ids"].tolist() == ["i4", "i1", "i3"]
    assert arrays["images"].shape == (3, 8, 8, 3) and arrays["images"].dtype == np.uint8
    assert np.array_equal(arrays["labels"], labels[[4, 1, 3]].numpy())
    assert arrays["pseudo_labels"].shape == (2, 3, 8, 8)
    assert (arrays["pseudo_labels"][1] == 1).all() and (arrays["prediction"] == 0).all()
    assert np.isnan(arrays["region_scores"]).all()
    assert arrays["region_scores"].dtype == np.float32
    assert arrays["kept"].shape == (2, 3, 2, 2) and arrays["kept"].dtype == bool


def test_evidence_keeps_by_score_threshold_or_everything():
    model, batch = Fake(score=torch.ones(1)), scored_batch(inverse=False)
    left = [[True, False], [True, False]]
    assert ev.evidence(model, [batch])["kept"][0, 0].tolist() == left
    assert ev.evidence(model, [batch], threshold=0.9)["kept"][1, 0].tolist() == left
    for by in ("none", "random"):
        assert ev.evidence(model, [batch], by=by)["kept"].all()
        assert ev.evidence(model, [batch], by=by, threshold=1.0)["kept"].all()
    assert not ev.evidence(model, [batch], by="confidence", threshold=1.0)["kept"].any()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"by": "region_score", "keep": "fraction", "fraction": 0.3, "tau": 0.7}, (0.3, None)),
        ({"by": "confidence", "keep": "fraction", "fraction": 0.3, "tau": 0.7}, (0.3, None)),
        ({"by": "region_score", "keep": "threshold", "fraction": 0.3, "tau": 0.7}, (0.5, ("region_score", 0.7))),
        ({"by": "confidence", "keep": "threshold", "fraction": 0.3, "tau": 0.7}, (0.5, ("region_score", 0.7))),
        ({"by": "none", "keep": "threshold", "fraction": 0.3, "tau": 0.7}, (0.5, None)),
        ({"by": "random", "keep": "threshold", "fraction": 0.3, "tau": 0.7}, (0.5, ("region_score", 0.7))),
    ],
)
def test_a_rule_cuts_by_its_fraction_or_by_the_threshold_of_the_region_score(rule, expected):
    assert ev.cut(config.Filter(**rule, start=0)) == expected


def test_evidence_pads_images_of_other_sizes():
    small, large = random_batch(1, 1, 6, 13), random_batch(2, 1, 10, 8)
    arrays = ev.evidence(Fake(score=torch.ones(1)), [small, large])
    assert arrays["images"].shape == (2, 10, 13, 3)
    assert arrays["region_scores"].shape == (2, 2, 3, 4)
    low = 0 if arrays["labels"][0, 6:].min() == 255 else 1
    assert (arrays["labels"][low, 6:] == 255).all() and (arrays["labels"][1 - low, :, 8:] == 255).all()
    assert not arrays["kept"][:, low, 2].any() and np.isnan(arrays["region_scores"][:, low, 2]).all()


def test_evidence_of_nothing_says_so():
    with pytest.raises(ValueError, match="there is no image to show; expected at least one batch"):
        ev.evidence(Fake(), [])


def test_cost_of_a_convolution_by_hand():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1))
    network.train()
    cost = ev.cost(network, 10, 12)
    assert cost["parameters"] == (3 * 9 * 8 + 8) + 16 + (8 * 4 + 4)
    assert cost["macs"] == 120 * (3 * 9 * 8 + 8 * 4)
    assert network.training and next(network.parameters()).device.type == "cpu"
    assert all(isinstance(value, int) for value in cost.values())


def test_written_files_are_the_same_bytes_and_read_back(tmp_path):
    model, batch = Fake(score=torch.ones(1)), random_batch(7)
    results = ev.evaluate(model, [batch], (*CLASSES[:2], "tree, tall"))
    scores, arrays = ev.reliability(model, [batch]), ev.evidence(model, [batch])
    for name in ("first", "second"):
        ev.write(tmp_path / name, results, scores, arrays, {"method": "rrn", "seed": 0})
    files = {path.name for path in (tmp_path / "first").iterdir()}
    assert files == {"metrics.json", "per_class.csv", "reliability.csv", "evidence.npz"}
    for name in files:
        first, second = (tmp_path / folder / name for folder in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
    metrics = json.loads((tmp_path / "first/metrics.json").read_text())
    assert metrics["method"] == "rrn"
    assert metrics["miou_1"] == round(results.metrics()["miou_1"], 4)
    assert pd.read_csv(tmp_path / "first/per_class.csv")["class"].tolist()[2] == "tree, tall"
    with np.load(tmp_path / "first/evidence.npz") as read:
        assert all(np.array_equal(read[key], arrays[key]) for key in arrays)


def test_metrics_without_a_valid_pixel_are_null(tmp_path):
    empty = make_batch(*torch.zeros(2, 1, 8, 8), torch.full((1, 8, 8), 255))
    model = Fake()
    results = ev.evaluate(model, [empty], CLASSES)
    ev.write(tmp_path, results, ev.reliability(model, [empty]), ev.evidence(model, [empty]), {})
    assert set(json.loads((tmp_path / "metrics.json").read_text()).values()) == {None}


@pytest.mark.parametrize("row", ["rrn", "confidence_filter", "supervised"])
def test_report_of_a_real_model(row: str, tmp_path):
    folder = tiny.repository(tmp_path / "repository")
    chosen = config.load(row, root=folder)
    split = splits.read(folder / "runs" / "tiny" / "prepare" / "1of4")
    model = tiny.RRN(chosen, len(split.classes), 0)
    dataset = ImageSet.open(chosen, folder)
    extra = {"partition": "1of4", "method": row, "seed": 0}
    metrics = ev.report(model, chosen, dataset, split, tmp_path / "out", extra)
    assert metrics == json.loads((tmp_path / "out/metrics.json").read_text())
    names = {"miou_1", "miou_2", "miou_mean", "miou_ensemble", "pixel_accuracy", "parameters"}
    assert set(metrics) == {*extra, *names, "macs"}
    scores = pd.read_csv(tmp_path / "out/reliability.csv").score
    assert ("region_score" in set(scores)) == chosen.method.uses_discriminators
    kept = np.load(tmp_path / "out/evidence.npz")["kept"]
    assert kept.all() == (row == "supervised")


def test_report_looks_at_images_as_evaluate_says(tmp_path):
    folder = tiny.repository(tmp_path / "repository")
    chosen = config.load("rrn", {"evaluate": {"mode": "pad", "window": [20, 27]}}, root=folder)
    split = splits.read(folder / "runs" / "tiny" / "prepare" / "1of4")
    model = tiny.RRN(chosen, len(split.classes), 0)
    with pytest.raises(config.SettingsError, match="an image of 20 x 28 pixels"):
        ev.report(model, chosen, ImageSet.open(chosen, folder), split, tmp_path / "out", {})
