"""What a file is by its first bytes: image formats that are read, and the names of those that are not. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from PIL import ExifTags
from PIL.TiffImagePlugin import ImageFileDirectory_v2

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
"""What PIL may decode, whatever a file is called: for some other formats (EPS) it starts programs."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""Endings of images, which may be written in any letter case."""
ENDINGS = re.compile(
    r"\.(heic|heif|avif|gif|jfif|jpe|jp2|j2k|jpf|jpx|jxl|svg|psd|xcf|eps|exr|ppm|pgm|pbm|pnm|tga|ico|pcx|dib|dds|"
    r"raw|dng|crw|cr2|cr3|nef|nrw|arw|srw|pef|orf|raf|rw2|x3f|3fr|iiq|kdc|mrw|erf|dcm|npy|"
    r"mp4|m4v|mov|avi|mkv|webm|mpg|mpeg|wmv|flv|3gp)",
    re.IGNORECASE,
)
"""Endings of pictures and videos that are not read."""
HEAD = 160
"""Bytes at the start of a file that tell its format."""
TIFF = "a TIFF"
READ = ("a JPEG", "a PNG", "a WebP", "a BMP", TIFF)
"""Names of FORMATS."""
OF_ANY_CODEC = (b"mif1", b"msf1")
"""Brands of HEIF that leave open whether it is HEIC or AVIF: the brands behind them tell."""
SIGNATURES = (
    (0, b"\xff\xd8\xff", "a JPEG"),
    (0, b"\x89PNG", "a PNG"),
    (8, b"WEBP", "a WebP"),
    (0, b"BM", "a BMP"),
    *((0, mark, TIFF) for mark in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    (0, b"GIF8", "a GIF"),
    *((4, b"ftyp" + brand, "an AVIF") for brand in (b"avif", b"avis")),
    *((4, b"ftyp" + brand, "a HEIC") for brand in (b"hei", b"hev", *OF_ANY_CODEC)),
    (4, b"ftypcrx", "a camera's raw file"),
    (4, b"ftypqt", "a QuickTime video"),
    (4, b"ftyp", "an MP4 video"),
    (8, b"AVI ", "an AVI video"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (0, b"\0\0\1\xba", "an MPEG video"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (0, b"\xff\x0a", "a JPEG XL"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"gimp xcf", "a GIMP file"),
    (0, b"%!PS", "a PostScript drawing"),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript drawing"),
    (0, b"v/1\1", "an OpenEXR file"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw file"),
    (128, b"DICM", "a DICOM file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    *((0, mark, "a netpbm picture") for mark in (b"P5\n", b"P6\n")),
)
"""Offset, bytes and name of formats of pictures and videos; of several that fit, the first counts."""
OTHERS = (
    (0, b"%PDF", "a PDF"),
    (0, b"PK\3\4", "a ZIP archive"),
    (0, b"version https://git-lfs", "a pointer of Git LFS, whose file has not been fetched (`git lfs pull`)"),
    *((0, mark, "a web page") for mark in (b"<!DOCTYPE html", b"<!doctype html", b"<html")),
    *((0, mark, "a text in XML or SVG") for mark in (b"<?xml", b"<svg")),
)
"""What image files turn out to be besides."""

BITS, PHOTOMETRIC, BANDS, EXTRA, SAMPLES, GEOGRAPHIC = 258, 262, 277, 338, 339, 34735
"""Tags of TIFF."""
COLORS_OF = {0: 1, 1: 1, 3: 1, 2: 3, 6: 3}
"""Kind of pixels of a TIFF (gray, gray, palette, RGB, YCbCr) -> its bands."""
MOST_BANDS = 4
"""Of any other kind, such as CMYK."""
ALPHA = ((1,), (2,))
"""Values of EXTRA that declare one more band as alpha."""
FLOATING = 3


def has_suffix(path: Path) -> bool:
    """Tell whether a file is called as an image that is read."""
    return path.suffix.lower() in SUFFIXES


def is_called_picture(path: Path) -> bool:
    """Tell whether a file is called as a picture or video, read or not."""
    return has_suffix(path) or bool(ENDINGS.fullmatch(path.suffix))


def format_name(head: bytes) -> str:
    """Return which format of pictures or videos begins with these bytes, as `a GIF`; empty if none that is known."""
    behind = head[16 : int.from_bytes(head[:4], "big")]
    if head[4:8] == b"ftyp" and head[8:12] in OF_ANY_CODEC and (b"avif" in behind or b"avis" in behind):
        return "an AVIF"
    return _first(SIGNATURES, head)


def other_name(head: bytes) -> str:
    """Return what else begins with these bytes, as `a web page`; empty if nothing that is known."""
    return _first(OTHERS, head)


def _first(known: Sequence[tuple[int, bytes, str]], head: bytes) -> str:
    return next((name for offset, mark, name in known if head.startswith(mark, offset)), "")


def name_of_file(path: Path) -> str:
    """Return which picture or video a file is, by contents or else by ending, as `a GIF`; empty if neither."""
    try:
        with path.open("rb") if path.is_file() else BytesIO() as file:  # a pipe would be waited for
            name = format_name(file.read(HEAD))
    except OSError:
        name = ""
    return name or (f"a {path.suffix} file" if is_called_picture(path) else "")


def tiff_tags(file: BinaryIO) -> Mapping[int, Any]:
    """Return the tags of the first picture of a TIFF.

    Raises:
        Exception: of many kinds, where it is broken: see `rrn.data.decoding.UNREADABLE`.
    """
    file.seek(0)
    header = file.read(8)
    if header[2:3] == b"+":  # BigTIFF
        header += file.read(8)
    directory = ImageFileDirectory_v2(header)
    file.seek(directory.next)
    directory.load(file)
    return dict(directory)


def unread_tiff(tags: Mapping[int, Any]) -> str:
    """Say what is against reading a TIFF as an 8-bit image, as `is a 16-bit TIFF`; empty if nothing is.

    A fourth band that is declared as alpha is left out, as that of a PNG; in a GeoTIFF it may be anything.
    """
    bits, bands = max(tags.get(BITS, (1,))), int(tags.get(BANDS, 1))
    if FLOATING in tags.get(SAMPLES, (1,)):
        return "is a TIFF of floating-point numbers"
    if bits > 8:
        return f"is a {bits}-bit TIFF"
    alpha = GEOGRAPHIC not in tags and tuple(tags.get(EXTRA, ())) in ALPHA
    return f"has {bands} bands" if bands > COLORS_OF.get(tags.get(PHOTOMETRIC, -1), MOST_BANDS) + alpha else ""


def tiff_orientation(tags: Mapping[int, Any]) -> int:
    """Return how a TIFF is stored, as EXIF counts: 1 is upright."""
    return int(tags.get(ExifTags.Base.Orientation, 1))
