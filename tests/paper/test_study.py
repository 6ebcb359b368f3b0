"""A study: which tables and figures there are follows from what was run; pieces are all that it needs."""

import json
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT
from ruamel.yaml import YAML
from studies import VERSIONS, make_settings, write_run

from rrn import config
from rrn.paper import comparisons, reliability_plots
from rrn.paper.study import Study
from rrn.pieces.store import PieceError
from rrn.runtime import tracking

MEANS = {"cps_cutmix": (40, 42), "rrn": (46, 47), "local_filter": (41, 43)}
KEYS = [(method, seed) for method in MEANS for seed in (0, 1)]


@pytest.fixture
def make(tmp_path):
    """Write the pieces of a study and return it; `lists` changes what is listed."""

    def study(**lists):
        settings = make_settings(list(MEANS), [0, 1], **lists)
        for partition in settings.ablation.partitions:
            for method, seed in KEYS:
                mean = MEANS[method][seed]
                write_run(tmp_path, settings, method, seed, mean - 1, mean + 1, partition)
        return Study(tmp_path, settings)

    return study


def drawn(study):
    return {name: fig for figures in (study.results, study.curves, study.trust) for name, fig in figures()}


def test_everything_is_written_and_drawn_without_any_run_at_hand(make, tmp_path):
    study = make(explore="rrn")
    assert not (tmp_path / "runs").exists()
    study.write(tmp_path / "out")
    tables = {"ablation", "variants", "per_class", "class_gain", "validation"}
    names = {f"{table}.{kind}" for table in tables for kind in ("csv", "md", "tex")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *names,
        *("runs.csv", "scores.csv", "bootstrap.csv", "pairs.csv", "settings.json"),
        *("metrics", "training_curves.csv", "risk_coverage.csv"),
    }
    assert set(drawn(study)) == {
        *("variants_1of16", "per_class", "per_class_gain", "training_curves_1of16"),
        *(f"{kind}_1of16_rrn" for kind in ("reliability", "risk_coverage", "calibration")),
    }
    said = json.loads((tmp_path / "out/settings.json").read_text())
    assert said["params"]["name"] == "study" and said["versions"] == VERSIONS


def test_a_run_without_a_piece_stops_everything(make, tmp_path):
    settings = make().settings
    (tmp_path / "results/finished-runs/study/1of16-rrn-1.json").unlink()
    with pytest.raises(
        PieceError, match=r"^results/finished-runs/study/1of16-rrn-1.json is missing: `python -m rrn.re"
    ):
        Study(tmp_path, settings)


def test_standard_errors_over_images_stand_beside_what_they_are_of(make, tmp_path):
    make().write(tmp_path)
    table, runs, over = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("ablation", "runs", "bootstrap"))
    assert runs["image_se"].tolist() == [1] * 6 and table["image_se"].tolist() == [1] * 3
    assert over["method"].tolist() == list(MEANS) and over["n"].tolist() == [2] * 3
    assert over["miou_mean"].tolist() == table["miou_mean"].tolist()
    assert over["difference"].tolist()[1:] == table["difference"].tolist()[1:]
    assert over["difference_image_se"].tolist()[1:] == [0, 0], "the same draws"
    assert over.loc[0, ["difference", "difference_image_se"]].isna().all()


@pytest.mark.parametrize("explore", [None, "supervised"])
def test_no_score_is_drawn_where_no_row_or_one_that_is_not_run_is_named(make, explore):
    assert not [
        name for name in drawn(make(explore=explore)) if name.startswith(("reliability", "risk", "calibration"))
    ]


def test_trust_is_of_all_seeds_of_the_row(make, monkeypatch):
    study, asked = make(explore="rrn"), []
    monkeypatch.setattr(reliability_plots, "plot_risk_coverage", asked.append)
    list(study.trust())
    assert asked == [[piece.curves for piece in study.pieces if piece.run.method == "rrn"]] and len(asked[0]) == 2


def test_variants_are_drawn_against_the_reference_of_a_study_beside(make, monkeypatch):
    study = make()
    runs = study.runs.assign(name="main").query("method == 'cps_cutmix'")
    study.runs = pd.concat([study.runs.query("method != 'cps_cutmix'"), runs])
    seen = []
    monkeypatch.setattr(comparisons, "sweep", lambda table: seen.append(table))
    next(study.results())
    reference = seen[0][seen[0]["method"] == "cps_cutmix"]
    assert reference["miou_mean"].tolist() == [41]


def test_several_partitions_are_set_against_each_other(make):
    study = make(partitions=("1of16", "1of8"))
    assert "partitions" in study.tables()
    figures = drawn(study)
    assert "partitions" in figures and {"variants_1of8", "risk_coverage_1of8_rrn"} <= set(figures)


def test_scores_are_those_of_all_classes_together_of_every_run_and_step(make):
    study = make()
    scores = study.scores().set_index(["partition", "method", "seed", "step", "split", "score"])
    assert scores.index.is_unique and len(scores) == 3 * 2 * 2 * 2 * 6
    row = scores.loc[("1of16", "rrn", 1, 80, "val", "confidence")]
    assert (row["auroc"], row["accuracy_kept"]) == (pytest.approx(0.72), pytest.approx(0.82))
    last = study.last_scores()
    assert last.loc[("1of16", "rrn", "val", "confidence"), "auroc"] == pytest.approx(0.72)
    assert len(last) == 3 * 2 * 6


def test_the_same_runs_give_the_same_bytes(make, tmp_path):
    study = make(explore="rrn")
    for name in ("one", "two"):
        study.write(tmp_path / name)
    for path in filter(Path.is_file, (tmp_path / "one").rglob("*")):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes(), path.name


def test_the_metrics_of_a_row_are_its_means_in_the_table(make, tmp_path):
    study = make(partitions=("1of16", "1of8"))
    study.runs = pd.concat([study.runs, study.runs.assign(name="beside")])
    study.write(tmp_path / "out")
    paths = sorted((tmp_path / "out" / "metrics").iterdir())
    assert [path.stem for path in paths] == sorted(f"{p}-{m}" for p in ("1of16", "1of8") for m in MEANS)
    table = pd.read_csv(tmp_path / "out" / "ablation.csv").query("name == 'study'")
    for row in table.to_dict("records"):
        shown = json.loads((tmp_path / f"out/metrics/{row['partition']}-{row['method']}.json").read_text())
        assert shown == {name: pytest.approx(row[name], abs=1e-4) for name in tracking.ROW_METRICS}


def test_what_dvc_plots_stands_in_the_files_of_a_study(make, tmp_path):
    make().write(tmp_path / "results" / "study")
    for plot in YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["plots"]:
        ((title, about),) = plot.items()
        ((file, column),) = about["y"].items()
        table = pd.read_csv(tmp_path / file.replace("${name}", "study"))
        assert len(table) and table[[about["x"], column]].notna().all(axis=None), title
        assert {"partition", "method"} <= set(table), f"{title}: what the template draws by"
        assert (ROOT / ".dvc" / "plots" / f"{about['template']}.json").is_file(), title


@pytest.mark.parametrize(
    ("explore", "row"), [("local_filter", "local_filter"), (None, "cps_cutmix"), ("supervised", "cps_cutmix")]
)
def test_risk_is_plotted_of_the_row_that_is_explored_or_else_of_the_first(make, explore, row):
    curves = make(explore=explore, partitions=("1of16", "1of8")).risk_curves()
    assert list(curves) == ["partition", "method", "score", "coverage", "risk"]
    assert set(curves["method"]) == {row} and list(dict.fromkeys(curves["partition"])) == ["1of16", "1of8"]
    assert curves.groupby(["partition", "score"]).size().eq(50).all() and "confidence" in set(curves["score"])
    assert curves["risk"].between(0, 100).all() and curves["coverage"].max() == 100


def test_a_row_of_the_settings_is_laid_on_the_method():
    settings = config.load(root=ROOT)
    row = config.in_row(settings, "rrn")
    assert (row.filter.by, row.rho) == ("region_score", "agreement")
    assert row == config.load("rrn", root=ROOT).method
