"""What DVC shows: small files of metrics and curves, the same bytes for the same numbers."""

import json
import math

import pandas as pd
import pytest
from studies import make_history

from rrn.paper import reliability_plots
from rrn.reliability.curves import run_curves
from rrn.reliability.measures import HALF
from rrn.runtime import tracking

METRICS = {"partition": "1of16", "method": "rrn", "seed": 2, "miou_1": 50.5, "miou_mean": 51.25, "miou_ensemble": 52.0}


def published(root):
    return sorted(path.relative_to(root).as_posix() for path in (root / "results").rglob("*.json"))


def test_a_stage_leaves_the_metrics_of_its_run_in_results(tmp_path):
    tracking.write_run(tmp_path, "study", tmp_path / "runs/study/evaluate/1of16-rrn-2", METRICS)
    assert published(tmp_path) == ["results/per-run/study/1of16-rrn-2.json"]
    text = (tmp_path / "results/per-run/study/1of16-rrn-2.json").read_text()
    assert text == '{\n "miou_mean": 51.25,\n "miou_ensemble": 52.0\n}\n'


@pytest.mark.parametrize(
    "out", ["scratch/evaluate", "runs/other/evaluate/1of16-rrn-2", "runs/study/evaluate/1of16-rrn-0", "results/study"]
)
def test_an_evaluation_by_hand_leaves_results_alone(tmp_path, out):
    tracking.write_run(tmp_path, "study", tmp_path / out, METRICS)
    assert published(tmp_path) == []


def test_a_path_with_dots_is_the_folder_that_it_means(tmp_path):
    tracking.write_run(tmp_path, "study", tmp_path / "scratch/../runs/study/evaluate/1of16-rrn-2", METRICS)
    assert published(tmp_path) == ["results/per-run/study/1of16-rrn-2.json"]


def test_an_undefined_metric_is_no_number(tmp_path):
    out = tmp_path / "runs/study/evaluate/1of16-rrn-2"
    tracking.write_run(tmp_path, "study", out, {**METRICS, "miou_mean": None})
    assert json.loads((tmp_path / "results/per-run/study/1of16-rrn-2.json").read_text())["miou_mean"] is None


def test_rows_have_their_means_and_one_seed_has_no_deviation(tmp_path):
    row = {"partition": "all", "miou_ensemble": 60.0, "best": False}
    rows = [
        {**row, "method": "rrn", "miou_mean": 50.123456, "miou_std": math.nan},
        {**row, "method": "cps-2", "miou_mean": 1.0, "miou_std": 0.5},
    ]
    tracking.write_rows(pd.DataFrame(rows), tmp_path / "metrics")
    read = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "metrics").iterdir()}
    assert read == {
        "all-rrn": {"miou_mean": 50.1235, "miou_std": None, "miou_ensemble": 60.0},
        "all-cps-2": {"miou_mean": 1.0, "miou_std": 0.5, "miou_ensemble": 60.0},
    }


def test_curves_are_means_over_seeds_in_the_order_of_rows_and_steps():
    history = make_history({"rrn": (1.0, 0.5, 0.5, 0.5), "cps": (0.2, 0.2, 0.2, 0.4)})
    history["supervised"] = history["seed"] + history["step"]
    history["miou_mean"] = [step if step == 80 else math.nan for step in history["step"]]
    curves = tracking.training_curves(history)
    assert list(curves) == ["partition", "method", "step", *tracking.CURVES]
    assert list(zip(curves["method"], curves["step"], strict=True)) == [
        (method, step) for method in ("rrn", "cps") for step in (20, 40, 60, 80)
    ]
    assert curves["supervised"].tolist() == [step + 0.5 for step in (20, 40, 60, 80)] * 2
    assert curves["coverage"].tolist() == [1.0, 0.5, 0.5, 0.5, 0.2, 0.2, 0.2, 0.4]
    assert curves["miou_mean"].dropna().tolist() == [80, 80]
    assert curves["consistency"].isna().all(), "a column that no run has is there, and empty"


def test_points_of_risk_are_what_the_figure_draws_means_over_seeds_and_segmenters():
    scores = {score: [0.9, 0.1] * 4 for score in ("confidence", "certainty", "agreement")}
    runs = [(seed, segmenter) for seed in (0, 1) for segmenter in (1, 2) for _ in range(2)]
    regions = pd.DataFrame({**scores, "region_score": math.nan, "product": math.nan, "pixels": 100})
    regions[["seed", "segmenter"]] = runs
    regions["right"] = [100, 0, 100, 0, 80, 20, 80, 20]
    rule = HALF.model_copy(update={"by": "confidence"})
    points = reliability_plots.risk_points([run_curves(part, rule) for _, part in regions.groupby("seed")])
    assert set(points["score"]) == {"confidence", "certainty", "agreement"}, (
        "scores that the row does not have are left out"
    )
    curve = points[points["score"] == "confidence"].set_index(
        points["coverage"].round()[points["score"] == "confidence"]
    )
    assert curve.loc[50, "risk"] == pytest.approx((0 + 20) / 2)
    assert curve.loc[100, "risk"] == pytest.approx(50)
    assert curve.loc[80, "risk"] == pytest.approx(100 * (0.3 / 0.8 + (0.1 + 0.3 * 0.8) / 0.8) / 2)
