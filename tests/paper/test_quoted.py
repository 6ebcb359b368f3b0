"""Numbers of papers: every one has its protocol and source, and stands beside the same protocol only."""

import csv
from itertools import pairwise

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from rrn import config
from rrn.paper import collect
from rrn.pipeline import presets

COLUMNS = ["method", "dataset", "backbone", "crop", "lists", "partition", "miou", "epoch", "source"]
with collect.QUOTED.open(encoding="utf-8", newline="") as stream:
    ROWS = list(csv.DictReader(stream))


def settings_of(*items):
    return config.resolve(YAML(typ="safe", pure=True).load(presets.apply(ROOT, [*items, "dataset.path=../elsewhere"])))


def test_every_number_has_its_protocol_and_source():
    for row in ROWS:
        assert list(row) == COLUMNS and all(row.values()), row
        assert row["dataset"] in ("voc", "cityscapes") and row["epoch"] in ("best", "last", "unknown"), row
        assert row["crop"] == "unknown" or int(row["crop"]) in (321, 512, 513), row
        assert row["lists"] in ("cps", "u2pl", "classic", "unknown"), row
        assert config.resolve(config.read(ROOT / "params.yaml"), None, {"ablation": {"partitions": [row["partition"]]}})
        assert 40 < float(row["miou"]) < 91, row
        assert row["source"].startswith(("https://github.com/", "https://arxiv.org/", "README of ")), row


def test_nothing_is_quoted_twice():
    keys = [tuple(row[column] for column in COLUMNS if column not in ("miou", "source")) for row in ROWS]
    assert len(set(keys)) == len(keys)


def test_more_labels_are_not_far_worse_in_any_series():
    """A digit that was copied wrongly would stand out."""
    series = {}
    for row in ROWS:
        key = tuple(row[c] for c in ("method", "dataset", "backbone", "crop", "lists", "epoch", "source"))
        series.setdefault(key, []).append(float(row["miou"]))
    for key, values in series.items():
        assert all(after > before - 1.6 for before, after in pairwise(values)), key


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (("voc", "resnet50"), {("CPS", "1of8", 73.20), ("CPS + CutMix", "1of8", 73.67)}),
        (("voc", "resnet50", "split.protocol=u2pl", "ablation.partitions=[662]"), set()),
        (("voc", "resnet101"), set()),
        (("cityscapes", "resnet50"), set()),
        (("voc", "resnet50", "model.encoder=tu-resnet50"), set()),
        (("voc", "resnet50", "model.weights=null"), set()),
        (("voc", "resnet50", "model.architecture=Unet"), set()),
        (("voc", "resnet50", "dataset.size=[64, 64]"), set()),
        (("voc", "resnet50", "evaluate.flip=true"), set()),
        (("voc", "resnet50", "evaluate.scales=[1.0, 1.5]"), set()),
    ],
)
def test_only_the_same_protocol_is_quoted(items, expected):
    found = collect.quoted(settings_of(*items))
    assert set(zip(found["method"], found["partition"], found["miou"], strict=True)) == expected
    assert found.columns.tolist() == COLUMNS


def test_the_crop_and_the_lists_count():
    settings = settings_of("voc", "resnet101", "split.protocol=classic", 'ablation.partitions=["92"]')
    assert set(collect.quoted(settings)["method"]) == {"AugSeg"}
    at_321 = settings.model_copy(update={"augment": settings.augment.model_copy(update={"crop": 321})})
    found = collect.quoted(at_321)
    assert set(found["method"]) == {"UniMatch"} and found["miou"].tolist() == [75.2, 77.2, 78.8, 79.9, 81.2]


def test_an_unknown_crop_stands_beside_nothing():
    for row in ROWS:
        if "unknown" in (row["crop"], row["lists"], row["backbone"]):
            break
    else:
        pytest.fail("no number with an unknown protocol: this test has lost its point")
    assert not set(collect.BACKBONES.values()) & {"unknown", "other"}
