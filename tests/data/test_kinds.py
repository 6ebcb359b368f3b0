"""VOC, Cityscapes and CamVid in their public layouts, and folders with more unlabeled images."""

import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image
from small import small_settings, write_folder
from trees import CITIES, FINE, FURTHER, VAL, write_camvid, write_cityscapes, write_voc

from rrn import config, evaluate, train
from rrn.config import IGNORE_INDEX
from rrn.data import splits
from rrn.data.decoding import DataError
from rrn.data.formats import cityscapes, voc
from rrn.data.image_set import ImageSet
from rrn.pipeline import presets
from rrn.prediction import command
from rrn.preparation import partitions, verification
from rrn.runs import finished

QUARTER = ["dataset.size=[256, 512]", "evaluate.window=[200, 200]", "evaluate.stride=[134, 134]"]
"""The sliding windows of Cityscapes on images of a quarter of the size."""
SHORT = [
    *("device=cpu", "precision=fp32", "threads=1", "loading.workers=0", "nproc=1", "model.encoder=tu-test_resnet"),
    *("model.weights=null", "model.decoder_channels=8", "batch.labeled=2", "batch.unlabeled=2", "augment.crop=64"),
    *("warmup.steps=2", "train.steps=2", "warmup.lr_ramp=0", "train.lr_ramp=0", "log.every=1", "log.evaluate=2"),
    *("log.checkpoint=2", "log.diagnose=2", "method.grid=2", "method.discriminator.channels=[8, 8]"),
    *("method.discriminator.input_stride=2", "loading.evaluation_batch=2"),
]


@pytest.fixture(scope="module")
def voc_tree(tmp_path_factory):
    return write_voc(tmp_path_factory.mktemp("voc"))


@pytest.fixture(scope="module")
def city_tree(tmp_path_factory):
    return write_cityscapes(tmp_path_factory.mktemp("cityscapes"))


@pytest.fixture(scope="module")
def void_line_tree(tmp_path_factory):
    """A folder whose label value 0 is no class."""
    root = write_folder(tmp_path_factory.mktemp("folder") / "data")
    (root / "classes.txt").write_text("-\nwall\nsky\n", encoding="utf-8")
    return root


TREES = {"voc": "voc_tree", "cityscapes": "city_tree", "folder": "void_line_tree"}
"""Kind -> the fixture that writes such a tree."""


def opened(root, kind, **names):
    data = {"kind": kind, "void": None, "train": "train", "val": "val", "test": "val", **names}
    return ImageSet.open(small_settings(root, dataset=data), ROOT)


# ---- VOC


def test_voc_reads_palette_labels_as_classes(voc_tree):
    dataset = opened(voc_tree, "voc", train="train_aug")
    assert (dataset.ids("train_aug"), dataset.ids("val")) == (FINE + FURTHER, VAL)
    image, label = dataset.pair("train_aug", FINE[0])
    assert image.shape[:2] == label.shape == (500, 333)
    with Image.open(dataset.label_path("train_aug", FINE[0])) as stored:
        assert stored.mode == "P"
        assert np.array_equal(label, np.asarray(stored))
    assert set(np.unique(label)) <= {*range(21), IGNORE_INDEX} and (label[:2] == IGNORE_INDEX).all()


def test_voc_prefers_fine_labels_and_knows_them(voc_tree):
    dataset = opened(voc_tree, "voc", train="train_aug")
    folders = [dataset.label_path("train_aug", name).parent.name for name in (FINE[0], FURTHER[0])]
    assert folders == ["SegmentationClass", "SegmentationClassAug"]
    assert dataset.layout.finely_annotated() == set(FINE)


def test_voc_never_takes_a_coarse_label_for_a_fine_one(tmp_path):
    place = write_voc(tmp_path) / "VOCdevkit/VOC2012"
    for name in (FINE[0], VAL[0]):
        shutil.move(place / voc.FINE / f"{name}.png", place / voc.FURTHER / f"{name}.png")
    dataset = opened(tmp_path, "voc", train="train_aug")
    assert not dataset.label_path("train_aug", FINE[0]).exists()
    with pytest.raises(
        DataError, match=rf"1 of 3 images of 'val' have no label file[^$]*SegmentationClass/{VAL[0]}.png"
    ):
        dataset.require_labels("val")


def test_voc_is_read_from_the_ready_made_folder_alone(tmp_path):
    place = write_voc(tmp_path) / "VOCdevkit/VOC2012"
    for path in (place / voc.FINE).glob("*.png"):
        shutil.move(path, place / voc.FURTHER / path.name)
    (place / voc.FINE).rmdir()
    dataset = opened(tmp_path, "voc", train="train_aug")
    assert dataset.require_labels("val") == VAL and len(dataset.labeled_ids("train_aug")) == len(FINE + FURTHER)


@pytest.mark.parametrize("place", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_voc_is_found_from_any_of_its_folders(voc_tree, place):
    assert opened(voc_tree / place, "voc", train="train_aug").layout.root == voc_tree / "VOCdevkit/VOC2012"


def test_the_colors_of_voc_are_those_of_its_palette(voc_tree):
    dataset = opened(voc_tree, "voc")
    assert dataset.layout.colors[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert (dataset.layout.colors[15], voc.color(255)) == ((192, 128, 128), (224, 224, 192))
    assert dataset.classes[15] == "person"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("voc", r"holds no VOC 2012 \(no JPEGImages in it\); .*python -m rrn.data voc --root DIR"),
        ("cityscapes", r"there is no folder .*leftImg8bit; .*python -m rrn.data cityscapes --root DIR"),
        ("camvid", r"holds no CamVid \(no trainannot in it\); .*python -m rrn.data camvid --root DIR"),
    ],
)
def test_an_empty_folder_says_what_fills_it(tmp_path, kind, message):
    with pytest.raises(DataError, match=message):
        opened(tmp_path, kind)


@pytest.mark.parametrize(
    ("kind", "made", "message"),
    [
        (
            "cityscapes",
            "leftImg8bit/val",
            r"the split 'val' is empty: no \*/\*_leftImg8bit.png in .*leftImg8bit/val; .*",
        ),
        ("camvid", "trainannot", r"the split 'val' is empty: no .png in .*val; .*python -m rrn.data camvid"),
    ],
)
def test_a_split_without_images_is_named(tmp_path, kind, made, message):
    for folder in (made, "gtFine"):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(DataError, match=message):
        opened(tmp_path, kind).ids("val")


def test_a_missing_list_of_voc_says_what_makes_it(tmp_path):
    (tmp_path / "JPEGImages").mkdir()
    with pytest.raises(DataError, match=r"the list .*train_aug.txt is missing; `python -m rrn.data voc"):
        opened(tmp_path, "voc", train="train_aug").ids("train_aug")


# ---- Cityscapes


def test_cityscapes_maps_34_ids_to_19_classes(city_tree):
    dataset = opened(city_tree, "cityscapes")
    names = dataset.ids("train")
    assert len(names) == sum(CITIES["train"].values()) and names == sorted(names)
    assert (len(dataset.classes), dataset.classes[0], dataset.classes[18]) == (19, "road", "bicycle")
    for name in names:
        with Image.open(dataset.label_path("train", name)) as stored:
            values = np.asarray(stored)
        label = dataset.label("train", name)
        assert label.shape == (1024, 2048)
        for value in np.unique(values):
            known = {v: index for index, (v, _) in enumerate(cityscapes.TRAINED.values())}
            assert (label[values == value] == known.get(int(value), IGNORE_INDEX)).all()


def test_cityscapes_reads_train_ids_where_they_exist(tmp_path):
    dataset = opened(write_cityscapes(tmp_path, "labelTrainIds"), "cityscapes")
    path = dataset.label_path("val", dataset.ids("val")[0])
    assert path.name.endswith("_gtFine_labelTrainIds.png")
    assert set(np.unique(dataset.label("val", dataset.ids("val")[0]))) <= {*range(19), IGNORE_INDEX}


def test_cityscapes_with_some_train_ids_says_what_to_do(tmp_path):
    dataset = opened(write_cityscapes(tmp_path), "cityscapes")
    path = dataset.label_path("val", dataset.ids("val")[0])
    path.with_name(path.name.replace("labelIds", "labelTrainIds")).write_bytes(path.read_bytes())
    with pytest.raises(DataError, match=r"has 1 labels of train ids and 10 of label ids: make the missing ones, or"):
        opened(tmp_path, "cityscapes")


@pytest.mark.parametrize(("kind", "value", "known"), [("labelTrainIds", 19, "0 to 18"), ("labelIds", 34, "7, 8, 11")])
def test_a_value_that_cityscapes_does_not_have_is_named(tmp_path, kind, value, known):
    dataset = opened(write_cityscapes(tmp_path, kind), "cityscapes")
    name = dataset.ids("val")[0]
    Image.new("L", (2048, 1024), value).save(dataset.label_path("val", name))
    with pytest.raises(
        DataError, match=rf"{name}_gtFine_{kind}.png has the value {value}, but the classes are {known}"
    ):
        dataset.label("val", name)


# ---- CamVid and folders


def test_camvid_gives_the_same_numbers_as_the_same_images_in_a_folder(tmp_path):
    public = write_camvid(tmp_path / "CamVid", {"train": 6, "val": 3, "test": 2})
    own = tmp_path / "own"
    for split in ("train", "val", "test"):
        shutil.copytree(public / split, own / "images" / split)
        shutil.copytree(public / f"{split}annot", own / "labels" / split)
    one = opened(tmp_path, "camvid", test="test")
    (own / "classes.txt").write_text("\n".join(one.classes))
    two = opened(own, "folder", test="test", void=(11,))
    assert one.ids("test") == two.ids("test")
    for split in ("train", "val", "test"):
        for name in one.ids(split):
            for first, second in zip(one.pair(split, name), two.pair(split, name), strict=True):
                assert np.array_equal(first, second)
    made = [partitions.make(d, small_settings(tmp_path), "1of2", report_of(d, tmp_path)) for d in (one, two)]
    assert made[0].labeled == made[1].labeled and made[0].test == made[1].test


def report_of(dataset, folder):
    report = verification.verify(dataset)
    report.require()
    return report


def test_a_second_folder_adds_unlabeled_images(tmp_path):
    root = write_folder(tmp_path / "data")
    (root / "images" / "more").mkdir()
    for number in range(3):
        Image.new("RGB", (30, 20), (number, 0, 0)).save(root / "images" / "more" / f"more {number}.jpg")
    dataset = opened(root, "folder", unlabeled="more", void=(255,), test="test")
    settings = small_settings(root, dataset={"unlabeled": "more"})
    split = partitions.make(dataset, settings, "all", report_of(dataset, tmp_path))
    assert split.unlabeled == ("more 0", "more 1", "more 2")
    assert not {*split.labeled} & {*split.unlabeled}
    assert dataset.image("train", "more 1").shape == (20, 30, 3)
    Image.new("RGB", (30, 20)).save(root / "images" / "more" / "train000.jpg")
    with pytest.raises(DataError, match=r"more/train000.jpg and .*train/train000.jpg have one id"):
        dataset.ids("train")


# ---- from the files to a table


MERGED = "dataset.classes={person: [person], animal: [cat, dog, horse], background: ['*']}"


@pytest.mark.parametrize(("kind", "chosen"), [*((kind, []) for kind in TREES), ("voc", [MERGED])])
def test_a_tree_goes_through_prepare_training_and_evaluation(kind, chosen, tmp_path, monkeypatch, request):
    tree = request.getfixturevalue(TREES[kind])
    smaller = QUARTER if kind == "cityscapes" else []
    named = ["dataset.test=val"] if kind == "folder" else [kind]
    items = [
        *named,
        *SHORT,
        *smaller,
        *chosen,
        f"dataset.path={tree}",
        "split.protocol=seeded",
        "ablation.partitions=['1of4']",
    ]
    (tmp_path / "params.yaml").write_text(presets.apply(ROOT, items), encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for variable in ("RRN_LAUNCH", "RRN_RESUME", "RRN_SCRATCH"):
        monkeypatch.delenv(variable, raising=False)
    settings = config.load("rrn", root=tmp_path)
    runs = tmp_path / "runs" / settings.name
    dataset = ImageSet.open(settings, tmp_path)
    split = partitions.make(dataset, settings, "1of4", report_of(dataset, tmp_path))
    splits.write_split(split, runs / "prepare" / "1of4-0")
    list(train.run("warmup", "1of4", None, 0, runs / "warmup" / "1of4-0"))
    rows = list(train.run("train", "1of4", "rrn", 0, runs / "train" / "1of4-rrn-0"))
    assert rows[-1]["step"] == 2
    model = finished.load_model(runs / "train" / "1of4-rrn-0", settings, len(split.classes))
    extra = {"partition": "1of4", "method": "rrn", "seed": 0}
    metrics = evaluate.evaluate_run(model, settings, dataset, split, tmp_path / "out", extra)
    assert 0 <= metrics["miou_mean"] <= 100
    pixels = pd.read_csv(tmp_path / "out" / "per_class.csv")["pixels"].sum()
    labels = [dataset.label("val", name) for name in split.test]
    assert pixels == sum((label != IGNORE_INDEX).sum() for label in labels)
    assert command.main([str(runs / "train" / "1of4-rrn-0"), str(image_of(dataset)), str(tmp_path / "labels")]) == 0
    written = [np.asarray(Image.open(path)) for path in (tmp_path / "labels" / "labels").iterdir()]
    assert written and all(values.max() < len(split.classes) for values in written)
    assert split.classes == (("background", "animal", "person") if chosen else dataset.classes)
    assert finished.read_card(runs / "train" / "1of4-rrn-0").classes == split.classes


def image_of(dataset):
    return dataset.image_path("val", dataset.ids("val")[0])
