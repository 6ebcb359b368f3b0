"""Ablation tables: numbers by hand, missing runs, formatting, the same bytes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rrn import config, tables
from rrn.config import Settings

ROOT = Path(__file__).resolve().parents[1]
METRICS = {"miou_ensemble": 50.0, "pixel_accuracy": 80.0, "parameters": 1_500_000, "macs": 2 * 10**9}


def make_settings(methods: list[str], seeds: list[int], **more: object) -> Settings:
    lists = {"partitions": ["1of16"], "methods": methods, "seeds": seeds, "beside": [], **more}
    return config.load(overrides={"name": "study", "ablation": lists}, root=ROOT)


def write_run(runs: Path, method: str, seed: int, one: float, two: float, **more: object) -> None:
    folder = runs / "study" / "evaluate" / f"1of16-{method}-{seed}"
    folder.mkdir(parents=True)
    values = {"miou_1": one, "miou_2": two, "miou_mean": (one + two) / 2, **METRICS, **more}
    (folder / "metrics.json").write_text(json.dumps(values))
    table = {"class": ["sky", "road"], "iou_1": [one, None], "iou_2": [two, 30.0]}
    table |= {"iou_ensemble": [40.0, 20.0], "pixels": [7, 9]}
    pd.DataFrame(table).to_csv(folder / "per_class.csv", index=False)


@pytest.fixture
def study(tmp_path: Path) -> tuple[Path, Settings]:
    runs = tmp_path / "runs"
    for method, means in {"cps_cutmix": (40, 42, 44), "rrn": (46, 47, 51)}.items():
        for seed, mean in enumerate(means):
            write_run(runs, method, seed, mean - 1, mean + 1)
    return runs, make_settings(["cps_cutmix", "rrn"], [0, 1, 2])


def test_numbers_by_hand(study):
    table = tables.ablation(tables.collect(*study)).set_index("method")
    assert table.index.tolist() == ["cps_cutmix", "rrn"]
    assert table["n"].tolist() == [3, 3]
    assert table["miou_mean"].tolist() == [42, 48]
    assert table.loc["cps_cutmix", "miou_std"] == pytest.approx(2)
    assert table.loc["rrn", "miou_std"] == pytest.approx(math.sqrt(7))
    # paired over seeds: 6, 5, 7
    assert table.loc["rrn", "difference"] == pytest.approx(6)
    assert table.loc["rrn", "difference_std"] == pytest.approx(1)
    assert math.isnan(table.loc["cps_cutmix", "difference"])
    assert table["ensemble_std"].tolist() == [0, 0]
    assert table.loc["rrn", ["parameters", "macs"]].tolist() == [1_500_000, 2 * 10**9]
    assert table["best"].tolist() == [False, True]


def test_a_lead_within_the_noise_is_not_bold(study):
    runs = tables.collect(*study)
    runs.loc[runs["method"] == "rrn", "miou_mean"] -= 4  # leads by 2, deviations 2 and 2.6
    assert not tables.ablation(runs)["best"].any()
    assert "**" not in tables.markdown(tables.ablation(runs))


def test_one_seed_has_no_deviation_no_difference_and_no_winner(study):
    runs = tables.collect(*study)
    table = tables.ablation(runs[runs["seed"] == 1])
    assert table["n"].tolist() == [1, 1] and not table["best"].any()
    columns = ["miou_std", "ensemble_std", "difference", "difference_std"]
    assert table[columns].isna().all(axis=None)
    text = tables.markdown(table)
    assert "**" not in text and "±" not in text
    assert "n = 1, so no deviation and no ranking" in text


def test_upper_bound_does_not_compete(tmp_path):
    runs = tmp_path / "runs"
    for seed in range(2):
        write_run(runs, "supervised", seed, 40 + seed, 40 + seed)
        write_run(runs, "rrn", seed, 50 + seed, 50 + seed)
        write_run(runs, "supervised_all", seed, 70 + seed, 70 + seed)
    settings = make_settings(["supervised", "rrn", "supervised_all"], [0, 1])
    table = tables.ablation(tables.collect(runs, settings))
    assert table["labels"].tolist() == ["partition", "partition", "all"]
    assert table["best"].tolist() == [False, True, False]
    assert table["difference"].isna().all()  # there is no cps_cutmix


def test_a_missing_run_names_the_stage(study, tmp_path):
    for file, collect in {"metrics.json": tables.collect, "per_class.csv": tables.collect_classes}.items():
        (study[0] / "study/evaluate/1of16-rrn-2" / file).unlink()
        message = rf"^runs/study/evaluate/1of16-rrn-2/{file} is missing: run `dvc repro evaluate@1of16-rrn-2`$"
        with pytest.raises(tables.MissingRunError, match=message):
            collect(*study)


def test_curves_and_evidence_of_all_runs_are_joined(study):
    runs, settings = study
    with pytest.raises(tables.MissingRunError, match=r"history.csv is missing: run `dvc repro train@"):
        tables.collect_curves(runs, settings, "history.csv")
    for method in settings.ablation.methods:
        for seed in settings.ablation.seeds:
            folder = runs / "study/train" / f"1of16-{method}-{seed}"
            folder.mkdir(parents=True)
            (folder / "history.csv").write_text(f"step,loss\n1,{seed}\n2,{seed}\n")
            np.savez(runs / "study/evaluate" / f"1of16-{method}-{seed}" / "evidence.npz", seed=seed)
    curves = tables.collect_curves(runs, settings, "history.csv")
    assert len(curves) == 2 * len(settings.ablation.methods) * len(settings.ablation.seeds)
    assert (curves["loss"] == curves["seed"]).all() and set(curves["method"]) == set(settings.ablation.methods)
    evidence = tables.collect_evidence(runs, settings, "1of16")
    assert list(evidence) == list(settings.ablation.methods)
    assert {int(arrays["seed"]) for arrays in evidence.values()} == {settings.ablation.seeds[0]}


def test_the_caption_names_the_split(study):
    table = tables.ablation(tables.collect(*study))
    assert "mIoU on val in per cent" in tables.markdown(table, "val")
    assert "mIoU on test in per cent" in tables.markdown(table)


def test_other_studies_stand_beside(study, tmp_path):
    runs, _ = study
    settings = make_settings(["rrn"], [0, 1, 2], beside=["main"])
    with pytest.raises(tables.MissingRunError, match=r"beside: results/main/runs.csv is missing"):
        tables.collect(runs, settings)
    reference = tables.collect(*study).query("method == 'cps_cutmix'").assign(name="main")
    tables.write_csv(reference, tmp_path / "results/main/runs.csv")
    table = tables.ablation(tables.collect(runs, settings))
    assert table["name"].tolist() == ["study", "main"]
    assert table["difference"].iloc[0] == pytest.approx(6)
    assert table["best"].tolist() == [True, False]
    assert tables.markdown(table).startswith("| name | partition | method |")


def test_a_metric_that_is_null_becomes_empty(study):
    path = study[0] / "study/evaluate/1of16-rrn-2/metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "miou_ensemble": None}))
    assert tables.collect(*study)["miou_ensemble"].isna().sum() == 1


def test_per_class_means_over_segmenters_and_seeds(study):
    table = tables.collect_classes(*study)
    assert table.columns.tolist() == [
        *("name", "partition", "method", "class"),
        *("iou_mean", "iou_ensemble", "pixels", "n"),
    ]
    assert table[["method", "class"]].to_numpy().tolist() == [
        *(["cps_cutmix", "sky"], ["cps_cutmix", "road"]),
        *(["rrn", "sky"], ["rrn", "road"]),
    ]
    assert table["iou_mean"].tolist() == [42, 30, 48, 30]
    assert table["n"].tolist() == [3] * 4 and table["pixels"].tolist() == [7, 9, 7, 9]


def test_markdown_and_latex(study):
    table = tables.ablation(tables.collect(*study))
    lines = tables.markdown(table).splitlines()
    assert lines[0].startswith("| partition | method | n | mIoU |")
    cells = "1of16 | rrn | 3 | **48.00 ± 2.65** | 50.00 ± 0.00 | +6.00 ± 1.00 | 1.50 M | 2.000 G"
    assert lines[3] == f"| {cells} |"
    assert "n = 3" in lines[-1]
    text = tables.latex(table)
    assert r"1of16 & cps\_cutmix & 3 & 42.00 $\pm$ 2.00 & 50.00 $\pm$ 0.00 &  &" in text
    assert r"\textbf{48.00 $\pm$ 2.65}" in text
    assert text.index("\\caption{") < text.index("n = 3") < text.index("\\toprule")
    assert text.count("{") == text.count("}")


def test_latex_escapes_everything(study):
    runs = tables.collect(*study)
    runs["method"] = runs["method"].replace("rrn", r"a&b_%#{}$\x")
    assert r"a\&b\_\%\#\{\}\$\textbackslash{}x &" in tables.latex(tables.ablation(runs))


def test_files_are_the_same_bytes_and_read_back(study, tmp_path):
    table = tables.ablation(tables.collect(*study))
    for name in ("first", "second"):
        tables.write(table, tmp_path / name)
    names = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert names == ["ablation.csv", "ablation.md", "ablation.tex"]
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    read = pd.read_csv(tmp_path / "first/ablation.csv")
    assert {"method", "miou_mean", "miou_std", "n"} <= set(read.columns)
    assert read["macs"].tolist() == [2 * 10**9] * 2
