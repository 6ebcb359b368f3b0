"""Pieces of runs -> DataFrames: numbers by hand, studies beside, what was run."""

import json

import pandas as pd
import pytest
from studies import ROOT, VERSIONS, make_piece, make_settings, write_run

from rrn import config
from rrn.config import SettingsError
from rrn.paper import collect
from rrn.pieces import store
from rrn.runtime.csv_files import read_csv


@pytest.fixture
def study(tmp_path):
    """Write the pieces of a study; return how its lists, perhaps changed ones, are collected."""
    settings = make_settings(["cps_cutmix", "rrn"], [0, 1, 2])
    for method, means in {"cps_cutmix": (40, 42, 44), "rrn": (46, 47, 51)}.items():
        for seed, mean in enumerate(means):
            write_run(tmp_path, settings, method, seed, mean - 1, mean + 1)

    def collected(settings=settings, results=tmp_path / "results", pieces_of=None):
        return collect.collect(store.read_pieces(tmp_path, pieces_of or settings), settings, results)

    return collected


def test_runs_stand_in_the_order_of_the_lists(study):
    table = study(make_settings(["rrn", "cps_cutmix"], [2, 0]))
    assert table.columns.tolist() == [*collect.RUN, *collect.MIOUS, *collect.COST, "image_se"]
    assert table[["method", "seed", "miou_mean"]].to_numpy().tolist() == [
        *(["rrn", 2, 51], ["rrn", 0, 46]),
        *(["cps_cutmix", 2, 44], ["cps_cutmix", 0, 40]),
    ]
    assert table["miou_1"].tolist() == [50, 45, 43, 39] and set(table["labels"]) == {"partition"}
    assert set(table["name"]) == {"study"} and set(table["partition"]) == {"1of16"}
    assert table["image_se"].tolist() == [1] * 4


def test_the_upper_bound_says_that_it_reads_all_labels(tmp_path):
    settings = make_settings(["supervised", "supervised_all"], [0])
    for method in settings.ablation.methods:
        write_run(tmp_path, settings, method, 0, 40, 40)
    table = collect.collect(store.read_pieces(tmp_path, settings), settings, tmp_path)
    assert table["labels"].tolist() == ["partition", "all"]


def test_a_metric_that_is_null_becomes_empty(tmp_path):
    settings = make_settings(["cps_cutmix", "rrn"], [0])
    pieces = [make_piece(settings, m, 0, 40, 40, miou_ensemble=v) for m, v in (("rrn", None), ("cps_cutmix", 1.0))]
    assert collect.collect(pieces, settings, tmp_path)["miou_ensemble"].isna().tolist() == [True, False]


def test_other_studies_stand_beside(study, tmp_path):
    settings = make_settings(["rrn"], [0, 1, 2], beside=["main"])
    with pytest.raises(collect.MissingRunError, match=r"beside: results/main/runs.csv is missing: run `dvc repro` wi"):
        study(settings)
    (tmp_path / "results/main").mkdir(parents=True)
    rows = study().query("method == 'cps_cutmix'").assign(name="main", partition="662")
    rows.to_csv(tmp_path / "results/main/runs.csv", index=False)
    about = collect.about(settings)
    (tmp_path / "results/main/settings.json").write_text(json.dumps(about))
    table = study(settings)
    assert table["name"].tolist() == ["study"] * 3 + ["main"] * 3
    assert table["partition"].tolist() == ["1of16"] * 3 + ["662"] * 3  # a text, not a number


def test_a_study_of_other_settings_does_not_stand_beside(study, tmp_path):
    settings = make_settings(["rrn"], [0, 1, 2], beside=["main"])
    about = collect.about(settings)
    about["params"]["warmup"]["steps"] = 7
    (tmp_path / "results/main").mkdir(parents=True)
    (tmp_path / "results/main/settings.json").write_text(json.dumps(about))
    (tmp_path / "results/main/runs.csv").write_text("")
    wanted = (
        r"results/main was made with other settings, warmup: \{'steps': 7, .*, here \{'steps': 250.* take main out of"
    )
    with pytest.raises(SettingsError, match=wanted):
        study(settings)


class LaterFilter(config.Filter):
    shape: str = "square"
    sides: tuple[int, int] = (2, 3)


class LaterMethod(config.Method):
    filter: LaterFilter
    memory: LaterFilter | None = None


class LaterSettings(config.Settings):
    """Settings of a later version, with keys that settings.json of this one lacks."""

    method: LaterMethod


def later(settings, **over):
    return LaterSettings.model_validate(settings.model_dump(mode="json") | over)


def test_a_key_that_an_older_study_lacks_counts_as_its_default(study, tmp_path):
    settings = make_settings(["rrn"], [0, 1, 2], beside=["main"])
    (tmp_path / "results/main").mkdir(parents=True)
    rows = study().query("method == 'cps_cutmix'").assign(name="main")
    rows.to_csv(tmp_path / "results/main/runs.csv", index=False)
    about = collect.about(settings)
    (tmp_path / "results/main/settings.json").write_text(json.dumps(about))
    assert set(study(later(settings), pieces_of=settings)["name"]) == {"study", "main"}
    method = settings.method.model_dump(mode="json")
    changed = later(settings, method=method | {"filter": method["filter"] | {"shape": "round"}})
    with pytest.raises(SettingsError, match=r"other settings, method: .*'shape': 'square'.*, here .*'shape': 'round'"):
        study(changed, pieces_of=settings)
    del about["params"]["method"]["filter"]["tau"]  # has no default
    (tmp_path / "results/main/settings.json").write_text(json.dumps(about))
    with pytest.raises(SettingsError, match=r"other settings, method: "):
        study(later(settings), pieces_of=settings)


@pytest.mark.parametrize("beside", [["study"], ["main", "main"]])
def test_no_study_stands_beside_itself_or_twice(study, beside):
    with pytest.raises(SettingsError, match=r"ablation.beside: \[.*\] names study or another twice"):
        study(make_settings(["rrn"], [0, 1, 2], beside=beside))


def test_names_are_texts_whatever_they_look_like(tmp_path):
    (tmp_path / "x.csv").write_text("method,class,partition,seed,auroc\nNone,NA,662,1,0.5\nnan,null,1of16,2,\n")
    table = read_csv(tmp_path / "x.csv")
    assert table[["method", "class", "partition"]].to_numpy().tolist() == [
        ["None", "NA", "662"],
        ["nan", "null", "1of16"],
    ]
    assert table["auroc"].isna().tolist() == [False, True] and table["seed"].tolist() == [1, 2]


def test_classes_keep_their_seeds():
    settings = make_settings(["rrn"], [0, 1])
    table = collect.collect_classes([make_piece(settings, "rrn", seed, 45 + seed, 47 + seed) for seed in (0, 1)])
    columns = [*collect.RUN, "class", "iou_1", "iou_2", "iou_mean", "iou_ensemble", "pixels"]
    assert table.columns.tolist() == columns and len(table) == 2 * 2
    sky = table[table["class"] == "sky"]
    assert sky["seed"].tolist() == [0, 1] and sky["iou_mean"].tolist() == [46, 47]
    road = table[table["class"] == "road"]  # segmenter 1 has none: the mean is that of the other
    assert set(road["iou_mean"]) == {30} and road["iou_1"].isna().all()


def test_tables_of_all_runs_are_joined():
    settings = make_settings(["rrn", "supervised"], [0, 1])
    pieces = [make_piece(settings, method, seed, 40, 40) for method in ("rrn", "supervised") for seed in (0, 1)]
    history = collect.collect_table(pieces, "history")
    assert len(history) == 2 * 2 * 4 and history["step"].tolist() == [20, 40, 60, 80] * 4
    assert list(dict.fromkeys(zip(history["method"], history["seed"], strict=True))) == [
        *(("rrn", 0), ("rrn", 1), ("supervised", 0), ("supervised", 1))
    ]
    assert set(collect.collect_table(pieces, "bootstrap")["miou_mean"]) == {39, 40, 41}


def test_versions_are_listed_where_runs_were_computed_with_different_ones():
    settings = make_settings(["rrn"], [0, 1])
    pieces = [make_piece(settings, "rrn", seed, 40, 40) for seed in (0, 1)]
    assert collect.versions(pieces) == VERSIONS
    other = pieces[1].model_copy(update={"versions": {**VERSIONS, "torch": "1.9.0"}})
    said = collect.about(settings, [pieces[0], other])["versions"]
    assert said == {**VERSIONS, "torch": ["1.9.0", "2.0.1"]}


def test_about_says_what_was_run_alike_on_every_machine():
    settings = make_settings(["cps_cutmix", "rrn"], [0])
    said = collect.about(settings)
    assert json.loads(json.dumps(said)) == said
    assert list(said["params"]["methods"]) == ["cps_cutmix", "rrn"]
    assert said["params"]["dataset"]["kind"] == "folder" and "path" not in said["params"]["dataset"]
    assert said["params"]["train"] == {"steps": settings.train.steps, "lr_ramp": settings.train.lr_ramp}
    elsewhere = {"loading": {"workers": 3, "cache": False}, "dataset": {"path": "elsewhere"}}
    changed = config.load(root=ROOT, overrides={"methods": {"other": {"rho": "none"}}, **elsewhere}).model_copy(
        update={"name": "study", "ablation": settings.ablation}
    )
    assert collect.about(changed) == said
    longer = settings.model_copy(update={"train": settings.train.model_copy(update={"steps": 7})})
    assert collect.about(longer)["settings"] != said["settings"]


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (None, None),
        ("timm/gluon_in1k", "timm/gluon_in1k"),
        ("lite0", "lite0"),
        ("timm/gluon_in1k@somewhere/of/mine/a.pth", "timm/gluon_in1k@a.pth"),
        ("somewhere/of/mine/b.safetensors", "b.safetensors"),
    ],
)
def test_about_names_weights_without_their_folder(weights, said):
    settings = make_settings(["rrn"], [0])
    settings = settings.model_copy(update={"model": settings.model.model_copy(update={"weights": weights})})
    assert collect.about(settings)["params"]["model"]["weights"] == said


def test_no_number_of_a_paper_stands_beside_the_embedded_data():
    assert collect.quoted(config.load(root=ROOT)).empty
    assert isinstance(collect.quoted(config.load(root=ROOT)), pd.DataFrame)


@pytest.mark.parametrize("path", sorted(ROOT.glob("results/*/settings.json")), ids=lambda path: path.parent.name)
def test_keys_of_committed_studies_are_found_at_their_new_places(path):
    held = json.loads(path.read_text())["params"]
    found = config.up_to_date(held)
    old = held["evaluate"] if "evidence" in held["evaluate"] else held["log"]
    assert found["log"] == held["log"] | {"evidence": old["evidence"]}
    assert found["dataset"] == held["dataset"] and "evidence" not in found["evaluate"]
    batch = held["loading"]["evaluation_batch"] if "loading" in held else held["evaluate"].get("batch")
    assert found.get("loading", {}).get("evaluation_batch") == batch
    assert config.up_to_date(found) == found, "and those of this version stay where they are"


def test_a_committed_study_of_earlier_keys_still_stands_beside(study):
    settings = config.load(root=ROOT)
    beside = settings.ablation.model_copy(update={"methods": ("rrn",), "seeds": (0, 1, 2), "beside": ("shapes",)})
    settings = settings.model_copy(update={"name": "study", "ablation": beside})
    table = study(settings, ROOT / "results")
    assert set(table["name"]) == {"study", "shapes"}


def test_what_was_run_does_not_say_how_much_is_looked_at_together():
    settings = [config.load(overrides={"loading": {"evaluation_pixels": n}}, root=ROOT) for n in (1000, 2000)]
    first, second = map(collect.about, settings)
    assert first == second and list(first["params"]["loading"]) == ["evaluation_batch"]
