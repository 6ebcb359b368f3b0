"""`dataset.classes`: some of the classes of a data set, and several as one."""

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from small import small_settings, write_folder
from trees import FINE, FURTHER, write_cityscapes, write_voc

from rrn import config
from rrn.config import IGNORE_INDEX, SettingsError
from rrn.data.decoding import DataError
from rrn.data.image_set import ImageSet
from rrn.pipeline import presets
from rrn.preparation import verification

ANIMALS = {"animal": ["dog", "cat", "horse"], "person": ["person"], "background": ["*"]}
CARS = {"road": [7], "vehicle": ["car", "truck", 29, 30]}
"""By name and by value; 29 and 30, caravan and trailer, are void among the 19 classes."""


def opened(root, kind, classes, **names):
    data = {"kind": kind, "void": None, "train": "train", "val": "val", "test": "val", **names, "classes": classes}
    return ImageSet.open(small_settings(root, dataset=data), ROOT)


def test_classes_are_merged_and_the_rest_is_one_of_them(tmp_path):
    root = write_voc(tmp_path)
    plain, chosen = (opened(root, "voc", classes, train="train_aug") for classes in (None, ANIMALS))
    assert chosen.classes == ("background", "animal", "person")
    assert chosen.layout.colors == tuple(plain.layout.colors[index] for index in (0, 8, 15))
    for name in FINE + FURTHER:
        before, after = plain.label("train_aug", name), chosen.label("train_aug", name)
        assert np.array_equal(after == IGNORE_INDEX, before == IGNORE_INDEX)
        assert np.array_equal(after == 1, np.isin(before, (8, 12, 13)))
        assert np.array_equal(after == 2, before == 15)


def test_what_no_line_names_is_void_and_void_values_can_become_a_class(tmp_path):
    root = write_cityscapes(tmp_path)
    dataset = opened(root, "cityscapes", CARS)
    assert (dataset.classes, dataset.layout.colors) == (("road", "vehicle"), ((128, 64, 128), (0, 0, 142)))
    assert opened(root, "cityscapes", {"static": [4], "road": [7]}).layout.colors == ()  # void has none
    assert opened(root, "cityscapes", {"static": [4, "building"], "road": [7]}).layout.colors[0] == (70, 70, 70)
    meaning = {value: index for value, index in dataset.layout.meaning.items() if index != IGNORE_INDEX}
    assert meaning == {7: 0, 26: 1, 27: 1, 29: 1, 30: 1}
    assert dataset.layout.meaning.keys() == opened(root, "cityscapes", None).layout.meaning.keys()


def test_the_order_of_the_lines_changes_nothing(tmp_path):
    root = write_folder(tmp_path / "data")
    lines = {"b": ["sky"], "a": ["wall"]}
    (root / "classes.txt").write_text("wall\nsky\nsea\n", encoding="utf-8")
    one, other = (opened(root, "folder", dict(pairs)) for pairs in (lines.items(), reversed(lines.items())))
    assert one == other and one.classes == ("a", "b")


def test_the_report_says_what_classes_are_made_of_and_has_another_checksum(tmp_path):
    root = write_voc(tmp_path)
    plain, chosen = (verification.verify(opened(root, "voc", c, train="train_aug"), 1) for c in (None, ANIMALS))
    assert "classes, as dataset.classes makes them\nbackground: background, aeroplane, bicycle, " in chosen.summary()
    assert "\nanimal: cat, dog, horse\nperson: person\n" in chosen.summary()
    assert "dataset.classes" not in plain.summary() and plain.checksum != chosen.checksum
    shares = {name: report.shares("val", report.ids["val"]) for name, report in (("plain", plain), ("chosen", chosen))}
    assert shares["chosen"][1] == pytest.approx(shares["plain"][[8, 12, 13]].sum())
    void = opened(root, "voc", {"animal": ["cat"], "person": ["person"]}, train="train_aug").made_of
    assert void.startswith("animal: cat\nperson: person\nvoid: background, aeroplane") and "255" not in void


def test_labels_without_a_second_class_or_in_colors_are_named_as_what_they_are(tmp_path):
    root = write_voc(tmp_path)
    classes = {"first": ["background"], "second": ["tvmonitor"]}
    for path in (root / "VOCdevkit/VOC2012").glob("SegmentationClass*/*.png"):
        Image.fromarray(np.zeros(Image.open(path).size[::-1], np.uint8)).save(path)
    dataset = opened(root, "voc", classes, train="train_aug")
    problems = "\n".join(verification.verify(dataset, 1).problems)
    assert "hold nothing but 'first' of the classes that dataset.classes makes" in problems
    drawn = dataset.label_path("val", dataset.ids("val")[0])
    Image.new("RGB", Image.open(drawn).size, (128, 192, 0)).save(drawn)  # a train, which is no class here
    problems = "\n".join(verification.verify(dataset, 1).problems)
    assert "is drawn in the RGB colors of the classes" in problems


WRONG = {
    "a name": ({"a": ["cta"], "b": ["*"]}, "the data set has no class 'cta'; did you mean 'cat'?"),
    "a value": ({"a": [99], "b": ["*"]}, "no label file of the data set may hold the value 99; there are 0, 1, 2, "),
    "a name twice": ({"a": ["cat"], "b": ["cat"]}, "'cat' is in 'a' and in 'b'; keep one of them"),
    "a value twice": ({"a": [255], "b": [255]}, "the value 255 is in 'a' and in 'b'; keep one of them"),
    "a name and its value": ({"a": ["cat"], "b": [8]}, "'cat' is in 'a' and in 'b'; keep one of them"),
    "nothing is left": (
        {"a": list(range(21)), "b": ["*"]},
        "'b' has nothing: the other lines name every class of the data set",
    ),
    "a reserved name": ({"void": ["cat"], "b": ["*"]}, "the name 'void' stands for what counts as no class in tables"),
    "an unseen name": ({"a\x07": ["cat"], "b": ["*"]}, "holds characters that are not seen; give the class another"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_said(tmp_path, case):
    classes, message = WRONG[case]
    with pytest.raises(DataError) as caught:
        opened(write_voc(tmp_path), "voc", classes, train="train_aug")
    assert str(caught.value).startswith("dataset.classes: ") and message in str(caught.value)


SENSELESS = {
    "one class": ({"a": ["cat"]}, "one class, and nothing is learned: expected another, such as background: ['*']"),
    "the rest twice": ({"a": ["*"], "b": ["*"]}, '"*", all that is left: expected in one class at most'),
    "no list": ({"a": "cat", "b": ["*"]}, "'a' is 'cat': expected a list of names or label values of the data set"),
    "an empty list": ({"a": [], "b": ["*"]}, "'a' is []: expected a list of names or label values of the data set"),
    "a large value": ({"a": [256], "b": ["*"]}, "'a' is [256]: expected a list of names or label values"),
    "a number as a name": ({1: ["cat"], "b": ["*"]}, "1 is no name of a class: expected a text"),
    "a blank behind": (
        {"a ": ["cat"], "b": ["*"]},
        "'a ' is no name of a class: expected a text",
    ),
    "void": ({"-": ["cat"], "b": ["*"]}, "'-' is no name of a class: expected a text"),
}


@pytest.mark.parametrize("case", SENSELESS)
def test_what_makes_no_sense_is_refused_before_data_are_looked_at(case):
    classes, message = SENSELESS[case]
    with pytest.raises(SettingsError) as caught:
        config.load(overrides={"dataset": {"classes": classes}}, root=ROOT)
    assert str(caught.value).startswith(f"params.yaml: dataset.classes: {message}")


def test_a_choice_takes_the_place_of_the_one_before(tmp_path):
    for name in ("params.yaml", "presets"):
        (tmp_path / name).symlink_to(ROOT / name)
    with pytest.raises(SettingsError, match=r"is not valid YAML: .* alias, .*; write '\*' in quotes"):
        presets.apply(tmp_path, ["dataset.classes={a: [brick], b: [*]}"])
    items = ["dataset.classes={a: [brick], b: [clay]}", "dataset.classes={c: [moss], b: ['*']}"]
    text = presets.apply(tmp_path, items)
    assert config.resolve(config.parse(text, "")).dataset.classes == {"c": ("moss",), "b": ("*",)}
    assert config.resolve(config.parse(text, ""), overrides={"dataset": {"classes": None}}).dataset.classes is None


SEVEN = {name: [name] for name in ("cat", "cow", "dog", "horse", "person", "sheep")} | {"background": ["*"]}


@pytest.mark.skipif("RRN_VOC_SAMPLE" not in os.environ, reason="RRN_VOC_SAMPLE names no folder of images of VOC")
def test_images_of_voc_are_used_with_seven_of_their_classes():
    root = Path(os.environ["RRN_VOC_SAMPLE"])
    plain, chosen = (opened(root, "voc", classes, train="train_aug") for classes in (None, SEVEN))
    report = verification.verify(chosen, 1)
    assert not report.problems and chosen.classes == ("background", "cat", "cow", "dog", "horse", "person", "sheep")
    for split in ("train_aug", "val"):
        before, after = (found.shares(split, found.ids[split]) for found in (verification.verify(plain, 1), report))
        assert after[1:-1] == pytest.approx(before[[8, 10, 12, 13, 15, 17]])
        assert after[-1] == pytest.approx(before[-1]), "what was no class is none"
