"""Files of a folder data set that nothing would read are named: images that are left out, labels of no image."""

import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small import HEIGHT, WIDTH, small_settings, verified, write_folder

from rrn.data.image_set import ImageSet
from rrn.preparation.report import Report


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
    "no ending": (lambda name: name.replace(".png", ""), "as they have no ending: train000"),
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
    "no ending": ("x", b"\x89PNG", "as they have no ending: x; a PNG may end in .png"),
    "TGA": ("x.tga", b"nothing", "as a .tga file is not read: x.tga; save them as JPEG or PNG"),
    "a camera's": ("x.RAW", b"nothing", "as a .RAW file is not read: x.RAW; save them as JPEG or PNG"),
    "an icon": ("x.ico", b"\0\0\1\0", "as a .ico file is not read: x.ico; save them as JPEG or PNG"),
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


# ---- labels among the images


BESIDE: dict[str, Callable[[str], str]] = {
    "a mask": lambda name: f"{name}_mask.png",
    "before the name": lambda name: f"GT-{name}.png",
    "Cityscapes": lambda name: f"{name}_gtFine_labelIds.png",
    "a blank, letter case and a number": lambda name: f"{name.upper()} Segmentation 1.jpg",
    "of a color mask": lambda name: f"{name}.color_mask.bmp",
}


@pytest.mark.parametrize("call", BESIDE.values(), ids=BESIDE)
@pytest.mark.parametrize("folder", ["train", "more"])
def test_labels_beside_the_images_are_no_photographs(root: Path, call: Callable[[str], str], folder: str) -> None:
    (root / "images/more").mkdir()
    for number in range(7):
        Image.new("L", (WIDTH, HEIGHT), number).save(root / "images" / folder / call(f"train{number:03d}"))
    (problem,) = (line for line in found(root, unlabeled="more").problems if "same image" not in line)
    assert problem.startswith(f"7 images in {root}/images/{folder}, called as labels of other images, would count")
    assert f"{call('train004')} and 2 more; the label of an image is {root}/labels/train/<name of the im" in problem


NO_LABELS = ("frame_1", "frame_1_b", "car_2", "mask_01", "train000_b", "train000_maskray", "colored_train000", "gt40")


@pytest.mark.parametrize("name", NO_LABELS)
def test_names_of_photographs_are_no_labels(root: Path, name: str) -> None:
    Image.effect_noise((WIDTH, HEIGHT), 9).save(root / "images/train/car.jpg")
    Image.effect_noise((WIDTH, HEIGHT), 90).save(root / "images/train" / f"{name}.jpg")
    assert found(root).problems == ()


def test_a_photograph_with_a_label_is_none_whatever_its_name(root: Path) -> None:
    Image.effect_noise((WIDTH, HEIGHT), 9).save(root / "images/train/train000_mask.jpg")
    assert "called as labels of other images" in "".join(found(root).problems)
    Image.new("L", (WIDTH, HEIGHT)).save(root / "labels/train/train000_mask.png")
    assert found(root).problems == ()


# ---- labels in other folders


@pytest.mark.parametrize(
    "place", ["labels", "labels/train_fine", "labels/Train", "Labels/train", "masks", "masks/train"]
)
@pytest.mark.parametrize("name", ["{}.png", "{}_mask.png", "{}.gif"])
def test_labels_in_folders_that_are_not_read_are_named(root: Path, place: str, name: str) -> None:
    (root / place).mkdir(parents=True, exist_ok=True)
    for path in sorted((root / "labels/train").iterdir())[:6]:
        path.rename(root / place / name.format(path.stem))
    (problem,) = found(root).problems
    assert problem.startswith(f"6 labels in {root}/{place} not read, but called as images of the split 'train' without")
    assert f"{name.format('train004')} and 1 more; move them to {root}/labels/train/<name of the image>.png" in problem


@pytest.mark.parametrize("place", ["SegmentationClass", "Annotations", "ground_truth/val"])
def test_folders_for_labels_of_other_data_sets(root: Path, place: str) -> None:
    (root / place).mkdir(parents=True)
    (root / "labels/val/val001.png").rename(root / place / "val001.png")
    problems = found(root).problems
    assert len(problems) == 2 and "val001.png is missing" in problems[0]
    assert f"1 label in {root}/{place} not read, but called as images of the split 'val'" in problems[1]


@pytest.mark.parametrize("place", ["labels", "labels/fine", "masks", "masks/train", "Annotations/all"])
def test_further_copies_of_labels_are_passed_over(root: Path, place: str) -> None:
    (root / place).mkdir(parents=True, exist_ok=True)
    for path in sorted((root / "labels/train").iterdir()):
        shutil.copy(path, root / place)
    assert (found(root).problems, found(root).notes) == ((), ())


@pytest.mark.parametrize(
    ("place", "name"), [("labels", "legend"), ("masks/val", "train000"), ("labels/extra", "train000")]
)
def test_pictures_for_labels_of_other_images_are_passed_over(root: Path, place: str, name: str) -> None:
    """Names of one split may be those of another: images/extra has labels of its own."""
    (root / "images/extra").mkdir()
    (root / "labels/train/train000.png").unlink()
    (root / place).mkdir(parents=True, exist_ok=True)
    Image.new("L", (WIDTH, HEIGHT)).save(root / place / f"{name}.png")
    assert (found(root).problems, found(root).notes) == ((), ())


# ---- labels that are no pictures


@pytest.mark.parametrize("ending", [".json", ".txt", ".mat", ".npz", ".npy", ".XML", ".jpg.json", "_polygons.json"])
def test_labels_that_are_no_pictures_are_to_be_converted(root: Path, ending: str) -> None:
    for path in sorted((root / "labels/train").iterdir())[:6]:
        path.unlink()
        path.with_name(path.stem + ending).write_bytes(b"\x93NUMPY" if ending == ".npy" else b"{}")
    (problem,) = found(root).problems
    assert problem.startswith(
        f"6 files in {root}/labels/train, called as images without a label, are no pictures: train"
    )
    assert f"train004{ending} and 1 more; convert them to PNG, {root}/labels/train/<name of the image>.png" in problem


@pytest.mark.parametrize("name", ["notes.txt", "list.csv", "train000.md", "train001.json", "labels.json"])
def test_texts_that_are_no_labels_are_passed_over(root: Path, name: str) -> None:
    (root / "labels/train/train000.png").unlink()
    (root / "labels/train" / name).write_text("x", encoding="utf-8")
    assert (found(root).problems, found(root).notes) == ((), ())


# ---- links, and images of no split


def test_images_behind_linked_folders_are_named_and_no_link_leads_round(root: Path) -> None:
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir()
    (root / "images/train/train000.jpg").rename(elsewhere / "x.jpg")
    (root / "labels/train/train000.png").unlink()
    (root / "images/train/more").symlink_to(elsewhere)
    (elsewhere / "again").symlink_to(elsewhere)
    (root / "images/train/up").symlink_to("..")
    (problem,) = found(root).problems
    assert "1 image in" in problem and f"{SUBFOLDER}: more/x.jpg; move them up" in problem


def test_labels_behind_linked_folders_are_named(root: Path) -> None:
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir()
    (root / "labels/train/train000.png").rename(elsewhere / "train000.png")
    (root / "labels/train/more").symlink_to(elsewhere)
    (problem,) = found(root).problems
    assert "1 label in" in problem and f"{SUBFOLDER}: more/train000.png" in problem


def test_a_split_may_be_a_link(root: Path) -> None:
    (root / "images/train").rename(root.parent / "photographs")
    (root / "images/train").symlink_to(root.parent / "photographs")
    assert (found(root).problems, found(root).notes) == ((), ())


def test_images_directly_in_images_are_a_note(root: Path) -> None:
    for number in range(7):
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / f"images/{number}.jpg")
    (root / "images/notes.txt").write_text("x", encoding="utf-8")
    report = found(root)
    assert report.problems == ()
    assert report.notes == (
        "images itself is the folder of no split, and not read: 7 images, 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg and 2 more",
    )


# ---- numbers


def test_zeros_before_a_number_are_the_reason(root: Path) -> None:
    rename(root, lambda name: f"train{int(name[5:8])}.png", 5)
    (problem,) = found(root).problems
    assert problem.startswith(f"5 labels in {root}/labels/train without an image, as their names differ from those of ")
    assert "in the zeros before a number: train0.png" in problem


def test_numbers_that_differ_are_no_zeros(root: Path) -> None:
    rename(root, lambda name: name.replace("000", "0100"), 1)
    (problem,) = found(root).problems
    assert "as no image has their name: train0100.png" in problem
