"""Formats of image files: what is read, and the name that is given to what is not."""

import random
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small import HEIGHT, WIDTH, small_settings, write_folder

from rrn.data import decoding, file_formats
from rrn.data.decoding import DataError
from rrn.data.image_set import ImageSet

PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)
TWO = {"save_all": True, "append_images": [Image.fromarray(255 - PIXELS)]}
LOSSLESS: dict[str, tuple[str, dict[str, object]]] = {
    "WebP": (".webp", {"format": "WEBP", "lossless": True}),
    "BMP": (".bmp", {"format": "BMP"}),
    "TIFF": (".tif", {"format": "TIFF"}),
    "compressed TIFF": (".tiff", {"format": "TIFF", "compression": "tiff_lzw"}),
    "PNG": (".png", {"format": "PNG"}),
}


def saved(image: Image.Image = PICTURE, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def tiff(bits: int, bands: int, photometric: int, extra: tuple[int, ...] = (), **more: tuple[int, ...]) -> bytes:
    """Return an uncompressed TIFF of 3 x 2 black pixels; `sample` is its SampleFormat, `geo` its GeoKeyDirectory."""
    entries = {
        256: (3,),
        257: (2,),
        258: (bits,) * bands,
        259: (1,),
        262: (photometric,),
        273: (0,),
        277: (bands,),
        278: (2,),
        279: (6 * bands * bits // 8,),
        338: extra,
        339: more.get("sample", ()),
        34735: more.get("geo", ()),
    }
    listed = [(tag, struct.pack(f"<{len(values)}I", *values), values) for tag, values in entries.items() if values]
    start = 8 + 2 + 12 * len(listed) + 4
    behind, directory = b"", b""
    for tag, packed, values in listed:
        place = struct.pack("<I", start + len(behind)) if len(packed) > 4 else packed
        behind += packed if len(packed) > 4 else b""
        directory += struct.pack("<HHI", tag, 4, len(values)) + place
    pixels = struct.pack("<HHII", 273, 4, 1, start + len(behind))
    directory = directory.replace(struct.pack("<HHII", 273, 4, 1, 0), pixels)
    head = b"II*\0" + struct.pack("<IH", 8, len(listed)) + directory + bytes(4)
    return head + behind + bytes(6 * bands * bits // 8)


@pytest.fixture
def dataset(tmp_path: Path) -> ImageSet:
    return ImageSet.open(small_settings(write_folder(tmp_path / "data")), tmp_path)


def replaced(dataset: ImageSet, suffix: str, contents: bytes) -> Path:
    """Put a file in the place of the image val000."""
    path = dataset.image_path("val", "val000")
    path.unlink()
    path = path.with_suffix(suffix)
    path.write_bytes(contents)
    return path


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("write", [str, str.upper, str.title], ids=["lower", "upper", "title"])
def test_formats_are_read_whatever_the_letter_case_of_the_ending(
    dataset: ImageSet, kind: str, write: Callable[[str], str]
) -> None:
    suffix, options = LOSSLESS[kind]
    path = replaced(dataset, write(suffix), saved(**options))
    assert "val000" in dataset.ids("val") and dataset.image_path("val", "val000") == path
    np.testing.assert_array_equal(dataset.image("val", "val000"), PIXELS)
    assert dataset.shape("val", "val000") == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(decoding.colors(decoding.open_image(path, "apply"), None), PIXELS)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_the_format_is_what_the_contents_say(dataset: ImageSet, kind: str) -> None:
    replaced(dataset, ".jpg", saved(**LOSSLESS[kind][1]))
    np.testing.assert_array_equal(dataset.image("val", "val000"), PIXELS)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA"])
def test_a_tiff_of_8_bits_is_read(dataset: ImageSet, mode: str) -> None:
    image = PICTURE.convert(mode)
    replaced(dataset, ".tif", saved(image, format="TIFF"))
    np.testing.assert_array_equal(dataset.image("val", "val000"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    "contents", [tiff(8, 3, 2), tiff(8, 1, 1), tiff(8, 3, 2, geo=(1, 1, 0, 0)), tiff(8, 4, 2, (2,))]
)
def test_bands_that_are_colors_are_read(tmp_path: Path, contents: bytes) -> None:
    assert decoding.open_image(tmp_path / "x.tif", contents=contents).size == (3, 2)


ISO = b"\0\0\0\x18ftyp"
REFUSED: dict[str, tuple[bytes, str]] = {
    "GIF": (saved(format="GIF"), "is a GIF; save it as JPEG or PNG, 8-bit RGB or gray, or remove it"),
    "HEIC": (ISO + b"heic" + bytes(99), "is a HEIC; save it as JPEG or PNG"),
    "HEIF": (ISO + b"mif1" + bytes(99), "is a HEIC; save it as JPEG or PNG"),
    "HEIC by a brand behind": (ISO + b"mif1\0\0\0\0mif1heic" + bytes(99), "is a HEIC; save it as JPEG or PNG"),
    "AVIF by a brand behind": (ISO + b"mif1\0\0\0\0mif1avif" + bytes(99), "is an AVIF; save it as JPEG or PNG"),
    "AVIF of several": (ISO + b"msf1\0\0\0\0avismsf1" + bytes(99), "is an AVIF; save it as JPEG or PNG"),
    "no brand but the word": (ISO + b"mif1\0\0\0\0mif1heicavif", "is a HEIC; save it as JPEG or PNG"),
    "AVIF": (ISO + b"avif" + bytes(99), "is an AVIF; save it as JPEG or PNG"),
    "MP4": (ISO + b"isom" + bytes(99), "is an MP4 video"),
    "16-bit TIFF": (tiff(16, 1, 1), "is a 16-bit TIFF; save it as JPEG or PNG, 8-bit RGB or gray"),
    "16-bit colors": (tiff(16, 3, 2), "is a 16-bit TIFF; save it"),
    "32-bit numbers": (tiff(32, 1, 1, sample=(3,)), "is a TIFF of floating-point numbers; save it"),
    "5 bands": (tiff(8, 5, 2, (0, 0)), "has 5 bands; save it as JPEG or PNG, 8-bit RGB or gray"),
    "13 bands": (tiff(8, 13, 1, (0,) * 12), "has 13 bands; save it"),
    "near infrared": (tiff(8, 4, 2, (0,)), "has 4 bands; save it"),
    "4 bands of a map": (tiff(8, 4, 2, (2,), geo=(1, 1, 0, 0)), "has 4 bands; save it"),
    "pages": (saved(format="TIFF", **TWO), "holds several pages; save the picture that is meant as an image of its"),
    "animated WebP": (saved(format="WEBP", **TWO), "is an animation; save the picture that is meant as an image"),
    "ZIP": (b"PK\3\4" + bytes(99), "is a ZIP archive and no image; replace it or remove it"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS, whose file has not been"),
}


@pytest.mark.parametrize(("contents", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_read_is_called_by_its_name(dataset: ImageSet, contents: bytes, message: str) -> None:
    path = replaced(dataset, ".jpg", contents)
    for read in (dataset.image, dataset.shape, lambda *_: decoding.open_image(path, "apply")):
        with pytest.raises(DataError) as error:
            read("val", "val000")
        assert f"image {path} {message}" in str(error.value)
        assert "broken" not in str(error.value)


@pytest.mark.parametrize("kind", ["JPEG", "WebP", "BMP", "TIFF"])
def test_labels_are_png(dataset: ImageSet, kind: str) -> None:
    path, gray = dataset.label_path("val", "val000"), Image.new("L", (WIDTH, HEIGHT), 1)
    path.write_bytes(saved(gray, format=kind))
    expected = (
        "JPEG, which does not keep values: export the labels" if kind == "JPEG" else f"{kind.upper()}, but labels"
    )
    with pytest.raises(DataError, match=rf"label {path} is a {expected}"):
        dataset.label("val", "val000")
    path.write_bytes(saved(gray, format="PNG"))
    assert (dataset.label("val", "val000") == 1).all()


@pytest.mark.parametrize(
    "contents",
    [
        saved(format="TIFF", tiffinfo={274: 6}),
        saved(format="WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"),
    ],
)
def test_a_rotated_photograph_is_refused_where_it_has_a_label_and_turned_where_not(
    dataset: ImageSet, contents: bytes
) -> None:
    path = replaced(dataset, ".jpg", contents)
    for read in (dataset.image, dataset.shape):
        with pytest.raises(DataError, match=r"val000.jpg is stored rotated \(EXIF orientation 6\)"):
            read("val", "val000")
    assert decoding.open_image(path, "apply").size == (HEIGHT, WIDTH)


@pytest.mark.filterwarnings("ignore:(Metadata Warning|Truncated|Corrupt|Tag data)")  # PIL says it in passing
@pytest.mark.parametrize("options", [value for _, value in LOSSLESS.values()], ids=LOSSLESS)
def test_damaged_files_are_data_errors(tmp_path: Path, options: dict[str, object]) -> None:
    """Whatever a decoder stumbles over, the file is named."""
    good, chance, refused = saved(**options), random.Random(0), 0
    for _ in range(200):
        damaged = bytearray(good[: chance.randrange(9, len(good))])
        for _ in range(5):
            damaged[chance.randrange(min(len(damaged), 300))] = chance.randrange(256)
        try:
            decoding.open_image(tmp_path / "x", contents=bytes(damaged))
        except DataError as error:
            assert str(tmp_path / "x") in str(error)
            refused += 1
    assert refused > 100


def test_names_are_told_by_contents_or_else_by_ending(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(saved(format="WEBP"))
    endings = ["tga", "ico", "pcx", "dib", "ppm", "PGM", "jp2", "psd", "raw", "nef"]
    for name in ("b", "c.HEIC", *(f"x.{ending}" for ending in endings)):
        (tmp_path / name).write_bytes(b"notes")
    assert [file_formats.name_of_file(tmp_path / f"x.{end}") for end in endings] == [
        f"a .{end} file" for end in endings
    ]
    names = [file_formats.name_of_file(tmp_path / name) for name in ("a.gif", "b", "c.HEIC", "none")]
    assert names == ["a WebP", "", "a .HEIC file", ""]
