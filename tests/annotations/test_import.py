"""Exports of annotation tools become folder data sets: what the tools made, by hand made faults, and splits."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rrn.annotations import assignment, coco, label_studio
from rrn.annotations.source import Annotated, find_image, image_id, index_of, paint, split_name
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


SHARES = ("--split", "train=0.6,val=0.4")
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


@pytest.mark.parametrize(("choice", "status"), [("ignore", 0), ("apply", 1)])
def test_rotated_images_have_the_size_that_labels_lie_on(choice, status, tmp_path, capsys):
    """The export of coco says 24 x 18, which is how the pixels are stored."""
    source = shutil.copytree(EXPORTS / "coco", tmp_path / "coco")
    turned(source)
    assert call("coco", source, tmp_path / "out", "--exif", choice) == status
    said = capsys.readouterr()
    if status:
        assert "photo_0.jpg is 24 x 18 pixels, but it is 18 x 24" in said.err and not (tmp_path / "out").exists()
        return
    assert "dataset.exif=ignore, then python -m rrn.data verify" in said.out
    np.testing.assert_array_equal(written(tmp_path / "out")[0][1], drawn()[0])


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


def name_class(name):
    return train(lambda file: file["categories"][1].update(name=name))


def rle(counts):
    return annotation(segmentation={"size": [18, 24], "counts": counts})


def turned(source):
    path = source / "images/train/photo_0.jpg"
    exif = Image.Exif()
    exif[274] = 6
    Image.open(path).save(path, exif=exif)


def cut_off(path):
    return lambda source: (source / path).write_bytes((source / path).read_bytes()[:400])


def two_labels(source):
    json_of(
        source / "tasks.json",
        lambda tasks: tasks[0]["annotations"][0]["result"][0]["value"].update(brushlabels=["cat", "dog"]),
    )


def photo(number, ending):
    return f"train/photo_{number}_jpg.rf.0a1b2c3d4e5f{ending}"


FAULTS = [
    ("coco", rle([0, 100]), "its counts do not add up to the pixels of the image"),
    ("coco", rle([5, 430, -3]), "its counts do not add up to the pixels of the image"),
    (
        "coco",
        train(lambda file: file["images"][0].update(width=48)),
        "photo_0.jpg is 48 x 18 pixels, but it is 24 x 18",
    ),
    ("coco", train(lambda file: file["annotations"].pop()), "nothing is drawn on"),
    ("coco", name_class(""), "the class '' has no name that a line of classes.txt can hold"),
    ("coco", name_class("a\nb"), "the class 'a\\nb' has no name"),
    ("coco", name_class("-"), "the class '-' has no name"),
    ("coco", name_class("void"), "cannot be kept"),
    ("coco", turned, "is stored rotated (EXIF orientation 6)"),
    ("coco", cut_off("images/train/photo_0.jpg"), "it is broken or incomplete"),
    ("coco", train(lambda file: file["images"].append(file["images"][0] | {"id": 99})), "one id, 'train_photo_0'"),
    ("cvat", text_of("labelmap.txt", "a:0,0,0::\nb:128,0,0::\nc:128,0,0::"), "gives (128, 0, 0) to 'b' and to 'c'"),
    ("cvat", lambda source: (source / "labelmap.txt").write_bytes(b"\xff\xfe"), "labelmap.txt is no UTF-8 text"),
    ("roboflow", lambda source: (source / "train/_classes.csv").unlink(), "_classes.csv is missing"),
    ("roboflow", text_of("train/_classes.csv", "Pixel Value, Class\n0, a\n300, b"), "is no table of Roboflow"),
    (
        "roboflow",
        text_of("train/_classes.csv", "Pixel Value, Class\n0, a\n1, b"),
        "has the value 2 in 16 pixels (1 such)",
    ),
    ("roboflow", lambda s: (s / photo(0, ".jpg")).rename(s / photo(0, "_mask.jpg")), "have one name"),
    ("label_studio", two_labels, "one brush is 'cat' and 'dog'"),
    (
        "label_studio",
        lambda source: json_of(source / "tasks.json", lambda tasks: tasks[0].update(data=None)),
        "names no image",
    ),
    ("coco", annotation(segmentation=[]), "annotation 1 is a box without a polygon or mask"),
    (
        "coco",
        annotation(segmentation=[[1.0, 2.0, 3.0]]),
        "annotation 1 is no polygon and no mask (3 numbers are no points)",
    ),
    (
        "coco",
        annotation(segmentation={"size": [9, 9], "counts": [81]}),
        "it has [9, 9] rows and columns, and its image [18, 24]",
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
    error = capsys.readouterr().err
    assert message in error and ".part" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "the export does not say in which split photo_0 is (3 such); say which image goes where"),
        (("--split", "train=0.6,val=0.6"), "must be above 0 and add up to 1, and are train=0.6, val=0.6"),
        (("--split", "train=nan,val=1"), "must be above 0"),
        (("--split", "val=0.5,test=0.5"), "train is missing"),
        ((*SHARES, "--group", "(cat)"), "'(cat)' is not found in the id 'photo_0'"),
        ((*SHARES, "--group", "photo"), "--split: of 1 groups, such as 'photo', none is left for val"),
        (("--split", "train=0.9,val=0.05,test=0.05"), "--split: of 3 images none is left for val, test"),
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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--group", "("), "is no regular expression"),
        (("--group", ""), "the pattern is empty"),
        (("--seed", "-1"), "is no whole number from 0"),
        (("--split", "train"), "'train' is no NAME=SHARE of its own"),
        (("--split", "../x=1"), "is no NAME=SHARE"),
        (("--split", "val=0.5,valid=0.5"), "'valid=0.5' is no NAME=SHARE of its own"),
    ],
)
def test_options_that_mean_nothing(words, message, capsys):
    with pytest.raises(SystemExit):
        call("cvat", EXPORTS / "cvat", "out", *words)
    assert message in capsys.readouterr().err


def test_places_that_cannot_be(tmp_path, capsys):
    shutil.make_archive(tmp_path / "export", "zip", EXPORTS / "cvat")
    shutil.copytree(EXPORTS / "cvat", tmp_path / "cvat")
    for source, out, message in [
        ("nothing", "out", "there is no"),
        ("export.zip", "out", "is an archive: unpack it"),
        ("cvat", "cvat/out", "lies in"),
    ]:
        assert call("cvat", tmp_path / source, tmp_path / out, *SHARES) == 1
        assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cvat", "export.zip"]


def test_nothing_is_written_outside_of_the_folder(tmp_path):
    """Paths of an export are no places: neither from the root of the disk, nor up."""
    assert [image_id(path) for path in ("/etc/a.b.jpg", "../x/y.jpg", "a\\b.png", "./c.jpg")] == [
        "etc_a.b",
        "x_y",
        "a_b",
        "c",
    ]
    shutil.copytree(EXPORTS / "coco", tmp_path / "coco")
    place = tmp_path / "coco/images/train/photo_0.jpg"
    json_of(tmp_path / "coco/annotations/instances_train.json", lambda f: f["images"][0].update(file_name=str(place)))
    assert call("coco", tmp_path / "coco", tmp_path / "out") == 0
    assert len(list((tmp_path / "out/images/train").iterdir())) == 2


@pytest.mark.parametrize("what", ["background", "unlabeled"])
def test_what_nothing_is_drawn_on_is_what_the_user_says(what, tmp_path):
    shutil.copytree(EXPORTS / "coco", tmp_path / "coco")
    json_of(tmp_path / "coco/annotations/instances_train.json", lambda file: file["annotations"].pop())
    assert call("coco", tmp_path / "coco", tmp_path / "out", "--empty", what) == 0
    labels = written(tmp_path / "out")
    assert sorted(labels) == ([0, 1, 2] if what == "background" else [0, 2])
    assert what == "unlabeled" or (labels[1][1] == BACKGROUND).all()


def test_ids_keep_the_dots_of_names_and_two_copies_of_a_photograph(tmp_path):
    shutil.copytree(EXPORTS / "roboflow", tmp_path / "source")
    for ending in (".jpg", "_mask.png"):
        shutil.copy(tmp_path / "source" / photo(0, ending), tmp_path / "source/train" / f"photo_0_jpg.rf.ffff{ending}")
    assert call("roboflow", tmp_path / "source", tmp_path / "out") == 0
    names = sorted(path.stem for path in (tmp_path / "out/images/train").iterdir())
    assert names == ["photo_0_jpg.rf.0a1b2c3d4e5f", "photo_0_jpg.rf.ffff", "photo_1_jpg.rf.0a1b2c3d4e5f"]


def test_the_same_names_in_two_splits_get_the_split_before_them(tmp_path):
    for split, number in (("train", 0), ("train", 1), ("val", 2)):
        for kind, path in (("images", EXPORTS / f"cvat/JPEGImages/photo_{number}.jpg"), ("labels", None)):
            target = tmp_path / "source" / kind / split / f"{number % 2}{'.jpg' if path else '.PNG'}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path or EXPORTS / f"cvat/SegmentationClass/photo_{number}.png", target)
    (tmp_path / "colors.csv").write_text("# mine\nname, r, g, b\nbackground, 0,0,0\ncat,128, 0, 0\ndog,0,128,0\n")
    assert call("colors", tmp_path / "source", tmp_path / "out", "--colors", tmp_path / "colors.csv") == 0
    found = {path.stem: np.asarray(Image.open(path)) for path in (tmp_path / "out/labels").glob("*/*")}
    assert sorted(found) == ["train_0", "train_1", "val_0"]
    np.testing.assert_array_equal(found["val_0"], drawn()[2])


def test_folders_that_are_no_splits_are_part_of_the_id(tmp_path):
    for number in range(3):
        for kind, path in (
            ("images", f"JPEGImages/photo_{number}.jpg"),
            ("masks", f"SegmentationClass/photo_{number}.png"),
        ):
            target = tmp_path / "source" / kind / f"drive{number}" / f"0{Path(path).suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(EXPORTS / "cvat" / path, target)
    shutil.copy(EXPORTS / "cvat/labelmap.txt", tmp_path / "labelmap.txt")
    (tmp_path / "source/colors.csv").write_text("background,0,0,0\ncat,128,0,0\ndog,0,128,0\n")
    assert call("colors", tmp_path / "source", tmp_path / "out", *SHARES, "--group", "drive.") == 0
    assert sorted(path.stem for path in (tmp_path / "out/images").glob("*/*")) == ["drive0_0", "drive1_0", "drive2_0"]


def test_a_mark_belongs_to_no_other_image_and_masks_are_png(tmp_path, capsys):
    source = tmp_path / "source"
    shutil.copytree(EXPORTS / "cvat", source)
    shutil.copy(source / "JPEGImages/photo_0.jpg", source / "JPEGImages/photo_0_mask.jpg")
    (source / "SegmentationClass/photo_0.png").rename(source / "SegmentationClass/photo_0_mask.png")
    assert call("cvat", source, tmp_path / "out", *SHARES) == 0
    assert not list((tmp_path / "out/labels").glob("*/photo_0.png"))
    assert len(list((tmp_path / "out/labels").glob("*/photo_0_mask.png"))) == 1
    Image.open(source / "SegmentationClass/photo_1.png").convert("RGB").save(source / "SegmentationClass/photo_1.jpg")
    (source / "SegmentationClass/photo_1.png").unlink()
    assert call("cvat", source, tmp_path / "more", *SHARES) == 1
    assert "photo_1.jpg is a JPEG, but masks are PNG" in capsys.readouterr().err


def test_a_line_of_a_polygon_covers_nothing_and_background_is_one_class(tmp_path):
    shutil.copytree(EXPORTS / "coco", tmp_path / "coco")

    def change(file):
        file["annotations"][0]["segmentation"].append([1.0, 1.0, 2.0, 2.0])
        file["categories"][0]["name"] = "_background_"

    json_of(tmp_path / "coco/annotations/instances_train.json", change)
    assert call("coco", tmp_path / "coco", tmp_path / "out") == 0
    np.testing.assert_array_equal(written(tmp_path / "out")[0][1], drawn()[0])


def test_uploaded_names_and_folders_of_label_studio(tmp_path):
    for name in ("cam1/a.jpg", "b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    task = {"id": 1, "data": {"image": "/data/local-files/?d=store/cam1/a.jpg", "other": "text"}}
    assert find_image(label_studio._file_names(tmp_path, task), [tmp_path]) == tmp_path / "cam1/a.jpg"
    task = {"id": 1, "image": "/data/upload/3/0a1b2c3d-b.jpg?x=1"}
    assert find_image(label_studio._file_names(tmp_path, task), [tmp_path]) == tmp_path / "b.jpg"
    assert label_studio._file_names(tmp_path, {"id": 1, "image": "cam_20240101-b.jpg"})[-1] == "cam_20240101-b.jpg"


def test_a_folder_that_holds_something_stays(tmp_path, capsys):
    (tmp_path / "kept.txt").write_text("mine")
    assert call(*CALLS["coco"][:2], tmp_path) == 1
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def images(*names, split="", draw=np.zeros):
    return [Annotated(name, Path(f"{name}.jpg"), draw, split) for name in names]


def test_no_group_is_in_two_splits_and_shares_are_met():
    drives = images(*(f"drive{drive:02d}_{frame}" for drive in range(20) for frame in range(1 + drive % 4)))
    shares, pattern = {"train": 0.6, "val": 0.2, "test": 0.2}, re.compile(r"drive(\d+)|nothing")
    found = assignment.by_share(drives, shares, pattern, seed=3)
    of_drive = {}
    for name, split in found.items():
        of_drive.setdefault(name[:7], set()).add(split)
    assert all(len(splits) == 1 for splits in of_drive.values())
    for split, share in shares.items():
        assert abs(list(found.values()).count(split) - share * len(drives)) <= 4
    assert found == assignment.by_share(drives, shares, pattern, seed=3)
    assert found != assignment.by_share(drives, shares, pattern, seed=4)


@pytest.mark.parametrize(
    ("train_list", "message"),
    [
        ("a\nb.jpg", None),
        ("a", "b is in no list"),
        ("a\nb\nc", "c is listed twice"),
        ("a\nx", "has 'x', which is no image"),
    ],
)
def test_lists(train_list, message, tmp_path):
    (tmp_path / "train.txt").write_text(train_list)
    (tmp_path / "val.txt").write_text("c\n")
    if message is None:
        assert assignment.by_lists(images("a", "b", "c"), tmp_path) == {"a": "train", "b": "train", "c": "val"}
    else:
        with pytest.raises(DataError, match=message):
            assignment.by_lists(images("a", "b", "c"), tmp_path)


def test_unlabeled_images_go_to_train_and_take_their_group_along():
    labeled, unlabeled = images(*(f"a{n}_{k}" for n in range(6) for k in range(2))), images("a0_9", "b", draw=None)
    found = assignment.by_share([*labeled, *unlabeled], {"train": 0.5, "val": 0.5}, re.compile("[ab][0-9]?"), 0)
    assert {found[name] for name in ("a0_0", "a0_1", "a0_9", "b")} == {"train"}
    assert list(found.values()).count("val") == 6


def test_one_split_is_none(tmp_path):
    with pytest.raises(DataError, match="has the splits train, and train and another"):
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
