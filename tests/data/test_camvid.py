"""Real images: CamVid as the presets `lite0 camvid` read it. RRN_CAMVID names its folder."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image
from small import partitioned

from rrn import config, train
from rrn.config import IGNORE_INDEX
from rrn.data import splits
from rrn.data.image_set import ImageSet
from rrn.pipeline import presets

DATA = os.environ.get("RRN_CAMVID", "")
VOID = 11
TINY = [
    *("model.encoder=tu-test_efficientnet", "model.weights=null", "model.decoder_channels=8", "device=cpu"),
    *("threads=1", "batch.labeled=2", "batch.unlabeled=2", "warmup.steps=2", "train.steps=2"),
    *("log.every=1", "log.evaluate=2", "log.checkpoint=2", "log.diagnose=4"),
]

pytestmark = pytest.mark.skipif(not DATA, reason="RRN_CAMVID does not name a folder of CamVid")


def applied(*items):
    """Return the text of params.yaml with the presets, and `items` as on the command line, laid on it."""
    return presets.apply(ROOT, ["lite0", "camvid", f"dataset.path={Path(DATA).resolve()}", *items])


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    path = tmp_path_factory.mktemp("camvid") / "params.yaml"
    path.write_text(applied("model.weights=null"), encoding="utf-8")
    return config.resolve(config.read(path))


@pytest.fixture(scope="module")
def dataset(settings):
    return ImageSet.open(settings, ROOT)


def test_the_preset_reads_11_classes_at_its_size(dataset):
    assert len(dataset.classes) == 11 and dataset.layout.meaning[VOID] == IGNORE_INDEX
    assert (len(dataset.ids("train")), len(dataset.ids("val")), dataset.test) == (367, 101, "val")
    for split in ("train", "val"):
        name = dataset.ids(split)[0]
        image, label = dataset.pair(split, name)
        assert image.shape == (120, 160, 3) and label.shape == dataset.shape(split, name) == (120, 160)


def test_void_is_ignored_and_nothing_else_is_out_of_range(dataset):
    whole = replace(dataset, size=None)
    seen = set()
    for split in ("train", "val"):
        for name in dataset.ids(split):
            with Image.open(dataset.label_path(split, name)) as file:
                stored = np.asarray(file)
            label = whole.label(split, name)
            assert np.array_equal(label == IGNORE_INDEX, stored == VOID)
            assert np.array_equal(label[stored != VOID], stored[stored != VOID])
            seen |= set(np.unique(dataset.label(split, name)).tolist())
    assert seen == {*range(11), IGNORE_INDEX}


def test_the_partition_is_seeded_and_disjoint(dataset, settings):
    another = settings.model_copy(update={"split": settings.split.model_copy(update={"seed": 1})})
    first, again, other = (partitioned(dataset, chosen, "1of16") for chosen in (settings, settings, another))
    assert first == again and first.labeled != other.labeled
    assert len(first.labeled) == len(other.labeled) == 23 == round(367 / 16)
    assert not set(first.labeled) & set(first.unlabeled)
    assert {*first.labeled, *first.unlabeled} == set(dataset.ids("train"))
    assert first.test == first.val and not set(dataset.ids("train")) & set(first.val)


def test_prepare_warm_up_and_train(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text(applied(*TINY), encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for variable in ("RRN_LAUNCH", "RRN_RESUME", "RRN_SCRATCH"):
        monkeypatch.delenv(variable, raising=False)
    runs = tmp_path / "runs" / "camvid"
    chosen = config.load(root=tmp_path)
    split = partitioned(ImageSet.open(chosen, tmp_path), chosen, "1of16")
    splits.write_split(replace(split, val=split.val[:8], test=split.test[:8]), runs / "prepare" / "1of16-0")
    list(train.run("warmup", "1of16", None, 0, runs / "warmup" / "1of16-0"))
    rows = list(train.run("train", "1of16", "rrn", 0, runs / "train" / "1of16-rrn-0"))
    assert [row["step"] for row in rows] == [1, 2] and 0 < rows[-1]["miou_mean"] < 100
    reliability = pd.read_csv(runs / "train" / "1of16-rrn-0" / "reliability.csv")
    assert set(reliability["split"]) == {"val", "unlabeled"}
    assert reliability.loc[reliability["class"] == "(all)", "accuracy"].between(0, 1).all()
