"""Verification: every kind of bad file is named, with all others; what is known is not read again."""

import os
import re
import resource
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from small import CLASSES, HEIGHT, REPOSITORY, SPLITS, WIDTH, png, small_settings, write_folder

from rrn.config import Settings
from rrn.data import decoding
from rrn.data.decoding import DataError
from rrn.data.formats.cityscapes import Cityscapes
from rrn.data.formats.voc import VOC, color
from rrn.data.image_set import ImageSet
from rrn.preparation import verification
from rrn.preparation.verification import Report

Change = Callable[[Path], object]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data")


@pytest.fixture
def settings(root: Path) -> Settings:
    return small_settings(root)


@pytest.fixture
def dataset(root: Path, settings: Settings) -> ImageSet:
    return ImageSet.open(settings, root.parent)


def verified(dataset: ImageSet) -> Report:
    return verification.verify(dataset, workers=1)


def save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3))


def write_voc(root: Path, train: str, val: str) -> ImageSet:
    """Write four images a, b, c d, é of VOC, and its two lists."""
    for number, name in enumerate(("a", "b", "c d", "é")):
        save(noise(number, 8, 9), root / f"JPEGImages/{name}.jpg")
        save(np.arange(72).reshape(8, 9) % 21, root / f"SegmentationClass/{name}.png")
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_bytes(train.encode())
    (lists / "val.txt").write_bytes(val.encode())
    data = small_settings(root, dataset={"kind": "voc", "void": None}).dataset
    return ImageSet(root, VOC.open(data, root, ""), None, "train", "val", "val")


def test_a_good_set(dataset: ImageSet) -> None:
    report = verified(dataset)
    report.require()
    assert report.problems == ()
    assert {split: len(ids) for split, ids in report.ids.items()} == SPLITS
    labels = np.stack([dataset.label("train", name) for name in report.ids["train"]])
    expected = [[np.sum(label == value) for value in (0, 1, 2, 255)] for label in labels]
    np.testing.assert_array_equal(report.pixels["train"], expected)
    some = list(report.ids["train"][3:5])
    np.testing.assert_allclose(report.shares("train", some), np.sum(expected[3:5], axis=0) / labels[3:5].size)
    assert "train      16      16" in report.summary() and "void" in report.summary()
    with pytest.raises(DataError, match="the split 'val' has no image other"):
        report.shares("val", ["other"])
    assert np.isnan(report.shares("val", [])).all()


def test_images_without_labels(dataset: ImageSet) -> None:
    dataset.label_path("train", "train003").unlink()
    report = verified(dataset)
    assert not report.problems and not report.pixels["train"][3].any()
    assert np.isnan(report.shares("train", ["train003"])).all()


def cut(share: float) -> Change:
    return lambda path: path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def rotate(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def gray(bits: int) -> Change:
    return lambda path: path.write_bytes(png(bits, 0, WIDTH, HEIGHT))


def claim(width: int, height: int) -> Change:
    """Return a change of a header: it says another size, and the pixels stay."""

    def change(path: Path) -> None:
        contents = path.read_bytes()
        if contents.startswith(b"\x89PNG"):
            header = b"IHDR" + struct.pack(">II", width, height) + contents[24:29]
            contents = contents[:12] + header + struct.pack(">I", zlib.crc32(header)) + contents[33:]
        else:
            place = contents.index(b"\xff\xc0") + 5  # the frame of a JPEG: marker, length, bits
            contents = contents[:place] + struct.pack(">HH", height, width) + contents[place + 4 :]
        path.write_bytes(contents)

    return change


def bomb(width: int, height: int) -> Change:
    """Return a change to a PNG that holds one row and claims many."""

    def change(path: Path) -> None:
        path.write_bytes(png(8, 2, 16, 1))
        claim(width, height)(path)

    return change


def enlarge(path: Path) -> None:
    os.truncate(path, decoding.MOST_BYTES + 1)


def saved(kind: str, **options: object) -> Change:
    """Return a change to a picture of another format under the same name."""
    return lambda path: Image.new("RGB", (WIDTH, HEIGHT)).save(path, kind, **options)


def long_text(path: Path) -> None:
    text = PngInfo()
    text.add_text("a", "b" * (1 << 21), zip=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(path, "PNG", pnginfo=text)


TOO_LARGE = "claims to have more than 89478485 pixels, which is not even tried; replace it, or cut it into smaller"
FRAMES = {"save_all": True, "append_images": [Image.new("RGB", (WIDTH, HEIGHT), "red")]}
BOMBS: dict[str, tuple[Change, str]] = {
    "a JPEG of 60000 x 60000": (claim(60000, 60000), TOO_LARGE),
    "a PNG of 60000 x 60000": (bomb(60000, 60000), TOO_LARGE),
    "a PNG that PIL only warns of": (bomb(9500, 9500), TOO_LARGE),
    "a long text in a PNG": (long_text, r"cannot be read \(Decompressed data too large"),
}
HOSTILE: dict[str, tuple[Change, str]] = {
    **BOMBS,
    "animation": (saved("PNG", **FRAMES), "is an animation; save the picture that is meant as an image of its own"),
    "animated GIF": (saved("GIF", **FRAMES), "is a GIF; save it as .*8.bit.*, or remove it"),
    "a program for a printer": (saved("EPS"), "is a PostScript drawing; save it as"),
}
BAD_IMAGES: dict[str, tuple[Change, str]] = {
    "cmyk": (lambda path: Image.open(path).convert("CMYK").save(path), "has pixels of mode CMYK; save it as 8-bit RGB"),
    **HOSTILE,
    "more bytes than any image": (enlarge, "has 1073741825 bytes, more than any image; replace it"),
    **{
        name: (
            lambda path, kind=kind: path.write_bytes(png(16, kind, WIDTH, HEIGHT)),
            "has 16 bits per channel; save it",
        )
        for name, kind in {"deep colors": 2, "deep gray with alpha": 4, "deep with alpha": 6}.items()
    },
    "deep gray": (gray(16), "has pixels of mode I;16; save it as 8-bit RGB or gray"),
    "rotated": (rotate, r"is stored rotated \(EXIF orientation 6\)"),
    "empty": (lambda path: path.write_bytes(b""), r"cannot be read \(it has 0 bytes\): replace it"),
    "web page": (lambda path: path.write_text("<html>"), "is a web page and no image; replace it or remove it"),
    "text": (lambda path: path.write_text("a text"), r"cannot be read \(it is no image\)"),
    "half": (cut(0.5), "truncated.*incomplete"),
    "nearly whole": (cut(0.95), "truncated.*incomplete"),
    "loop": (loop, "is a symbolic link that leads back to itself"),
    "dangling": (dangle, "is missing: it is a link to nowhere, which does not exist"),
    "pipe": (pipe, r"(it is no file)|(is missing)"),
}
BAD_LABELS: dict[str, tuple[Change, str]] = {
    "rgb": (lambda path: save(noise(0, HEIGHT, WIDTH), path), "has pixels of mode RGB, .*palette PNG"),
    "size": (lambda path: save(np.zeros((5, 7)), path), f"is 7 x 5 pixels, but its image .* is {WIDTH} x {HEIGHT}"),
    "deep": (lambda path: Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint16)).save(path), "of mode I;16"),
    "two bits": (gray(2), "is a gray PNG of 2 bits, in which 1 is read as 85: write its class indices into .*8 bits"),
    "four bits": (gray(4), "is a gray PNG of 4 bits, in which 1 is read as 17: write its class indices into .*8 bits"),
    "value": (lambda path: save(np.full((HEIGHT, WIDTH), 7), path), "has the value 7, but the classes are 0 to 2"),
    "loop": (loop, "is a symbolic link that leads back to itself"),
    "half": (cut(0.5), "incomplete"),
    "missing": (lambda path: path.unlink(), "is missing"),
}


@pytest.mark.parametrize(("change", "message"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_a_bad_image_is_named_with_all_others(dataset: ImageSet, change: Change, message: str) -> None:
    check(dataset, "image", "val001.jpg", change, message)


@pytest.mark.parametrize(("change", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_a_bad_label_is_named_with_all_others(dataset: ImageSet, change: Change, message: str) -> None:
    check(dataset, "label", "val001.png", change, message)


def check(dataset: ImageSet, kind: str, name: str, change: Change, message: str) -> None:
    """Spoil a file of val; expect one line about it, and one about another bad file."""
    change(getattr(dataset, f"{kind}_path")("val", "val001"))
    dataset.image_path("test", "test000").write_bytes(b"")
    first, second = verified(dataset).problems
    assert name in first and str(dataset.layout.root) in first and "\n" not in first
    assert re.search(message, first), first
    assert "test000.jpg" in second
    with pytest.raises(DataError, match=r"2 problems in the data:\n  .*\n  .*test000"):
        verified(dataset).require()


@pytest.mark.parametrize("kind", ["image", "label"])
@pytest.mark.parametrize(("change", "message"), HOSTILE.values(), ids=HOSTILE)
def test_what_is_refused_before_training_is_refused_when_it_is_read(
    dataset: ImageSet, kind: str, change: Change, message: str
) -> None:
    if kind == "label" and message == TOO_LARGE:
        change = bomb(60000, 60000)
    path = getattr(dataset, f"{kind}_path")("val", "val001")
    change(path)
    with pytest.raises(DataError, match=f"{re.escape(f'{kind} {path}')} {message}"):
        dataset.pair("val", "val001")
    with pytest.raises(DataError, match=f"{re.escape(f'{kind} {path}')} {message}"):
        verified(dataset).require()


@pytest.mark.parametrize(("change", "message"), BOMBS.values(), ids=BOMBS)
def test_a_bomb_takes_no_memory(dataset: ImageSet, change: Change, message: str) -> None:
    verified(dataset)
    change(dataset.image_path("val", "val001"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert re.search(message, verified(dataset).problems[0])
    for read in (dataset.image, dataset.shape):
        with pytest.raises(DataError, match=message):
            read("val", "val001")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB; one of these pictures has 270,000


def test_gray_images_are_fine(dataset: ImageSet) -> None:
    path = dataset.image_path("val", "val001")
    Image.open(path).convert("L").save(path)
    assert not verified(dataset).problems


def test_no_permission(dataset: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faked, as permissions do not bind a superuser."""
    refused, opened = dataset.image_path("val", "val001"), Path.open

    def refuse(path: Path, *arguments: str) -> object:
        if path == refused:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments)

    monkeypatch.setattr(Path, "open", refuse)
    (problem,) = verified(dataset).problems
    assert problem == f"image {refused} may not be read: no permission; allow it (`chmod a+rX`)"
    monkeypatch.undo()
    assert not verified(dataset).problems


def test_a_missing_folder_of_labels_is_one_problem(dataset: ImageSet) -> None:
    dataset.label_path("val", "x").parent.rename(dataset.layout.root / "elsewhere")
    (problem,) = verified(dataset).problems
    assert problem.startswith(f"there is no folder {dataset.layout.root}/labels/val, but listed files")


def test_a_missing_folder_of_images(dataset: ImageSet) -> None:
    dataset.image_path("val", "val000").parent.rename(dataset.layout.root / "elsewhere")
    report = verified(dataset)
    assert report.ids["val"] == () and report.pixels["val"].shape == (0, 4)
    assert "the split 'val' is empty" in report.problems[0]
    assert report.summary()


def test_a_missing_folder_of_unlabeled_images(root: Path) -> None:
    dataset = ImageSet.open(small_settings(root, dataset={"unlabeled": "more"}), root.parent)
    (problem,) = verified(dataset).problems
    assert problem.startswith(f"dataset.unlabeled: there is no folder {root}/images/more")


def test_binary_labels_whose_foreground_is_void(dataset: ImageSet) -> None:
    for path in (dataset.layout.root / "labels").rglob("*.png"):
        save(255 * (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 3 > 1), path)
    (problem,) = verified(dataset).problems
    assert "train000.png and all other labels hold nothing but 0 ('ground') and void (255)" in problem
    assert "'disc' would never be learned; if void marks the foreground, write 1 for it ('disc')" in problem
    save(np.ones((HEIGHT, WIDTH)), dataset.label_path("test", "test000"))
    assert not verified(dataset).problems


def test_the_same_image_in_two_splits(dataset: ImageSet) -> None:
    for name in ("other", "another"):
        for kind in ("image", "label"):
            source = getattr(dataset, f"{kind}_path")
            (source("val", "val000").parent / f"{name}{source('val', 'val000').suffix}").write_bytes(
                source("train", "train003").read_bytes()
            )
    problems = verified(dataset).problems
    assert len(problems) == 2
    assert "val/another.jpg of the split 'val' is the same image as " in problems[0]
    assert "train/train003.jpg of the split 'train'" in problems[0]
    assert "val/other.jpg" in problems[1]


def test_lists_may_have_paths_spaces_and_ends_of_windows(tmp_path: Path) -> None:
    train = "a\r\nJPEGImages/b.jpg SegmentationClass/b.png\r\n"
    report = verified(write_voc(tmp_path, train, "c d\né\n"))
    assert not report.problems
    assert report.ids == {"train": ("a", "b"), "val": ("c d", "é")}


def test_an_id_twice_and_an_id_of_val_in_train(tmp_path: Path) -> None:
    dataset = write_voc(tmp_path, "a\nb\na\n", "c d\na\n")
    cut(0.5)(tmp_path / "JPEGImages/b.jpg")
    report = verified(dataset)
    twice, broken, shared = report.problems
    assert "train.txt lists 1 ids twice: a; remove the second" in twice
    assert "b.jpg cannot be read" in broken
    assert "JPEGImages/a.jpg is in the splits 'train' and 'val': what is learned from must not be scored on" in shared
    assert report.ids["train"] == ("a", "b")


def test_copies_in_a_public_data_set_are_its_authors_affair_but_lists_must_not_share_ids(tmp_path: Path) -> None:
    dataset = write_voc(tmp_path, "a\nb\n", "c d\n")
    (tmp_path / "JPEGImages/c d.jpg").write_bytes((tmp_path / "JPEGImages/a.jpg").read_bytes())
    assert not verified(dataset).problems
    (tmp_path / "JPEGImages/b.jpg").write_bytes((tmp_path / "JPEGImages/a.jpg").read_bytes())
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("b\n")
    (problem,) = verified(dataset).problems
    assert "b.jpg is in the splits 'train' and 'val'" in problem


def test_an_empty_and_a_missing_list(tmp_path: Path) -> None:
    dataset = write_voc(tmp_path, "", "a\n")
    assert [problem.endswith("train.txt is empty") for problem in verified(dataset).problems] == [True]
    (tmp_path / "ImageSets/Segmentation/train.txt").unlink()
    assert "train.txt is missing" in verified(dataset).problems[0]


def test_a_label_in_the_colors_of_its_set(tmp_path: Path) -> None:
    dataset = write_voc(tmp_path, "a\n", "b\n")
    drawn = np.tile(np.array([color(0), color(15), (224, 224, 192)]), (8, 3, 1))
    save(drawn, tmp_path / "SegmentationClass/b.png")
    (problem,) = verified(dataset).problems
    assert "b.png is drawn in the RGB colors of the classes" in problem and "class index" in problem


@pytest.mark.parametrize(("kind", "value"), [("labelTrainIds", 19), ("labelIds", 34)])
def test_values_of_cityscapes(tmp_path: Path, kind: str, value: int) -> None:
    for number, split in enumerate(("train", "val")):
        save(noise(number, 6, 8), tmp_path / f"leftImg8bit/{split}/ulm/ulm_0_0_leftImg8bit.png")
        save(np.arange(48).reshape(6, 8) % 19, tmp_path / f"gtFine/{split}/ulm/ulm_0_0_gtFine_{kind}.png")
    data = small_settings(tmp_path).dataset
    dataset = ImageSet(tmp_path, Cityscapes.open(data, tmp_path, ""), None, "train", "val", "val")
    assert not verified(dataset).problems
    save(np.full((6, 8), value), dataset.label_path("val", "ulm_0_0"))
    (problem,) = verified(dataset).problems
    assert f"ulm_0_0_gtFine_{kind}.png has the value {value}, but the classes are" in problem


def test_the_checksum_changes_with_what_is_read_and_with_nothing_else(root: Path, dataset: ImageSet) -> None:
    before = verified(dataset).checksum
    (root / "labels/train/unread.txt").write_text("nothing")
    os.utime(root / "labels/train/train000.png")
    assert len(before) == 16 and verified(dataset).checksum == before
    label = root / "labels/train/train000.png"
    save(np.zeros((HEIGHT, WIDTH)), label)
    seen = {before, verified(dataset).checksum}
    label.unlink()
    others = (replace(dataset, size=(10, 14)), replace(dataset, test="val"), dataset)
    seen |= {verified(other).checksum for other in others}
    (root / "classes.txt").write_text("\n".join((*CLASSES, "more")))
    seen.add(verified(ImageSet.open(small_settings(root), root.parent)).checksum)
    assert len(seen) == 6


def test_other_processes_find_the_same(dataset: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    cut(0.5)(dataset.image_path("val", "val001"))
    alone = verified(dataset)
    monkeypatch.setattr(verification, "FEW", 0)
    monkeypatch.setattr(verification, "CHUNK", 5)
    together = verification.verify(dataset, workers=2)
    assert (together.problems, together.checksum) == (alone.problems, alone.checksum)
    for split, pixels in alone.pixels.items():
        np.testing.assert_array_equal(together.pixels[split], pixels)


def test_prints_summary_notes_and_problems(root: Path, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert verification.print_verification(settings, root.parent) == 0
    printed = capsys.readouterr().out
    assert "no problems" in printed and "note" not in printed
    (root / "classes.txt").write_text("\n".join((*CLASSES, "rare")))
    assert verification.print_verification(settings, root.parent) == 0
    assert "note: no label shows 'rare'" in capsys.readouterr().out
    cut(0.5)(root / "images/val/val001.jpg")
    cut(0.5)(root / "labels/test/test001.png")
    assert verification.print_verification(settings, root.parent) == 1
    printed = capsys.readouterr().out
    assert "2 problems" in printed and "val001.jpg" in printed and "test001.png" in printed
    with pytest.raises(DataError, match=r"dataset.path: there is no folder"):
        verification.print_verification(small_settings(Path("nowhere")), REPOSITORY)


# ---- what is kept


def test_what_was_found_is_read_as_it_was_written(dataset: ImageSet, settings: Settings, tmp_path: Path) -> None:
    undecodable = dataset.image_path("val", "val000").with_name(os.fsdecode(b"\xff.jpg"))
    dataset.image_path("val", "val000").rename(undecodable)
    found = verified(dataset)
    found.write(tmp_path / "kept", settings.dataset)
    read = Report.read(tmp_path / "kept", settings.dataset)
    assert read.problems and undecodable.stem in read.ids["val"]
    for name, value in vars(found).items():
        if name != "pixels":
            assert getattr(read, name) == value
    for split, pixels in found.pixels.items():
        np.testing.assert_array_equal(read.pixels[split], pixels)
        assert read.pixels[split].dtype == np.int64
    assert read.summary() == found.summary()


def test_an_empty_split_is_kept(dataset: ImageSet, settings: Settings, tmp_path: Path) -> None:
    dataset.image_path("val", "val000").parent.rename(dataset.layout.root / "elsewhere")
    verified(dataset).write(tmp_path, settings.dataset)
    assert Report.read(tmp_path, settings.dataset).pixels["val"].shape == (0, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "report.json is missing: the data set has not been verified; run `python -m rrn.repro verify`"),
        ("", r"report.json cannot be read \(.*\); run `python -m rrn.repro verify`"),
        ('{"dataset": {}}', r"report.json cannot be read \('classes'\); run `python"),
        ('{"dataset": {}, "classes": 3}', "report.json cannot be read .*; run `python"),
    ],
)
def test_what_cannot_be_read_says_which_command_makes_it(
    settings: Settings, tmp_path: Path, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    with pytest.raises(DataError, match=message):
        Report.read(tmp_path, settings.dataset)


@pytest.mark.parametrize("change", [{"path": "other"}, {"size": (10, 14)}, {"test": "val"}, {"void": None}])
def test_what_was_found_in_another_data_set_is_refused(
    dataset: ImageSet, settings: Settings, tmp_path: Path, change: dict[str, object]
) -> None:
    verified(dataset).write(tmp_path, settings.dataset)
    (key,) = change
    with pytest.raises(DataError, match=rf"report.json is of dataset.{key}: .*, and not of .*; run `python -m rrn.rep"):
        Report.read(tmp_path, settings.dataset.model_copy(update=change))


# ---- many files with one problem


def test_many_files_with_one_problem_share_a_line_that_counts_them(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", {"train": 30, "val": 2, "test": 2})
    dataset = ImageSet.open(small_settings(root), tmp_path)
    assert not verified(dataset).problems
    for number in range(30):
        Image.new("L", (WIDTH, HEIGHT), number % 3 + 7).save(dataset.label_path("train", f"train{number:03d}"))
    cut(0.5)(dataset.image_path("val", "val001"))
    shared, alone = sorted(verified(dataset).problems, key=len, reverse=True)
    assert "labels/train/train000.png has the value 7, but the classes are 0 to 2" in shared
    assert shared.endswith("the same of 29 others, such as train001.png, train002.png, train003.png: 30 files")
    assert "val001.jpg" in alone


def test_many_images_in_two_splits_share_a_line(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", {"train": 30, "val": 2, "test": 2})
    for path in (root / "images/train").iterdir():
        (root / "images/test" / f"copy of {path.name}").write_bytes(path.read_bytes())
        save(SHOWS_ALL, root / f"labels/test/copy of {path.stem}.png")
    (problem,) = verified(ImageSet.open(small_settings(root), tmp_path)).problems
    assert "is the same image as" in problem and problem.endswith("30 files")


def test_few_files_with_one_problem_have_a_line_each(dataset: ImageSet) -> None:
    for name in dataset.ids("train")[:5]:
        cut(0.5)(dataset.image_path("train", name))
    assert len(verified(dataset).problems) == 5


@pytest.mark.parametrize("count", [6, 11])
def test_more_than_five_files_with_one_problem_share_a_line(dataset: ImageSet, count: int) -> None:
    for name in dataset.ids("train")[:count]:
        Image.new("L", (WIDTH, HEIGHT), 1).save(dataset.label_path("train", name), format="JPEG")
    (problem,) = verified(dataset).problems
    assert "train000.png is a JPEG, which does not keep values: export" in problem
    assert problem.endswith(f"such as train001.png, train002.png, train003.png: {count} files")


# ---- classes


def test_a_class_that_no_label_shows_is_a_note(dataset: ImageSet) -> None:
    assert not verified(dataset).notes
    for path in (dataset.layout.root / "labels/train").iterdir():
        save(np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 2, path)
    report = verified(dataset)
    assert (report.problems, report.notes) == ((), ("no label of 'train' shows 'square'",))


@pytest.mark.parametrize("with_void", [True, False])
def test_one_class_in_all_labels_is_a_problem(dataset: ImageSet, with_void: bool) -> None:
    for path in (dataset.layout.root / "labels").rglob("*.png"):
        save(np.pad(np.full((HEIGHT - 1, WIDTH), 2), ((0, 1), (0, 0)), constant_values=255 if with_void else 2), path)
    (problem,) = verified(dataset).problems
    assert "train000.png and all other labels hold nothing but 2 ('square')" in problem
    assert ("'ground' would never be learned" in problem) == with_void
    save(np.zeros((HEIGHT, WIDTH)), dataset.label_path("test", "test000"))
    assert not verified(dataset).problems


def test_one_class_is_named_by_its_value_where_a_line_is_void(root: Path) -> None:
    (root / "classes.txt").write_text("-\nwall\nsky\n")
    dataset = ImageSet.open(small_settings(root), root.parent)
    for path in (root / "labels").rglob("*.png"):
        save(np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 2, path)
    (problem,) = verified(dataset).problems
    assert "nothing but 1 ('wall') and void (0, 255)" in problem and "write 2 for it ('sky')" in problem


def test_no_label_at_all_is_a_problem(dataset: ImageSet) -> None:
    labels = sorted((dataset.layout.root / "labels/train").iterdir())
    for path in labels[1:]:
        path.unlink()
    assert not verified(dataset).problems
    labels[0].unlink()
    (problem,) = verified(dataset).problems
    assert problem.startswith(f"none of the 16 images of 'train' has a label, such as {labels[0]}")


# ---- palettes

PALETTE = [0, 0, 0, 200, 0, 0, 0, 200, 0]
EXCHANGED = [0, 0, 0, 0, 200, 0, 200, 0, 0]
SHOWS_ALL = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 3


def paint(path: Path, palette: list[int], values: np.ndarray = SHOWS_ALL) -> None:
    label = Image.fromarray(values.astype(np.uint8), mode="P")
    label.putpalette(palette)
    label.save(path)


@pytest.fixture
def painted(dataset: ImageSet) -> ImageSet:
    for path in (dataset.layout.root / "labels").rglob("*.png"):
        paint(path, PALETTE)
    assert not verified(dataset).problems
    return dataset


def test_a_palette_that_disagrees_in_a_used_value_is_named_with_both_colors(painted: ImageSet) -> None:
    for name in ("train003", "train007"):
        paint(painted.label_path("train", name), EXCHANGED)
    first, second = verified(painted).problems
    assert first.startswith(
        f"{painted.label_path('train', 'train003')} draws the value 1 in (0, 200, 0), and 21 other labels in "
        "(200, 0, 0); 2 in (200, 0, 0), and 21 other labels in (0, 200, 0): the palettes disagree"
    )
    assert "train007.png" in second


def test_only_palettes_that_disagree_alike_share_a_line(painted: ImageSet) -> None:
    names = painted.ids("train")
    for shade, name in enumerate(names[:6], 1):
        paint(painted.label_path("train", name), [shade, 0, 0, *PALETTE[3:]])
    assert len(verified(painted).problems) == 6
    for name in names[:6]:
        paint(painted.label_path("train", name), EXCHANGED)
    (problem,) = verified(painted).problems
    assert "draws the value 1 in (0, 200, 0)" in problem and problem.endswith(": 6 files")


@pytest.mark.parametrize("split", ["val", "test"])
def test_palettes_are_compared_across_splits(painted: ImageSet, split: str) -> None:
    for name in painted.ids(split):
        paint(painted.label_path(split, name), [9, 9, 9, *PALETTE[3:]])
    problems = verified(painted).problems
    assert len(problems) == SPLITS[split] and all("value 0 in (9, 9, 9)" in problem for problem in problems)


TWINS: dict[str, Change] = {
    "an entry that is not used": lambda path: paint(path, EXCHANGED, np.zeros((HEIGHT, WIDTH))),
    "a longer palette": lambda path: paint(path, PALETTE + [7] * 30),
    "no palette": lambda path: save(SHOWS_ALL, path),
    "a palette that counts up in gray": lambda path: paint(path, [v for value in range(256) for v in (value,) * 3]),
}


@pytest.mark.parametrize("change", TWINS.values(), ids=TWINS)
def test_palettes_that_agree_in_what_is_used_are_fine(painted: ImageSet, change: Change) -> None:
    change(painted.label_path("train", "train003"))
    assert not verified(painted).problems


@pytest.mark.parametrize("void", [(255,), (2, 255)])
def test_colors_of_void_may_differ(painted: ImageSet, void: tuple[int, ...]) -> None:
    """Programs draw void in black, white or cream."""
    root = painted.layout.root
    (root / "classes.txt").write_text("ground\ndisc\n-\n" if 2 in void else "ground\ndisc\nsquare\n", encoding="utf-8")
    for number, name in enumerate(("train003", "train007")):
        values = np.where(SHOWS_ALL == 2, void[0], SHOWS_ALL)
        paint(painted.label_path("train", name), [*PALETTE[:6], *[number + 9] * 750], values)
    assert verified(ImageSet.open(small_settings(root, dataset={"void": void}), root)).problems == ()
    paint(painted.label_path("train", "train003"), [0, 0, 0, 7, 7, 7, *PALETTE[6:]])
    (problem,) = verified(ImageSet.open(small_settings(root, dataset={"void": void}), root)).problems
    assert "draws the value 1 in (7, 7, 7), and" in problem and "value 2" not in problem


def test_public_sets_have_palettes_of_their_own(tmp_path: Path) -> None:
    dataset = write_voc(tmp_path, "a\nb\n", "c d\n")
    for name, palette in (("a", PALETTE), ("b", EXCHANGED)):
        paint(tmp_path / f"SegmentationClass/{name}.png", palette, SHOWS_ALL[:8, :9])
    assert not verified(dataset).problems


# ---- real data


@pytest.mark.parametrize(
    ("variable", "data"),
    [
        ("RRN_CAMVID", {"void": (11,), "test": "val"}),
        ("RRN_IDD_LITE", {"unlabeled": "extra", "test": "val"}),
        ("RRN_VOC_ANIMALS", {}),
        ("RRN_VOC_SAMPLE", {"kind": "voc", "void": None, "train": "train_aug", "test": "val"}),
    ],
)
def test_real_data_have_no_problems(variable: str, data: dict[str, object]) -> None:
    if variable not in os.environ:
        pytest.skip(f"{variable} names no folder of the real data")
    root = Path(os.environ[variable]).resolve()
    dataset = ImageSet.open(small_settings(root, dataset=data), root)
    report = verification.verify(dataset)
    assert report.problems == () and len(report.ids[dataset.train]) > 30
