"""A study: which tables and figures there are follows from what was run."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from ruamel.yaml import YAML
from studies import make_history, make_reliability, make_settings, write_run

from rrn import config
from rrn.data import splits
from rrn.paper import comparisons, reliability_plots
from rrn.paper.study import EMBEDDED, Study
from rrn.plotting import qualitative
from rrn.reliability import evidence
from rrn.reliability.evidence import About, Evidence, Pictures
from rrn.runtime import tracking

MEANS = {"cps_cutmix": (40, 42), "rrn": (46, 47), "local_filter": (41, 43)}
CLASSES = ("sky", "road")
KEYS = [(method, seed) for method in MEANS for seed in (0, 1)]


def write_evidence(folder, settings, method, seed, splits, pictures):
    """Write evidence of two images of val, unlabeled and test, with two regions each; `pictures`: of how many."""
    row = config.in_row(settings, method)
    draw = np.random.default_rng(seed)
    named = {split: (f"{split}_0", f"{split}_1") for split in splits}
    images = {split: ids[:pictures] for split, ids in named.items()}
    about = About(
        **{"name": "study", "partition": "1of16", "method": method, "seed": seed, "classes": CLASSES, "colours": ()},
        **{"region": 8, "rule": row.filter, "rho": row.rho, "objective": "accuracy", "images": images},
    )
    with evidence.EvidenceWriter(folder / "evidence.zip", about) as writer:
        for split, ids in named.items():
            rows = [{"id": name, "segmenter": k, "row": 0, "column": c} for name in ids for k in (1, 2) for c in (0, 1)]
            table = pd.DataFrame(rows)
            scores = ("region_score", "other_score", "product", "confidence", "certainty", "agreement", "divergence")
            table[list(scores)] = draw.uniform(0.1, 0.9, (len(rows), len(scores)))
            table["pixels"], table["right"] = 64, draw.integers(20, 64, len(rows))
            maps = draw.integers(0, 2, (4, 8, 16)).astype(np.uint8)
            shown = Pictures(np.zeros((8, 16, 3), np.uint8), maps[0], maps[1:3], maps[3])
            writer.add(split, table, dict.fromkeys(ids, shown))


def prepare(runs, settings, data=EMBEDDED[0]):
    """Write what the prepare stage leaves, of a data set with this checksum."""
    for partition in settings.ablation.partitions:
        lists = {"labeled": ("a",), "unlabeled": ("b",), "val": ("c",), "test": ("d",)}
        split = splits.Split(partition, "seeded", "a permutation", data, tuple(CLASSES), (), **lists)
        for seed in settings.ablation.seeds:
            splits.write_split(split, runs / "study" / "prepare" / f"{partition}-{seed}")


@pytest.fixture
def make(tmp_path):
    """Write the runs of a study and return it; `settings` changes what is listed."""

    def study(splits=("val", "unlabeled", "test"), pictures=2, **lists):
        settings = make_settings(list(MEANS), [0, 1], **lists)
        runs = tmp_path / "runs"
        prepare(runs, settings)
        for partition in settings.ablation.partitions:
            for method, seed in KEYS:
                key = f"{partition}-{method}-{seed}"
                write_run(runs, method, seed, MEANS[method][seed] - 1, MEANS[method][seed] + 1, partition)
                write_evidence(runs / "study" / "evaluate" / key, settings, method, seed, splits, pictures)
                trained = runs / "study" / "train" / key
                trained.mkdir(parents=True)
                history = make_history({method: (1.0, 0.9, 0.9, 0.9)}, seeds=[seed])
                history[["supervised", "consistency", "agreement", "miou_mean"]] = 0.5
                history.drop(columns=["partition", "method", "seed"]).to_csv(trained / "history.csv", index=False)
                reliability = make_reliability([method], seeds=[seed])
                reliability[["auroc_within", "aurc", "ece", "coverage", "accuracy", "accuracy_dropped"]] = 0.2
                reliability.drop(columns=["partition", "method", "seed"]).to_csv(
                    trained / "reliability.csv", index=False
                )
        return Study(runs, settings)

    return study


def drawn(study):
    return {
        name: fig for figures in (study.results, study.curves, study.pictures, study.trust) for name, fig in figures()
    }


def test_everything_is_written_and_drawn(make, tmp_path):
    study = make(explore="rrn")
    study.write(tmp_path / "out")
    tables = {"ablation", "variants", "per_class", "class_gain"}
    names = {f"{table}.{kind}" for table in tables for kind in ("csv", "md", "tex")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *names,
        *("runs.csv", "scores.csv", "settings.json", "evidence.zip"),
        *("metrics", "training_curves.csv", "risk_coverage.csv"),
    }
    assert set(drawn(study)) == {
        *("variants_1of16", "per_class", "per_class_gain", "training_curves_1of16", "qualitative_1of16"),
        *(f"{kind}_1of16_rrn" for kind in ("reliability", "risk_coverage", "calibration")),
    }
    assert json.loads((tmp_path / "out/settings.json").read_text())["params"]["name"] == "study"


def test_what_ships_is_of_the_row_that_is_asked_for_and_without_test_images(make, tmp_path):
    make(explore="local_filter").write(tmp_path / "out")
    shipped = Evidence.read(tmp_path / "out" / "evidence.zip")
    assert (shipped.about.method, shipped.about.seed) == ("local_filter", 0)
    assert shipped.splits == ("val", "unlabeled")


@pytest.mark.parametrize("explore", [None, "supervised"])
def test_nothing_ships_where_no_row_or_one_that_is_not_run_is_named(make, explore, tmp_path):
    study = make(explore=explore)
    study.write(tmp_path / "out")
    assert not (tmp_path / "out" / "evidence.zip").exists()
    assert not [name for name in drawn(study) if name.startswith(("reliability", "risk", "calibration"))]


def test_without_unlabeled_images_that_have_labels_val_ships_alone(make, tmp_path):
    study = make(explore="rrn", splits=("val", "test"))
    study.write(tmp_path / "out")
    assert Evidence.read(tmp_path / "out" / "evidence.zip").splits == ("val",)
    assert "risk_coverage_1of16_rrn" in drawn(study)


def test_without_pictures_there_are_no_figures_of_images_and_nothing_ships(make, tmp_path):
    study = make(explore="rrn", pictures=0)
    study.write(tmp_path / "out")
    assert not (tmp_path / "out" / "evidence.zip").exists()
    assert "qualitative_1of16" not in drawn(study) and "calibration_1of16_rrn" in drawn(study)


def test_pictures_of_other_data_do_not_go_to_results_which_git_holds(make, tmp_path):
    study = make(explore="rrn")
    shown = {path.name for path in written(study, tmp_path / "results" / "study")}
    assert study.picture_folder(tmp_path / "results" / "study") == tmp_path / "results" / "study" / "figures"
    prepare(tmp_path / "runs", study.settings, data="0123")  # other files in data/shapes, for instance
    hidden = {path.name for path in written(study, tmp_path / "results" / "other")}
    assert shown - hidden == {"evidence.zip"} and hidden < shown
    folder = study.picture_folder(tmp_path / "results" / "other")
    assert folder == tmp_path / "runs" / "study" / "ablation" / "figures"


def test_pictures_of_other_data_go_where_git_does_not_look(make, tmp_path):
    study = make(explore="rrn")
    prepare(tmp_path / "runs", study.settings, data="0123")
    assert "evidence.zip" in {path.name for path in written(study, tmp_path / "scratch")}
    assert study.picture_folder(tmp_path / "scratch") == tmp_path / "scratch" / "figures"


def written(study, out):
    """Return what a study writes into a folder."""
    study.write(out)
    return list(out.iterdir())


def test_pictures_and_trust_are_of_the_test_images_and_of_all_seeds(make, monkeypatch):
    study, asked = make(explore="rrn"), {}
    monkeypatch.setattr(
        qualitative,
        "qualitative",
        lambda evidences, split, focus: asked.update(split=split, methods=list(evidences), focus=focus),
    )
    monkeypatch.setattr(
        reliability_plots, "plot_risk_coverage", lambda regions, coverage: asked.update(regions=regions, share=coverage)
    )
    list(study.pictures()), list(study.trust())
    assert (asked["split"], asked["methods"], asked["focus"]) == ("test", list(MEANS), "rrn")
    assert set(asked["regions"]["split"]) == {"test"} and set(asked["regions"]["seed"]) == {0, 1}
    assert asked["share"] == pytest.approx(1.0)  # nine tenths of four regions are four


def test_what_ships_is_of_the_first_partition(make, tmp_path):
    study = make(explore="rrn", partitions=("1of8", "1of16"))
    study.write(tmp_path / "out")
    packed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evidence, "pack", lambda evidence, *_: packed.append(evidence.path.parent.name))
        study.write(tmp_path / "out")
    assert packed == ["1of8-rrn-0"]


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
    assert "partitions" in figures and {"qualitative_1of8", "variants_1of8", "risk_coverage_1of8_rrn"} <= set(figures)


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
