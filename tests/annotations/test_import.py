"""Exports of annotation tools become folder data sets: what the tools made, by hand made faults, and splits."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rrn.annotations import assignment, coco
from rrn.annotations.source import Annotated, index_of, paint, split_name
from rrn.config import IGNORE_INDEX
from rrn.data.decoding import DataError
from rrn.preparation import command

EXPORTS = Path(__file__).with_name("exports")
BACKGROUND, CAT, DOG = 0, 1, 2


def drawn():
    """What was drawn, by picture: a dog before a cat, a dog, a cat."""
    labels = np.zeros((3, 18, 24), np.uint8)
    labels[0, 4:12, 3:14] = CAT
    labels[0, 6:10, 6:10] = DOG
    labels[1, 4:12, 3:14] = DOG
    labels[2, 2:16, 10:20] = CAT
    return labels


def written(out):
    """Return number of the picture -> its split and label."""
    paths = sorted(out.glob("labels/*/*.png"))
    return {int(p.stem[6]): (p.parent.name, np.asarray(Image.open(p))) for p in paths}


def call(*words):
    """Type the command, and return its exit status."""
    return command.main(["import", *map(str, words)])


SHARES = ("--split", "train=0.6", "val=0.4")
CALLS = {
    "coco": ("coco", EXPORTS / "coco"),
    "coco_runs": ("coco", EXPORTS / "coco_runs/train.json", *SHARES, "--images", EXPORTS / "coco/images/train"),
    "cvat": ("cvat", EXPORTS / "cvat", *SHARES),
    "labelme": ("labelme", EXPORTS / "labelme", *SHARES),
    "label_studio": ("label-studio", EXPORTS / "label_studio", *SHARES, "--images", EXPORTS / "cvat/JPEGImages"),
    "roboflow": ("roboflow", EXPORTS / "roboflow"),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_the_tools_made_is_read_as_it_was_drawn(name, tmp_path, capsys):
    kind, source, *options = CALLS[name]
    assert call(kind, source, tmp_path / "out", *options) == 0, capsys.readouterr().err
    found = written(tmp_path / "out")
    assert len(found) == (2 if name == "coco_runs" else 3)
    for number, (split, label) in found.items():
        image = next((tmp_path / "out/images" / split).glob(f"photo_{number}*.jpg"))
        assert Image.open(image).size == label.shape[::-1]
        if name == "labelme":  # its polygons cover the pixels of their right and lower edges too
            expected = np.asarray(Image.open(source / "SegmentationClassPNG" / f"photo_{number}.png"))
            assert (label[5:8, 4:5] == drawn()[number][5:8, 4:5]).all()
        else:
            expected = drawn()[number]
        np.testing.assert_array_equal(label, expected)
    names = (tmp_path / "out/classes.txt").read_text().split()
    assert names == ["_background_" if name == "labelme" else "background", "cat", "dog"]
    assert "cat" in capsys.readouterr().out


def test_what_labelme_ignores_is_void(tmp_path):
    assert call(*CALLS["labelme"][:2], tmp_path / "out", *SHARES) == 0
    _, label = written(tmp_path / "out")[1]
    assert (label[3:8, 19:22] == IGNORE_INDEX).all()


@pytest.mark.parametrize("name", ["coco", "roboflow"])
def test_splits_of_the_export_are_kept_under_our_names(name, tmp_path):
    assert call(*CALLS[name][:2], tmp_path / "out") == 0
    assert {number: split for number, (split, _) in written(tmp_path / "out").items()} == {
        0: "train",
        1: "train",
        2: "val",
    }


def test_what_is_imported_is_a_data_set_that_verify_accepts(tmp_path, monkeypatch, capsys):
    assert call(*CALLS["coco"][:2], tmp_path / "out") == 0
    shutil.copy(Path(__file__).parents[2] / "params.yaml", tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    text = (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("build/shapes ", "out ").replace("  test: test", "  test: val"))
    monkeypatch.chdir(tmp_path)
    assert command.main(["verify"]) == 0, capsys.readouterr()


def test_a_class_can_be_void(tmp_path):
    assert call(*CALLS["coco"][:2], tmp_path / "out", "--void", "background") == 0
    assert (tmp_path / "out/classes.txt").read_text().split() == ["cat", "dog"]
    _, label = written(tmp_path / "out")[2]
    np.testing.assert_array_equal(label, np.where(drawn()[2] == CAT, 0, IGNORE_INDEX))


def test_images_can_be_links(tmp_path):
    assert call(*CALLS["coco"][:2], tmp_path / "out", "--link") == 0
    image = tmp_path / "out/images/train/photo_0.jpg"
    assert image.is_symlink() and image.resolve() == EXPORTS / "coco/images/train/photo_0.jpg"


def test_colors_of_ones_own(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(EXPORTS / "coco/images", source / "images")
    for number, label in written_colors().items():
        path = source / "labels" / ("val" if number == 2 else "train") / f"photo_{number}_mask.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(label).save(path)
    lines = ["name,r,g,b", "background,0,0,0", "cat,9,8,7", "dog,1,2,3", "dog,3,2,1"]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    assert call("colors", source, tmp_path / "out", "--colors", tmp_path / "table.csv") == 0
    for number, (_, label) in written(tmp_path / "out").items():
        np.testing.assert_array_equal(label, drawn()[number])


def written_colors():
    table = np.array([(0, 0, 0), (9, 8, 7), (1, 2, 3)], np.uint8)
    labels = {number: table[label] for number, label in enumerate(drawn())}
    labels[1][5, 5] = (3, 2, 1)
    return labels


def json_of(path, change):
    """Change a JSON file by a function."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def train(change):
    return lambda source: json_of(source / "annotations/instances_train.json", change)


def annotation(**values):
    return train(lambda file: file["annotations"][0].update(values))


def repaint(path, **options):
    """Write a mask anew: one pixel more to the right, or another color."""

    def change(source):
        image = Image.open(source / path).convert("RGB")
        if "color" in options:
            image.putpixel((0, 0), options["color"])
        image.resize(options.get("size", image.size), Image.Resampling.NEAREST).save(source / path)

    return change


def rename_tasks(source):
    (source / "tasks.json").rename(source / "tasks.txt")


def second_annotation(source):
    shutil.copy(source / "task-1-annotation-5-by-1-tag-cat-0.png", source / "task-1-annotation-9-by-1-tag-cat-0.png")


def text_of(path, text):
    return lambda source: (source / path).write_text(text)


FAULTS = [
    ("coco", annotation(segmentation=[]), "annotation 1 is a box without a polygon or mask"),
    ("coco", annotation(segmentation=[[1.0, 2.0]]), "annotation 1 is no polygon and no mask"),
    (
        "coco",
        annotation(segmentation={"size": [9, 9], "counts": [81]}),
        "is a mask of 9 x 9 pixels, but its image is 24 x 18",
    ),
    ("coco", annotation(category_id=77), "the category 77, one of which the file lacks"),
    ("coco", train(lambda file: file.pop("categories")), "is no COCO file: categories: Field required"),
    ("coco", train(lambda file: file["images"][0].update(file_name="gone.jpg")), "the image gone.jpg is in none of"),
    ("coco", text_of("annotations/instances_train.json", "{"), "is no JSON"),
    ("coco", lambda source: shutil.rmtree(source / "annotations"), "holds no JSON file"),
    (
        "cvat",
        repaint("SegmentationClass/photo_1.png", color=(1, 2, 3)),
        "photo_1.png has the color (1, 2, 3) in 1 pixels",
    ),
    ("cvat", repaint("SegmentationClass/photo_1.png", size=(25, 18)), "is 25 x 18 pixels, but its image is 24 x 18"),
    ("cvat", text_of("labelmap.txt", "cat:1,2::"), "labelmap.txt, line 1: no color"),
    ("cvat", lambda source: (source / "labelmap.txt").unlink(), "labelmap.txt is missing"),
    ("cvat", lambda source: (source / "JPEGImages/photo_1.jpg").unlink(), "photo_1.png has no image in"),
    ("cvat", lambda source: shutil.rmtree(source / "JPEGImages"), "name theirs with --images"),
    ("cvat", lambda source: shutil.rmtree(source / "SegmentationClass"), "is it the unpacked export?"),
    ("labelme", text_of("class_names.txt", "_background_\ncat"), "photo_0.png has the value 2"),
    ("roboflow", text_of("train/_classes.csv", "cat\ndog"), "is no table of Roboflow"),
    (
        "roboflow",
        lambda source: (source / "train/photo_0_jpg.rf.0a1b2c3d4e5f.jpg").unlink(),
        "is a mask without an image",
    ),
    (
        "roboflow",
        lambda source: (source / "valid/photo_2_jpg.rf.0a1b2c3d4e5f_mask.png").unlink(),
        "has no label, and is in val",
    ),
    ("label_studio", rename_tasks, "name the JSON or JSON-MIN export"),
    ("label_studio", second_annotation, "task 1 (0a1b2c3d-photo_0.jpg) has 2 annotations, 5, 9"),
    ("label_studio", lambda source: json_of(source / "tasks.json", lambda tasks: tasks.pop(0)), "lacks the task 1"),
    ("label_studio", text_of("tasks.json", "{}"), "is no list of tasks"),
]


@pytest.mark.parametrize(("name", "spoil", "message"), FAULTS, ids=[f"{name}-{text[:20]}" for name, _, text in FAULTS])
def test_what_is_wrong_is_said_and_nothing_is_written(name, spoil, message, tmp_path, capsys):
    kind, _, *options = CALLS[name]
    shutil.copytree(EXPORTS / name, tmp_path / "source")
    spoil(tmp_path / "source")
    assert call(kind, tmp_path / "source", tmp_path / "out", *options) == 1
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "the export does not say in which split photo_0 is (3 such); say which image goes where"),
        (("--split", "train=0.6", "val=0.6"), "must be above 0 and add up to 1"),
        ((*SHARES, "--group", "(cat)"), "'(cat)' is not found in the id photo_0"),
        ((*SHARES, "--group", "photo"), "there are 1 groups for 2 splits"),
        (("--group", "photo"), "--group is about --split"),
        ((*SHARES, "--void", "horse"), "'horse' is no class of the export, which has background, cat, dog"),
        ((*SHARES, "--colors", "table.csv"), "--colors is not for cvat"),
        (("--lists", "."), "holds no train.txt"),
    ],
)
def test_options_that_do_not_fit(options, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("cvat", EXPORTS / "cvat", "out", *options) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_stays(tmp_path, capsys):
    (tmp_path / "kept.txt").write_text("mine")
    assert call(*CALLS["coco"][:2], tmp_path) == 1
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def images(*names, split=""):
    return [Annotated(name, Path(f"{name}.jpg"), None, split) for name in names]


def test_no_group_is_in_two_splits_and_shares_are_met():
    drives = images(*(f"drive{drive:02d}_{frame}" for drive in range(20) for frame in range(1 + drive % 4)))
    shares = {"train": 0.6, "val": 0.2, "test": 0.2}
    found = assignment.by_share(drives, shares, r"drive(\d+)", seed=3)
    of_drive = {}
    for name, split in found.items():
        of_drive.setdefault(name[:7], set()).add(split)
    assert all(len(splits) == 1 for splits in of_drive.values())
    for split, share in shares.items():
        assert abs(list(found.values()).count(split) - share * len(drives)) <= 4
    assert found == assignment.by_share(drives, shares, r"drive(\d+)", seed=3)
    assert found != assignment.by_share(drives, shares, r"drive(\d+)", seed=4)


@pytest.mark.parametrize(
    ("train_list", "message"),
    [("a\nb.jpg", None), ("a", "b is in no list"), ("a\nb\nc", "c is listed twice"), ("a\nx", "'x' is no image")],
)
def test_lists(train_list, message, tmp_path):
    (tmp_path / "train.txt").write_text(train_list)
    (tmp_path / "val.txt").write_text("c\n")
    if message is None:
        assert assignment.by_lists(images("a", "b", "c"), tmp_path) == {"a": "train", "b": "train", "c": "val"}
    else:
        with pytest.raises(DataError, match=message):
            assignment.by_lists(images("a", "b", "c"), tmp_path)


def test_one_split_is_none(tmp_path):
    with pytest.raises(DataError, match="no split but 'train'"):
        assignment.as_exported(images("a", "b", split="train"))


def test_a_category_that_is_the_kind_of_others_and_labels_nothing_is_left_out(tmp_path):
    shutil.copytree(EXPORTS / "coco", tmp_path / "coco")
    for path in (tmp_path / "coco/annotations").iterdir():
        json_of(path, lambda file: file["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"}))
        json_of(path, lambda file: [c.update(supercategory="animals") for c in file["categories"][1:]])
    assert coco.read_coco(tmp_path / "coco").classes == ("background", "cat", "dog")


def test_the_smaller_mask_lies_on_top():
    large, small = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    large[:, :3], small[1, 1] = True, True
    for order in ([(5, large), (6, small)], [(6, small), (5, large)]):
        label = paint(order, (4, 4), 0)
        assert label[1, 1] == 6 and label[0, 0] == 5 and label[0, 3] == 0


def test_names_of_splits_and_indices_of_classes():
    assert [split_name(word) for word in ("valid", "val2017", "Training", "test-dev")] == [
        "val",
        "val",
        "train",
        "test-dev",
    ]
    assert index_of(["a", "b", "a", "c"], ["b"]) == {"a": 0, "c": 1, "b": IGNORE_INDEX}


def test_json_min_of_label_studio(tmp_path):
    shutil.copytree(EXPORTS / "label_studio", tmp_path / "source")
    tasks = json.loads((tmp_path / "source/tasks.json").read_text())
    (tmp_path / "source/tasks.json").unlink()
    small = [
        {"id": t["id"], "annotation_id": t["annotations"][0]["id"], "image": t["data"]["image"], "created_at": "today",
         "tag": [r["value"] for r in t["annotations"][0]["result"]]}
        for t in tasks
    ]  # fmt: skip
    (tmp_path / "min.json").write_text(json.dumps(small))
    _, _, *options = CALLS["label_studio"]
    assert call("label-studio", tmp_path / "source", tmp_path / "out", *options, "--tasks", tmp_path / "min.json") == 0
    for number, (_, label) in written(tmp_path / "out").items():
        np.testing.assert_array_equal(label, drawn()[number])


def test_lists_of_cvat_are_splits(tmp_path):
    shutil.copytree(EXPORTS / "cvat", tmp_path / "source")
    lists = tmp_path / "source/ImageSets/Segmentation"
    (lists / "default.txt").unlink()
    (lists / "train.txt").write_text("photo_0\nphoto_1\n")
    (lists / "Validation.txt").write_text("photo_2\n")
    assert call("cvat", tmp_path / "source", tmp_path / "out") == 0
    assert {number: split for number, (split, _) in written(tmp_path / "out").items()} == {
        0: "train",
        1: "train",
        2: "val",
    }


def test_gray_masks_of_cvat_count_the_lines_of_the_table(tmp_path):
    shutil.copytree(EXPORTS / "cvat", tmp_path / "source")
    for number, label in enumerate(drawn()):
        Image.fromarray(label).save(tmp_path / f"source/SegmentationClass/photo_{number}.png")
    assert call("cvat", tmp_path / "source", tmp_path / "out", *SHARES) == 0
    for number, (_, label) in written(tmp_path / "out").items():
        np.testing.assert_array_equal(label, drawn()[number])


def test_an_image_of_train_without_a_mask_is_unlabeled(tmp_path, capsys):
    shutil.copytree(EXPORTS / "roboflow", tmp_path / "source")
    next((tmp_path / "source/train").glob("photo_1*_mask.png")).unlink()
    assert call("roboflow", tmp_path / "source", tmp_path / "out") == 0
    assert len(list((tmp_path / "out/images/train").iterdir())) == 2
    assert len(list((tmp_path / "out/labels/train").iterdir())) == 1
    line = next(csv.reader([" ".join(capsys.readouterr().out.splitlines()[1].split())], delimiter=" "))
    assert line[:3] == ["train", "2", "1"]
