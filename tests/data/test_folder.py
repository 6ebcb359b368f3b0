"""Data sets in a folder: what is read, and what bad files get."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from small import CLASSES, HEIGHT, SPLITS, WIDTH, png, small_settings, write_folder

from rrn.config import IGNORE_INDEX
from rrn.data import decoding
from rrn.data.decoding import DataError
from rrn.data.formats import class_list
from rrn.data.image_set import ImageSet
from rrn.paper import comparisons
from rrn.reliability import measures


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data")


@pytest.fixture
def dataset(root: Path) -> ImageSet:
    return ImageSet.open(small_settings(root), root.parent)


def test_reads_images_and_labels(dataset: ImageSet) -> None:
    assert dataset.classes == CLASSES
    assert dataset.ids("train") == [f"train{i:03d}" for i in range(SPLITS["train"])]
    image, label = dataset.pair("train", "train000")
    assert (image.shape, image.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    assert (label.shape, label.dtype) == ((HEIGHT, WIDTH), np.uint8)
    assert set(np.unique(label)) == {0, 1, 2, IGNORE_INDEX}
    np.testing.assert_array_equal(image, dataset.image("train", "train000"))
    np.testing.assert_array_equal(label, dataset.label("train", "train000"))
    assert dataset.shape("train", "train000") == (HEIGHT, WIDTH)


def test_relative_path_counts_from_the_repository(root: Path) -> None:
    assert ImageSet.open(small_settings(Path("data")), root.parent).layout.root == root.resolve()


def test_resizes(root: Path) -> None:
    size = (10, 14)
    dataset = ImageSet.open(small_settings(root, dataset={"size": size}), root.parent)
    image, label = dataset.pair("val", "val000")
    assert image.shape == (*size, 3)
    assert label.shape == dataset.shape("val", "val000") == size
    assert set(np.unique(label)) <= {0, 1, 2, IGNORE_INDEX}


def test_void_values_of_the_settings(root: Path) -> None:
    path = root / "labels/val/val000.png"
    Image.fromarray(np.full((HEIGHT, WIDTH), 11, np.uint8)).save(path)
    dataset = ImageSet.open(small_settings(root, dataset={"void": (11, 255)}), root.parent)
    assert np.all(dataset.label("val", "val000") == IGNORE_INDEX)
    with pytest.raises(DataError, match=r"dataset.void: 2 is also the class 'square' of .*classes"):
        ImageSet.open(small_settings(root, dataset={"void": (2,)}), root.parent)


def test_palette_label_is_read_as_indices(dataset: ImageSet) -> None:
    palette = Image.new("P", (WIDTH, HEIGHT), 2)
    palette.putpalette([200, 100, 50] * 256)
    palette.save(dataset.label_path("val", "val000"))
    assert np.all(dataset.label("val", "val000") == 2)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_other_image_modes_become_rgb(dataset: ImageSet, mode: str) -> None:
    path = dataset.image_path("val", "val000")
    image = Image.open(path).convert(mode)
    path.unlink()
    image.save(path.with_suffix(".png"))
    assert dataset.image("val", "val000").shape == (HEIGHT, WIDTH, 3)


def test_cmyk_is_refused(dataset: ImageSet) -> None:
    path = dataset.image_path("val", "val000")
    Image.open(path).convert("CMYK").save(path)
    with pytest.raises(DataError, match=r"val000.jpg has pixels of mode CMYK; save it as 8-bit RGB or gray"):
        dataset.image("val", "val000")


@pytest.mark.parametrize("kind", [2, 4, 6], ids=["rgb", "gray with alpha", "rgb with alpha"])
def test_16_bits_are_refused(dataset: ImageSet, kind: int) -> None:
    path = dataset.image_path("val", "val000")
    path.unlink()
    path = path.with_suffix(".png")
    path.write_bytes(png(16, kind, WIDTH, HEIGHT))
    for read in (dataset.image, dataset.pair, dataset.shape):
        with pytest.raises(DataError, match=r"val000.png has 16 bits per channel; save it as 8-bit RGB or gray"):
            read("val", "val000")
    with pytest.raises(DataError, match=r"val000.png has 16 bits per channel"):
        decoding.open_image(path, "apply")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_gray_image_of_few_bits_is_an_image(dataset: ImageSet, bits: int) -> None:
    path = dataset.image_path("val", "val000")
    path.unlink()
    path.with_suffix(".png").write_bytes(png(bits, 0, WIDTH, HEIGHT, b"\xff" * ((WIDTH * bits + 7) // 8)))
    assert (dataset.image("val", "val000") == 255).all()


@pytest.mark.parametrize(("bits", "first"), [(2, 85), (4, 17)])
def test_a_gray_label_of_2_or_4_bits_is_refused(dataset: ImageSet, bits: int, first: int) -> None:
    dataset.label_path("val", "val000").write_bytes(png(bits, 0, WIDTH, HEIGHT))
    message = rf"val000.png is a gray PNG of {bits} bits, in which 1 is read as {first}: write its class indices into"
    for read in (dataset.label, dataset.pair):
        with pytest.raises(DataError, match=message):
            read("val", "val000")


@pytest.mark.parametrize(
    ("bits", "kind", "row"),
    [(1, 0, [1, 0, 1, 1]), (1, 3, [1, 0, 1, 1]), (2, 3, [0, 1, 2, 1]), (4, 3, [2, 0, 1, 2]), (8, 0, [2, 0, 1, 255])],
)
def test_a_label_of_few_bits_keeps_its_indices(dataset: ImageSet, bits: int, kind: int, row: list[int]) -> None:
    path = dataset.label_path("val", "val000")
    packed = np.packbits(np.unpackbits(np.array(row, np.uint8)[:, None], axis=1)[:, -bits:].ravel())
    path.write_bytes(png(bits, kind, 4, 3, packed.tobytes()))
    np.testing.assert_array_equal(dataset.label("val", "val000"), [row] * 3)
    contents = path.read_bytes()
    np.testing.assert_array_equal(np.asarray(decoding.open_label(path, contents), np.uint8), [row] * 3)


def test_a_rotated_photograph_is_refused(dataset: ImageSet) -> None:
    path = dataset.image_path("val", "val000")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)
    with pytest.raises(
        DataError, match=r"val000.jpg is stored rotated \(EXIF orientation 6\).*dataset.exif: apply.*auto-orient"
    ):
        dataset.image("val", "val000")


@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_a_rotated_photograph_is_turned_or_taken_as_it_is_stored(dataset: ImageSet, ending: str) -> None:
    path, exif = dataset.image_path("val", "val000"), Image.Exif()
    exif[0x0112] = 6
    path.unlink()
    stored = np.arange(8 * 24 * 3, dtype=np.uint8).reshape(8, 24, 3)
    Image.fromarray(stored).save(path.with_suffix(ending), exif=exif)
    stored = np.asarray(Image.open(path.with_suffix(ending)))
    for choice, expected in (("apply", np.rot90(stored, -1)), ("ignore", stored)):
        chosen = replace(dataset, exif=choice)
        np.testing.assert_array_equal(chosen.image("val", "val000"), expected)
        assert chosen.shape("val", "val000") == expected.shape[:2]
        Image.new("L", expected.shape[1::-1]).save(dataset.label_path("val", "val000"))
        assert chosen.pair("val", "val000")[0].shape == expected.shape


def test_a_png_may_hold_its_rotation_behind_its_pixels_or_none(tmp_path: Path) -> None:
    path, exif = tmp_path / "x.png", Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (24, 8)).save(path)
    assert decoding.image_size(path, "apply") == (8, 24)
    Image.new("RGB", (24, 8)).save(path, exif=exif)
    contents = path.read_bytes()
    start = contents.index(b"eXIf") - 4
    stop = start + 12 + int.from_bytes(contents[start : start + 4], "big")
    path.write_bytes(contents[:start] + contents[stop:-12] + contents[start:stop] + contents[-12:])
    assert decoding.image_size(path, "apply") == decoding.open_image(path, "apply").size[::-1] == (24, 8)
    assert decoding.image_size(path, "ignore") == decoding.open_image(path, "ignore").size[::-1] == (8, 24)


@pytest.mark.parametrize("number", [0, 9])
def test_an_orientation_that_means_nothing_turns_nothing(tmp_path: Path, number: int) -> None:
    path, exif = tmp_path / "x.jpg", Image.Exif()
    exif[0x0112] = number
    Image.new("RGB", (24, 8)).save(path, exif=exif)
    for choice in ("refuse", "apply", "ignore"):
        assert decoding.open_image(path, choice).size == (24, 8) and decoding.image_size(path, choice) == (8, 24)


def test_a_tiff_is_turned_always_and_says_so(tmp_path: Path) -> None:
    path, exif = tmp_path / "x.tif", Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (24, 8)).save(path, exif=exif)
    assert decoding.open_image(path, "apply").size == (8, 24) and decoding.image_size(path, "apply") == (24, 8)
    for choice, message in (
        ("refuse", "is stored rotated"),
        ("ignore", "is a TIFF .* always turned .* save it as PNG"),
    ):
        for read in (decoding.open_image, decoding.image_size):
            with pytest.raises(DataError, match=message):
                read(path, choice)


def test_broken_exif_data_are_named(dataset: ImageSet) -> None:
    path, text = dataset.image_path("val", "val000").with_suffix(".png"), PngInfo()
    dataset.image_path("val", "val000").unlink()
    text.add_text("Raw profile type exif", "\nexif\n2\nno hexadecimal number")
    Image.new("RGB", (4, 4)).save(path, pnginfo=text)
    with pytest.raises(DataError, match=r"val000.png has broken EXIF data .*exiftool -all= FILE"):
        dataset.image("val", "val000")


def test_hidden_and_other_files_are_no_images(dataset: ImageSet) -> None:
    before = dataset.ids("val")
    for name in (".val999.jpg", "notes.txt"):
        (dataset.layout.root / "images/val" / name).touch()
    assert dataset.ids("val") == before


def test_images_without_labels(dataset: ImageSet) -> None:
    dataset.label_path("train", "train003").unlink()
    assert "train003" in dataset.ids("train")
    assert dataset.labeled_ids("train") == [i for i in dataset.ids("train") if i != "train003"]


def test_missing_label_in_val_is_listed(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", {"val": 14})
    dataset = ImageSet.open(small_settings(root), tmp_path)
    for name in dataset.ids("val")[:12]:
        dataset.label_path("val", name).unlink()
    with pytest.raises(DataError) as caught:
        dataset.require_labels("val")
    text = str(caught.value)
    assert text.startswith("12 of 14 images of 'val' have no label file; add them")
    assert "labels/val/val000.png" in text
    assert "labels/val/val009.png" in text
    assert "val010.png" not in text
    assert text.endswith("and 2 more")


def test_missing_folder(tmp_path: Path) -> None:
    for path, advice in (("data/shapes", "run `dvc pull data.dvc`, or set"), ("nowhere", "set it to where")):
        with pytest.raises(DataError, match=rf"no folder .*{path}; {advice}"):
            ImageSet.open(small_settings(Path(path)), tmp_path)


def test_missing_folder_outside_the_repository(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*nowhere; set it to where") as caught:
        ImageSet.open(small_settings(tmp_path / "nowhere"), tmp_path / "repository")
    assert "dvc" not in str(caught.value)


def test_missing_classes(root: Path) -> None:
    (root / "classes.txt").unlink()
    (root / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match=r"classes.txt is missing: .* classes, one a line; set dataset.path"):
        ImageSet.open(small_settings(root), root.parent)


@pytest.mark.parametrize(
    "name", ["_classes.csv", "labelmap.txt", "labels.txt", "class_names.txt", "data.yaml", "obj.names", "class.txt"]
)
def test_a_file_that_may_hold_the_missing_classes_is_named(root: Path, name: str) -> None:
    (root / "classes.txt").rename(root / name)
    (root / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(DataError) as error:
        ImageSet.open(small_settings(root), root.parent)
    assert f"one a line; {name} lies there and is not read: write its names to classes.txt; " in str(error.value)


def test_classes_in_another_letter_case(root: Path) -> None:
    (root / "classes.txt").rename(root / "Classes.txt")
    if (root / "classes.txt").is_file():
        pytest.skip("this file system does not tell letter case apart")
    with pytest.raises(DataError, match=r"Classes.txt lies there and is not read: write its names to classes.txt"):
        ImageSet.open(small_settings(root), root.parent)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n", "is empty"),
        ("cat\ndog\ncat\n", "names 'cat' twice"),
        ("cat\n", "names one class, 'cat': every label would be right, and nothing is learned; name what else"),
        ("\n".join(map(str, range(256))), "names 256 classes; at most 255"),
        ("cat\n(all)", r"classes.txt, line 2: the name '\(all\)' stands for all classes together in tables; give"),
        ("mean", r"line 1: the name 'mean' stands for the mean of the classes in tables; give the class another name"),
        ("cat\n\nvoid", r"line 3: the name 'void' stands for what counts as no class in tables; write - for"),
        *(
            (f"cat\na{mark}b", "line 2: the name .* holds characters that are not seen")
            for mark in "\0\x1b\x0b\x85\u2028"
        ),
    ],
)
def test_impossible_classes(root: Path, text: str, message: str) -> None:
    (root / "classes.txt").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        ImageSet.open(small_settings(root), root.parent)


def test_classes_that_are_no_text(root: Path) -> None:
    (root / "classes.txt").write_bytes(b"cat\n\xff\n")
    with pytest.raises(DataError, match=r"classes.txt is no UTF-8 text: .* byte 0xff"):
        ImageSet.open(small_settings(root), root.parent)


def test_names_that_tables_use_are_those_that_are_refused() -> None:
    assert {measures.EVERYTHING, comparisons.ALL_CLASSES, "void"} == set(class_list.RESERVED)


def test_empty_split(dataset: ImageSet) -> None:
    with pytest.raises(DataError, match=r"the split 'other' is empty: no image in .*other \(.jpg, .*.tiff\)"):
        dataset.ids("other")


def test_two_files_of_one_id(dataset: ImageSet) -> None:
    Image.new("RGB", (4, 4)).save(dataset.layout.root / "images/val/val000.png")
    with pytest.raises(DataError, match=r"val000.png and .*val000.jpg have one id"):
        dataset.ids("val")


def test_missing_image(dataset: ImageSet) -> None:
    with pytest.raises(DataError, match=r"images/val/other.jpg \(or .png\) is missing"):
        dataset.image("val", "other")
    with pytest.raises(DataError, match=r"label .*labels/val/other.png is missing"):
        dataset.label("val", "other")


@pytest.mark.parametrize("content", [b"", b"not found"])
def test_broken_image(dataset: ImageSet, content: bytes) -> None:
    dataset.image_path("val", "val000").write_bytes(content)
    with pytest.raises(DataError, match=r"image .*val000.jpg cannot be read .*; replace it"):
        dataset.image("val", "val000")


@pytest.mark.parametrize("kind", ["image", "label"])
def test_truncated_file(dataset: ImageSet, kind: str) -> None:
    path = getattr(dataset, f"{kind}_path")("val", "val000")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"{kind} .*val000.* cannot be read .* incomplete"):
        dataset.pair("val", "val000")


def test_rgb_label(dataset: ImageSet) -> None:
    Image.new("RGB", (WIDTH, HEIGHT)).save(dataset.label_path("val", "val000"))
    with pytest.raises(DataError, match=r"val000.png has pixels of mode RGB.* palette PNG"):
        dataset.label("val", "val000")


def test_sixteen_bits(dataset: ImageSet) -> None:
    deep = Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint16))
    deep.save(dataset.label_path("val", "val000"))
    with pytest.raises(DataError, match=r"val000.png has pixels of mode I;16"):
        dataset.label("val", "val000")
    dataset.image_path("val", "val001").unlink()
    deep.save(dataset.layout.root / "images/val/val001.png")
    with pytest.raises(DataError, match=r"val001.png has pixels of mode I;16; save it as 8-bit"):
        dataset.image("val", "val001")


def test_label_of_another_size(dataset: ImageSet) -> None:
    Image.new("L", (7, 5)).save(dataset.label_path("val", "val000"))
    expected = rf"val000.png is 7 x 5 pixels, but its image val000.jpg is {WIDTH} x {HEIGHT}"
    with pytest.raises(DataError, match=expected):
        dataset.pair("val", "val000")


def test_illegal_value(dataset: ImageSet) -> None:
    Image.new("L", (WIDTH, HEIGHT), 7).save(dataset.label_path("val", "val000"))
    expected = r"val000.png has the value 7, .*classes are 0 to 2 and void is \[255\]"
    with pytest.raises(DataError, match=expected):
        dataset.label("val", "val000")


def test_no_torch_is_imported() -> None:
    code = "import rrn.data.splits, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


OF_TOOLS = {
    "CVAT": ("# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:48,112,32::", 1, "a comment, such as the first"),
    "CVAT without its comment": ("background:0,0,0::\ncat:48,112,32::tail:run", 1, "a line of CVAT's labelmap.txt"),
    "Roboflow": ("Pixel Value, Class\n0, background\n1, cat", 1, "the header of Roboflow's _classes.csv"),
    "Roboflow without its header": ("0, background\n1, cat", 1, "has its value before the name"),
    "a header of one's own": ("id;name\n1;wall\n2;sky", 2, "has its value before the name"),
    "labelme": ("__ignore__\n_background_\ncat", 1, "labelme's labels.txt, which has no label value"),
    "YOLO": ("names:\n  - background\n  - cat", 1, "a key of YOLO's data.yaml"),
    "YOLO's numbers": ("\nnames:\n  0: background\n  1: cat", 2, "a key of YOLO's data.yaml"),
    "YOLO on a line": ("names: ['background', 'cat']\nnc: 2", 1, "a key of YOLO's data.yaml"),
    "a list of YAML": ("- background\n- cat", 1, "is of a list in YAML"),
    "numbers of YAML": ("0: background\n1: cat", 1, "has its value before the name"),
    "JSON": ('[\n"background",\n"cat"\n]', 1, "a list in JSON or YAML"),
    "JSON on a line": ('["background", "cat"]', 1, "a list in JSON or YAML"),
    "numbers": ("0 background\n1 cat\n2 dog", 1, "has its value before the name"),
    "colors behind": ("name,r,g,b\nroad,128,64,128\nsky,0,0,0", 2, "a color, as in the tables of class_dict.csv"),
    "colors before": ("128 64 128\troad\n0 0 0\tsky", 1, "a color, as in the tables of label_colors.txt"),
    "a color behind blanks": ("road 128 64 128\nsky 0 0 0", 1, "a name and a color (write the name alone)"),
    "a color in brackets": ("bg\nroad: (128, 64, 128)", 2, "a name and a color (write the name alone)"),
    "a color of the web": ("bg\nroad,#804080", 2, "a name and a color (write the name alone)"),
    "black": ("bg,0,0,0\nwall,1,1,1", 1, "a color, as in the tables of class_dict.csv"),
    "comments of programs": ("bg // nothing\n// the walls\nwall", 2, "a comment (remove it)"),
    "comments of settings": ("; classes\nbg\nwall", 1, "a comment (remove it)"),
    "a header": ("label\nbg\nwall", 1, "is the header of a table, and would be the class of the value 0; remove"),
    "a header of names": ("\nClass_Name\nbg\nwall", 2, "is the header of a table"),
    "a header with a colon": ("classes:\nbg\nwall", 1, "is the header of a table"),
    "a header of columns": ("name,value\nbg\nwall", 1, "is the header of a table"),
    "values between bars": ("0|bg\n1|wall", 1, "has its value before the name"),
    "values from 1": ("1|wall\n2|sky", 1, "has its value before the name"),
    "values and dashes": ("1 - wall\n2 - sky", 1, "has its value before the name"),
    "values behind commas": ("bg,0\nwall,1", 1, "has its value behind the name"),
    "values behind blanks": ("bg 0\ntraffic light 1\nsky 2", 1, "has its value behind the name"),
    "values behind a header": ("name;value\nbg;0\nvoid;255", 2, "has its value behind the name"),
    "quotes": ('bg\n"wall"', 2, "a name in quotes, which would become part of it (write it without them)"),
    "single quotes": ("'bg',\n'wall',", 1, "a name in quotes"),
    "Cityscapes": ("Label('road',7,0)\nLabel( 'sky', 23, 10),", 1, "Cityscapes' labels.py (write the name alone)"),
    "a table": ("Idx\tName\n1\twall", 1, "a row of a table"),
}


@pytest.mark.parametrize(("text", "line", "what"), OF_TOOLS.values(), ids=OF_TOOLS)
def test_the_lists_of_annotation_tools_are_refused_by_line_and_name(
    root: Path, text: str, line: int, what: str
) -> None:
    (root / "classes.txt").write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as error:
        ImageSet.open(small_settings(root), root.parent)
    assert str(error.value).startswith(f"{root / 'classes.txt'}, line {line}: ")
    assert what in str(error.value) and "classes.txt holds the names of the classes alone" in str(error.value)


@pytest.mark.parametrize(
    "names",
    [
        ("_background_", "cat", "dog"),  # labelme's class_names.txt
        ("1 euro", "2 euro", "5 euro"),
        ("1 euro", "2 euro"),
        ("3D printer", "C#", "traffic-light"),
        ("road, paved", "road, unpaved", "sky (blue)"),
        ("train", "value", "[unknown]"),
        ("Straße", "车", "ground: wet"),
        ("classroom", "path", "lane 1", "label printer"),
        ("bottle", "label", "value", "class"),
        ("tree, dead", "tree, living", "house (blue)", "sky(grey)"),
        ("lane 0", "lane 1", "lane 2"),
        ("lane 1", "lane 2", "car"),
        ("Airbus: 320", "Boeing: 737"),
        ("Fig. 1", "Sec. 2", "Tab. 3"),
        ("F#", "farmer's field", "'s-Hertogenbosch", 'the "good" apple', "and/or; both"),
        ("route 66, old", "area 51", "index", "id"),
        ("0", "1", "2"),
    ],
)
def test_names_that_look_odd_are_names(root: Path, names: tuple[str, ...]) -> None:
    (root / "classes.txt").write_text("\ufeff" + "\r\n".join(names) + "\r\n\r\n", encoding="utf-8")
    assert ImageSet.open(small_settings(root), root.parent).classes == names


def test_a_line_of_classes_may_be_void(root: Path) -> None:
    (root / "classes.txt").write_text("-\nwall\n-\nsky\n", encoding="utf-8")
    dataset = ImageSet.open(small_settings(root), root.parent)
    assert dataset.classes == ("wall", "sky")
    assert dataset.layout.meaning == {0: IGNORE_INDEX, 1: 0, 2: IGNORE_INDEX, 3: 1, 255: IGNORE_INDEX}
    path = root / "labels/val/val000.png"
    values = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 4
    Image.fromarray(values).save(path)
    np.testing.assert_array_equal(dataset.label("val", "val000"), np.array([255, 0, 255, 1])[values])
    both = small_settings(root, dataset={"void": (0, 2, 255)})
    assert ImageSet.open(both, root.parent).layout.meaning == dataset.layout.meaning


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-\n-\n", "is empty"),
        ("-\ncat\n", "names one class, 'cat'"),
        ("a\nb\n" + "-\n" * 254, "names 256 classes; at most 255"),
    ],
)
def test_void_lines_are_no_classes(root: Path, text: str, message: str) -> None:
    (root / "classes.txt").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        ImageSet.open(small_settings(root), root.parent)


def test_labels_whose_names_begin_at_1_are_led_to_a_void_line(root: Path) -> None:
    (root / "classes.txt").write_text("wall\nsky\n", encoding="utf-8")
    with pytest.raises(DataError, match="where the names begin at 1, put a line - before them"):
        ImageSet.open(small_settings(root), root.parent).label("val", "val000")
    with pytest.raises(DataError, match="if 0 is no class, put a line - before 'wall'"):
        ImageSet.open(small_settings(root, dataset={"void": (0, 255)}), root.parent)
    (root / "classes.txt").write_text("-\nwall\nsky\n", encoding="utf-8")
    assert set(np.unique(ImageSet.open(small_settings(root), root.parent).label("val", "val000"))) == {0, 1, 255}
