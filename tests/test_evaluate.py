"""What the evaluate stage writes: cost, numbers, reliability, evidence."""

from __future__ import annotations

import json
import math
import shutil

import pandas as pd
import pytest
import tiny
import torch
from fake import CLASSES, Fake, make_batch, random_batch
from torch import nn

from rrn import config, evaluate
from rrn.data import splits
from rrn.data.image_set import ImageSet
from rrn.evaluation import metrics
from rrn.evaluation.region_tables import predict_batches
from rrn.reliability import evidence, measures


def evaluated(model, batches, classes=CLASSES):
    return metrics.evaluate(predict_batches(model, batches), classes)


def test_cost_of_a_convolution_by_hand():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1))
    network.train()
    cost = evaluate.cost(nn.ModuleList([network]), 10, 12)
    assert cost["parameters"] == (3 * 9 * 8 + 8) + 16 + (8 * 4 + 4)
    assert cost["macs"] == 120 * (3 * 9 * 8 + 8 * 4)
    assert network.training and next(network.parameters()).device.type == "cpu"
    assert all(isinstance(value, int) for value in cost.values())


def test_cost_of_two_segmenters_is_their_mean():
    networks = nn.ModuleList([nn.Conv2d(3, 8, 1), nn.Conv2d(3, 4, 1)])
    assert evaluate.cost(networks, 10, 10) == {"parameters": 24, "macs": 100 * 3 * 6}


def test_written_files_are_the_same_bytes_and_read_back(tmp_path):
    results = evaluated(Fake(), [random_batch(7)], (*CLASSES[:2], "tree, tall"))
    scores = pd.DataFrame({"segmenter": [1, 2], "auroc": [0.123456789, math.nan]})
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        evaluate.write_results(tmp_path / name, results, scores, {"method": "rrn", "seed": 0})
    files = {path.name for path in (tmp_path / "first").iterdir()}
    assert files == {"metrics.json", "per_class.csv", "reliability.csv"}
    for name in files:
        first, second = (tmp_path / folder / name for folder in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
    metrics = json.loads((tmp_path / "first/metrics.json").read_text())
    assert metrics["method"] == "rrn"
    assert metrics["miou_1"] == round(results.metrics()["miou_1"], 4)
    assert pd.read_csv(tmp_path / "first/per_class.csv")["class"].tolist()[2] == "tree, tall"
    assert (tmp_path / "first/reliability.csv").read_text() == "segmenter,auroc\n1,0.123457\n2,\n"


def test_metrics_without_a_valid_pixel_are_null(tmp_path):
    empty = make_batch(*torch.zeros(2, 1, 8, 8), torch.full((1, 8, 8), 255))
    evaluate.write_results(tmp_path, evaluated(Fake(), [empty]), pd.DataFrame({"auroc": []}), {})
    assert set(json.loads((tmp_path / "metrics.json").read_text()).values()) == {None}


@pytest.fixture
def reported(tmp_path):
    """Report tiny, untrained networks of a row; return what `evaluate_run` returns and the folder."""

    def run(row, changes=None):
        folder = tiny.repository(tmp_path / "repository", changes)
        chosen = config.load(row, root=folder)
        split = splits.read_split(folder / "runs" / "tiny" / "prepare" / "1of4-0")
        model = tiny.RRN(chosen, len(split.classes), 0)
        extra = {"partition": "1of4", "method": row, "seed": 0}
        out = tmp_path / "out"
        return evaluate.evaluate_run(model, chosen, ImageSet.open(chosen, folder), split, out, extra), out, split

    return run


@pytest.mark.parametrize("row", ["rrn", "confidence_filter", "supervised"])
def test_report_of_a_real_model(row, reported):
    metrics, out, split = reported(row)
    assert metrics == json.loads((out / "metrics.json").read_text())
    names = {"miou_1", "miou_2", "miou_mean", "miou_ensemble", "pixel_accuracy", "parameters"}
    assert set(metrics) == {"partition", "method", "seed", *names, "macs"}
    scores = pd.read_csv(out / "reliability.csv")
    assert list(dict.fromkeys(scores["split"])) == ["val", "unlabeled", "test"]
    assert set(scores["class"]) == {measures.EVERYTHING, *split.classes}
    assert ("region_score" in set(scores["score"])) == (row != "supervised")
    read = evidence.Evidence.read(out / evidence.NAME)
    assert (read.about.method, read.about.rho, read.about.rule.by) == (
        row,
        *{"rrn": ("agreement", "region_score"), "confidence_filter": ("none", "confidence")}.get(row, ("none", "none")),
    )
    assert read.about.objective == (None if row == "supervised" else "adversarial")
    assert read.splits == ("val", "unlabeled", "test")
    described = read.regions[read.regions["split"] == "test"]
    assert set(described["id"]) == set(split.test) == set(read.ids("test"))
    pixels = pd.read_csv(out / "per_class.csv")["pixels"].sum()
    assert described.groupby("segmenter")["pixels"].sum().tolist() == [pixels, pixels]


def test_of_a_student_and_its_teacher_the_student_is_scored(reported):
    metrics, out, _ = reported("rrn", {"methods": {"rrn": {"networks": "student_teacher"}}})
    assert metrics["miou_mean"] == metrics["miou_1"] != metrics["miou_2"]
    assert metrics["parameters"] == sum(p.numel() for p in tiny.model("rrn").segmenters[0].parameters())
    assert set(evidence.Evidence.read(out / evidence.NAME).regions["segmenter"]) == {1, 2}


def test_where_test_is_val_the_images_are_looked_at_once(reported):
    metrics, out, split = reported("rrn", {"dataset": {"test": "val"}})
    read = evidence.Evidence.read(out / evidence.NAME)
    assert read.splits == ("unlabeled", "val") and read.ids("val") == split.val
    right = read.regions[read.regions["split"] == "val"].groupby("segmenter")["right"].sum()
    ious = pd.read_csv(out / "per_class.csv")
    assert len(ious) == len(split.classes) and metrics["pixel_accuracy"] > 0
    assert (right > 0).all()


def test_no_pictures_where_none_are_wanted(reported):
    _, out, _ = reported("rrn", {"log": {"evidence": 0}})
    assert not any(evidence.Evidence.read(out / evidence.NAME).about.images.values())


def test_regions_are_judged_of_so_many_images_and_mIoU_is_of_all(reported, tmp_path):
    metrics, out, split = reported("rrn")
    everything = {name: (out / name).read_bytes() for name in ("metrics.json", "per_class.csv")}
    shutil.rmtree(tmp_path / "repository")
    fewer, out, _ = reported("rrn", {"log": {"regions": 2, "evidence": 64}})
    assert fewer == metrics and everything == {name: (out / name).read_bytes() for name in everything}
    read = evidence.Evidence.read(out / evidence.NAME)
    for name, ids in (("val", split.val), ("test", split.test)):
        assert len(ids) > 2
        shown = splits.evenly_spaced(ids, 2)
        assert set(read.regions.loc[read.regions["split"] == name, "id"]) == set(shown) == set(read.ids(name))


def test_report_looks_at_images_as_evaluate_says(reported, tmp_path):
    with pytest.raises(config.SettingsError, match="an image of 20 x 28 pixels"):
        reported("rrn", {"evaluate": {"mode": "pad", "window": [20, 27]}})
    assert not (tmp_path / "out").exists()
