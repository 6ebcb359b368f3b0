"""Files of a folder data set that nothing would read are named: images that are left out, labels of no image."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small import HEIGHT, WIDTH, small_settings, verified, write_folder

from rrn.data.report import Report
from rrn.data.sets import ImageSet


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data")


def found(root: Path, **data: object) -> Report:
    return verified(ImageSet.open(small_settings(root, dataset=data), root.parent))


def rename(root: Path, change: Callable[[str], str], count: int = 5, split: str = "train") -> None:
    """Rename the first labels of a split."""
    for path in sorted((root / "labels" / split).iterdir())[:count]:
        path.rename(path.with_name(change(path.name)))


SUBFOLDER = "as subfolders are not read"
RENAMED: dict[str, tuple[Callable[[str], str], str]] = {
    "suffix": (lambda name: name.replace(".png", "_mask.png"), "as their names have '_mask' more than those of the im"),
    "another suffix": (lambda name: name.replace(".png", "-seg.png"), "as their names have '-seg' more than those of"),
    "ending of the image": (lambda name: name.replace(".png", ".jpg.png"), "as their names have '.jpg' more than th"),
    "prefix": (lambda name: f"gt_{name}", "as their names have 'gt_' more than those of the images"),
    "letter case": (str.title, "as their names differ from those of the images in letter case"),
    "upper-case ending": (lambda name: name.replace(".png", ".PNG"), "as they end in '.PNG' in place of '.png'"),
    "TIFF": (lambda name: name.replace(".png", ".tif"), "as they end in '.tif' in place of '.png'"),
    "BMP": (lambda name: name.replace(".png", ".bmp"), "as they end in '.bmp' in place of '.png'"),
    "JPEG": (lambda name: name.replace(".png", ".jpg"), "as they end in '.jpg' (a JPEG does not keep values: export"),
    "other names": (lambda name: f"z{name[-6:]}", "as no image has their name"),
}


@pytest.mark.parametrize(("change", "reason"), RENAMED.values(), ids=RENAMED)
def test_labels_of_no_image_are_counted_and_named_with_the_reason(
    root: Path, change: Callable[[str], str], reason: str
) -> None:
    rename(root, change)
    (problem,) = found(root).problems
    assert problem.startswith(f"5 labels in {root}/labels/train without an image, {reason}")
    assert change("train000.png") in problem and "<name of the image>.png: rename them" in problem


def test_unicode_forms_are_told_apart(root: Path) -> None:
    for folder, suffix, form in (("images", "jpg", "NFC"), ("labels", "png", "NFD")):
        path = root / folder / "train" / f"train000.{suffix}"
        path.rename(path.with_name(unicodedata.normalize(form, f"é0.{suffix}")))
    (problem,) = found(root).problems
    assert problem.startswith(f"1 label in {root}/labels/train without an image, as their names are written in another")
    path = next((root / "labels/train").glob("*0.png"))
    path.rename(path.with_name(unicodedata.normalize("NFC", path.name)))
    if len(list((root / "labels/train").glob("*0.png"))) == 2:
        assert not found(root).problems


def test_names_that_differ_on_both_sides(root: Path) -> None:
    for path in (root / "images/train").iterdir():
        path.rename(path.with_name(f"{path.stem}_rgb.jpg"))
    rename(root, lambda name: name.replace(".png", "_label.png"), 16)
    none, problem = found(root).problems
    assert none.startswith("none of the 16 images of 'train' has a label")
    assert "16 labels in" in problem and "names have 'label' where those of the images have 'rgb'" in problem


def test_numbers_are_not_cut(root: Path) -> None:
    """The label train0000 is none of the image train000."""
    Image.new("L", (WIDTH, HEIGHT)).save(root / "labels/train/train0000.png")
    (problem,) = found(root).problems
    assert "1 label in" in problem and "as no image has their name: train0000.png" in problem


def test_labels_in_other_folders(root: Path) -> None:
    (root / "labels/train/day1").mkdir()
    (root / "labels/train/train000.png").rename(root / "labels/train/day1/train000.png")
    (root / "labels/train/train001.png").rename(root / "labels/val/train001.png")
    first, second = sorted(found(root).problems)
    assert f"{root}/labels/train without an image, {SUBFOLDER}: day1/train000.png" in first
    assert f"{root}/labels/val without an image, as their images lie in images/train: train001.png" in second


def test_every_kind_of_stray_label_has_a_line(root: Path) -> None:
    rename(root, lambda name: name.replace(".png", ".PNG"), 3)
    rename(root, lambda name: name.replace(".png", "_mask.png"), 2, "val")
    lines = found(root).problems
    assert len([line for line in lines if "without an image" in line]) == 2
    assert len([line for line in lines if line.endswith("is missing")]) == 2  # val must have labels


def test_further_pictures_of_labels_that_are_there_are_a_note(root: Path) -> None:
    for path in sorted((root / "labels/train").iterdir()):
        Image.new("RGB", (WIDTH, HEIGHT)).save(path.with_name(f"{path.stem}_color.png"))
    report = found(root)
    assert not report.problems
    (note,) = report.notes
    assert note.startswith("16 labels in labels/train not read, as their images have other labels: train000_co")


def test_labels_of_images_without_labels_in_a_further_folder(root: Path) -> None:
    (root / "images/more").mkdir()
    (root / "images/train/train000.jpg").rename(root / "images/more/train000.jpg")
    assert not found(root, unlabeled="more").problems  # labels/train/train000.png is its label
    report = found(root)
    assert "1 label in" in report.problems[0] and "no image has their name: train000.png" in report.problems[0]
    assert report.notes == ("images/more is the folder of no split, and not read: 1 image",)


def left_out(root: Path, name: str, contents: bytes) -> None:
    path = root / "images/train" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(contents)


UNREAD = {
    "HEIC": ("x.HEIC", b"\0\0\0\x18ftypheic", "as a HEIC is not read: x.HEIC; save them as JPEG or PNG"),
    "by its ending": ("x.heic", b"nothing", "as a .heic file is not read: x.heic; save them as JPEG or PNG"),
    "GIF": ("x.gif", b"GIF89a", "as a GIF is not read: x.gif; save them as JPEG or PNG"),
    "video": ("x.mp4", b"\0\0\0\x18ftypisom", "as an MP4 video is not read: x.mp4"),
    "ending of another program": ("x.jfif", b"\xff\xd8\xff\xe0", "as no image ends in '.jfif': x.jfif; a JPEG may end"),
    "no ending": ("x", b"\x89PNG", "as no image ends in '': x; a PNG may end in .png"),
    "subfolder": ("day2/x.jpg", b"\xff\xd8\xff\xe0", "as subfolders are not read: day2/x.jpg; move them up"),
    "subfolder of other pictures": ("day2/x.gif", b"GIF89a", "as subfolders are not read: day2/x.gif; move them up"),
}


@pytest.mark.parametrize(("name", "contents", "reason"), UNREAD.values(), ids=UNREAD)
def test_images_that_would_be_left_out_are_named(root: Path, name: str, contents: bytes, reason: str) -> None:
    left_out(root, name, contents)
    (problem,) = found(root).problems
    assert problem.startswith(f"1 image in {root}/images/train would be left out, {reason}")


def test_images_left_out_are_counted_by_what_they_are(root: Path) -> None:
    for number in range(8):
        left_out(root, f"{number}.gif", b"GIF89a")
        left_out(root, f"day2/{number}.jpg", b"\xff\xd8\xff\xe0")
    first, second = found(root).problems
    assert "8 images" in first and "0.gif, 1.gif, 2.gif, 3.gif, 4.gif and 3 more; save them" in first
    assert "8 images" in second and "day2/0.jpg" in second


SILENT = (".DS_Store", "Thumbs.db", "desktop.ini", "._train000.jpg", "README", "README.md", "notes.txt", "list.csv")
LISTS = ("train000.json", "train000.xml", "_annotations.coco.json", ".ipynb_checkpoints/train000.jpg")


@pytest.mark.parametrize("name", [*SILENT, *LISTS, "@eaDir/train000.jpg", "__MACOSX/._train000.jpg"])
@pytest.mark.parametrize("folder", ["images", "labels"])
def test_what_systems_and_people_put_beside_images_is_passed_over(root: Path, folder: str, name: str) -> None:
    path = root / folder / "train" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\0\5\x16\7 what is no picture")
    if path.suffix == ".jpg":
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    report = found(root)
    assert (report.problems, report.notes) == ((), ())


def test_an_image_without_a_label_is_no_stray(root: Path) -> None:
    (root / "labels/train/train000.png").unlink()
    assert not found(root).problems
