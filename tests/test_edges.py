"""Data at the edges of what can be: from its files to the numbers of a run, or a refusal that says why."""

import json

import numpy as np
import pandas as pd
import pytest
import tiny
from PIL import Image
from small import verified

from rrn import config, evaluate, train
from rrn.data import splits
from rrn.data.decoding import DataError
from rrn.data.image_set import ImageSet
from rrn.preparation import partitions
from rrn.reliability.evidence import Evidence
from rrn.runs import finished

COUNTS = {"train": 6, "val": 3, "test": 2}
VOID = 255


def write(root, counts=COUNTS, sizes=((20, 28),), classes=3, label=lambda split, number, values: values):
    """Write a data set of noise; `label` may change the labels, and images have the `sizes` in turn."""
    draw = np.random.default_rng(0)
    for split, count in counts.items():
        for number in range(count):
            height, width = sizes[number % len(sizes)]
            pixels = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
            values = draw.integers(0, classes, (height, width), dtype=np.uint8)
            for kind, array in (("images", pixels), ("labels", label(split, number, values).astype(np.uint8))):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(root / kind / split / f"{split}{number}.png")
    (root / "classes.txt").write_text("".join(f"class {number}\n" for number in range(classes)), encoding="utf-8")


SHORT = {
    "warmup": {"steps": 1},
    "train": {"steps": 1},
    "log": {"evaluate": 1, "checkpoint": 1},
    "optimizer": {"lr": 1e-3},
}


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """Make a repository of an odd data set, as the current folder, and prepare a partition of it."""
    monkeypatch.chdir(tmp_path)

    def run(partition="2", rows=("rrn",), changes=None, **data):
        values = config.merge(tiny.params(config.merge(tiny.CHANGES, SHORT)), changes or {})
        values["ablation"] |= {"partitions": [partition], "methods": list(rows), "explore": None}
        tiny.write_params(tmp_path, values)
        (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
        write(tmp_path / "data", **data)
        settings = config.load(root=tmp_path)
        dataset = ImageSet.open(settings, tmp_path)
        report = verified(dataset)
        report.require()
        split = partitions.make(dataset, settings, partition, report)
        splits.write_split(split, tmp_path / "runs" / "tiny" / "prepare" / f"{partition}-0")
        return dataset, split

    return run


@pytest.fixture
def chain(prepare, tmp_path):
    """Prepare, warm up, train and evaluate; return the rows of history and the folder of the evaluation."""

    def run(partition="2", row="rrn", changes=None, **data):
        dataset, split = prepare(partition, (row,), changes, **data)
        runs = tmp_path / "runs" / "tiny"
        history = list(train.run("warmup", partition, None, 0, runs / "warmup" / f"{partition}-0"))
        trained = runs / "train" / f"{partition}-{row}-0"
        history += train.run("train", partition, row, 0, trained)
        settings = config.load(row, root=tmp_path)
        model = finished.load_model(trained, settings, len(split.classes))
        key = {"partition": partition, "method": row, "seed": 0}
        metrics = evaluate.evaluate_run(model, settings, dataset, split, tmp_path / "out", key)
        assert metrics == json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
        assert all(np.isfinite(list(row.values())).all() for row in history)
        assert all(0 <= metrics[name] <= 100 for name in metrics if name.startswith("miou"))
        seen = Evidence.read(tmp_path / "out" / "evidence.zip")
        assert set(seen.ids("test")) == set(split.test) and len(seen.last()) > 0
        return metrics, pd.read_csv(tmp_path / "out" / "per_class.csv"), seen.regions

    return run


WORKS = {
    "one labeled image, a larger batch, one image to score on": {
        "partition": "1",
        "changes": {"batch": {"labeled": 6, "unlabeled": 2}},
        "counts": {"train": 4, "val": 1, "test": 1},
    },
    "any sizes, an odd crop": {
        "sizes": [(1, 1), (90, 3), (3, 90), (37, 41)],
        "changes": {"augment": {"crop": 33}, "method": {"grid": 3}},
    },
    "images of one pixel through windows": {
        "sizes": [(1, 1)],
        "changes": {"evaluate": {"mode": "sliding", "window": [16, 17], "stride": [7, 9], "scales": [0.5, 1.5]}},
    },
    "a crop larger than all images, regions larger than some": {
        "sizes": [(20, 28), (5, 7)],
        "changes": {"augment": {"crop": 40}, "method": {"grid": 1}},
    },
    "two classes": {"classes": 2},
    "as many classes as labels can hold": {"classes": 255, "counts": {"train": 4, "val": 1, "test": 1}},
    "some images all void": {
        "partition": "3",
        "label": lambda split, number, values: values if number % 2 else np.full_like(values, VOID),
    },
}


@pytest.mark.parametrize("case", WORKS)
def test_what_is_odd_but_possible_is_learned_and_measured(case, chain):
    metrics, classes, regions = chain(**WORKS[case])
    assert len(classes) == WORKS[case].get("classes", 3)
    assert classes["pixels"].sum() == regions.query("split == 'test' and segmenter == 1")["pixels"].sum() > 0
    assert metrics["miou_1"] == pytest.approx(classes["iou_1"].mean(), abs=1e-3)


def test_a_class_that_never_appears_counts_only_where_it_is_predicted(chain):
    metrics, classes, _ = chain(label=lambda split, number, values: np.where(values == 2, 0, values), row="supervised")
    absent = classes.iloc[2]
    assert absent["pixels"] == 0
    for name in ("iou_1", "iou_2", "iou_ensemble"):
        assert np.isnan(absent[name]) or absent[name] == 0
    assert metrics["miou_2"] == pytest.approx(classes["iou_2"].dropna().mean(), abs=1e-3)


@pytest.mark.parametrize("name", ["labeled", "val", "test"])
def test_labels_that_are_void_all_over_are_refused_by_prepare(name, prepare):
    folder = "train" if name == "labeled" else name
    with pytest.raises(DataError, match=rf"all pixels of the \d {name} images are void, so .*dataset.void"):
        prepare(label=lambda split, _, values: np.full_like(values, VOID) if split == folder else values)


@pytest.mark.parametrize(("partition", "left"), [("all", 0), ("5", 1)])
def test_rows_that_need_unlabeled_images_are_refused_before_the_warmup(partition, left, prepare):
    expected = (
        rf"{partition} leaves {left} unlabeled images, and the rows cps, rrn of ablation.methods need 2 different"
    )
    with pytest.raises(DataError, match=expected):
        prepare(partition, ("supervised", "cps", "rrn"))


def test_supervised_rows_need_no_unlabeled_image(chain):
    metrics, _, regions = chain("all", "supervised")
    assert metrics["miou_mean"] >= 0 and set(regions["split"]) == {"val", "test"}


def test_a_partition_beyond_the_list_is_anyones_to_try(prepare, tmp_path):
    dataset, _ = prepare()
    settings = config.load(root=tmp_path)
    assert partitions.make(dataset, settings, "all", verified(dataset)).unlabeled == ()
