"""Image and label files -> arrays. What is wrong with a file is a `DataError` that names it. No torch."""

from __future__ import annotations

import errno
import struct
import warnings
import zlib
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from rrn.config import IGNORE_INDEX
from rrn.data import file_formats

MOST_BYTES = 1 << 30
"""Of an image file: more than the largest that is read (`Image.MAX_IMAGE_PIXELS`) has uncompressed."""
COLOR_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
"""Kinds of pixels that are read as RGB. CMYK is not: its colors depend on a profile, and readers disagree."""
INDEX_MODES = ("1", "L", "P")
GRAY = 0
"""Type of colors of a gray PNG."""
TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)
"""What PIL raises when a header claims so many pixels that the memory would not hold them; nothing is decoded then."""
SEVERAL = {"PNG": "is an animation", "WEBP": "is an animation", "TIFF": "holds several pages"}
"""Formats that may hold more than one picture, and what to say of those that do."""
SAVE = {"image": "save it as JPEG or PNG, 8-bit RGB or gray", "label": "save it as a gray or palette PNG of 8 bits"}
CUT_OFF = "Corrupt EXIF data|Tag data larger than file|Truncated File Read"
"""Beginnings of what PIL warns of where the tags of a TIFF lie behind its end."""
DAMAGED = (SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error, zlib.error, UserWarning)
UNREADABLE = (OSError, *DAMAGED, *TOO_LARGE)
"""What PIL raises for files that are no image, truncated, broken inside, or absurdly large."""

Pixels = NDArray[np.uint8]
Answer = TypeVar("Answer")
Size = tuple[int, int]
"""Height and width, in pixels."""
Exif = Literal["refuse", "apply", "ignore"]
UPRIGHT = 1
"""The EXIF orientation of an image that is not turned."""
TURNED = range(2, 9)
"""EXIF orientations of one that is; other numbers mean nothing."""
ON_ITS_SIDE = (5, 6, 7, 8)
"""EXIF orientations of which height and width change places when the image is turned."""


class DataError(ValueError):
    """The data on the disk are not as they must be; the message says where and what to do."""


def open_file(
    path: Path, what: str, decode: bool = True, contents: bytes | None = None, reduced: bool = False
) -> Image.Image:
    """Open an image file, and decode it too unless only its size is asked for.

    Args:
        path: the file.
        what: "image" or "label", for messages.
        decode: whether the pixels are wanted.
        contents: of the file, if they have been read already.
        reduced: decode a JPEG at an eighth of its size, in gray, which reads all of the file and is faster.

    Raises:
        DataError: it is missing, broken, incomplete, absurdly large, of a format that is not read, or holds more than
            one picture.
    """
    with _opened(path, what, contents) as image:
        _require_one_picture(image, path, what)
        try:
            if reduced:
                image.draft("L", (1, 1))
            if decode:
                image.load()
        except UNREADABLE as error:
            raise unreadable(error, path, what) from error
    return image


def _opened(path: Path, what: str, contents: bytes | None) -> Image.Image:
    """Read the header of an image; one that claims too many pixels is an error, of which PIL makes a warning first."""
    head = _head(path, what, contents)
    _require_read(head, path, what, contents)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(path if contents is None else BytesIO(contents), formats=file_formats.FORMATS)
    except UnidentifiedImageError as error:
        name = file_formats.format_name(head)
        reason = f"it begins as {name}, and is none" if name else "it is no image"
        raise _broken(path, what, reason) from error
    except UNREADABLE as error:
        raise unreadable(error, path, what) from error


def _require_read(head: bytes, path: Path, what: str, contents: bytes | None) -> None:
    """Refuse a file whose first bytes are of a format, or of a kind of TIFF, that is not read."""
    name = file_formats.format_name(head)
    if name == file_formats.TIFF and (trouble := _of_tiff(file_formats.unread_tiff, path, what, contents)):
        raise DataError(f"{what} {path} {trouble}; {SAVE[what]}")
    if name and name not in file_formats.READ:
        raise DataError(f"{what} {path} is {name}; {SAVE[what]}, or remove it")
    if other := file_formats.other_name(head):
        raise DataError(f"{what} {path} is {other} and no image; replace it or remove it")


def _require_one_picture(image: Image.Image, path: Path, what: str) -> None:
    if image.format in SEVERAL and getattr(image, "is_animated", False):
        raise DataError(f"{what} {path} {SEVERAL[image.format]}; save the picture that is meant as an image of its own")


def _of_tiff(ask: Callable[[Mapping[int, Any]], Answer], path: Path, what: str, contents: bytes | None) -> Answer:
    """Return what a function says of the tags of a TIFF; where they are cut off is an error, of which PIL warns."""
    try:
        with warnings.catch_warnings(), path.open("rb") if contents is None else BytesIO(contents) as file:
            warnings.filterwarnings("error", CUT_OFF)
            return ask(file_formats.tiff_tags(file))
    except UNREADABLE as error:
        raise unreadable(error, path, what) from error


def _head(path: Path, what: str, contents: bytes | None) -> bytes:
    if contents is not None:
        return contents[: file_formats.HEAD]
    try:
        with path.open("rb") as file:
            return file.read(file_formats.HEAD)
    except OSError as error:
        raise unreadable(error, path, what) from error


def unreadable(error: Exception, path: Path, what: str) -> DataError:
    """Return what to say when reading `path` failed with `error`; `what` is "image", "label" or "folder"."""
    if isinstance(error, FileNotFoundError):
        target = f": it is a link to {path.readlink()}, which does not exist" if path.is_symlink() else ""
        return DataError(f"{what} {path} is missing{target}")
    if isinstance(error, PermissionError):
        return DataError(f"{what} {path} may not be read: no permission; allow it (`chmod a+rX`)")
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return DataError(f"{what} {path} is a symbolic link that leads back to itself; replace it by the file")
    if isinstance(error, TOO_LARGE):
        return DataError(
            f"{what} {path} claims to have more than {Image.MAX_IMAGE_PIXELS} pixels, which is not even tried; replace "
            "it, or cut it into smaller ones"
        )
    return _broken(path, what, str(error))


def _broken(path: Path, what: str, reason: str) -> DataError:
    """Return what to say of a file that begins as it must and goes on as it must not."""
    return DataError(f"{what} {path} cannot be read ({reason}): it is broken or incomplete; replace it or remove it")


def open_image(path: Path, exif: Exif = "refuse", contents: bytes | None = None) -> Image.Image:
    """Open a photograph.

    Args:
        path: the file.
        exif: what becomes of one whose EXIF data say that it is stored rotated: it is refused, as whether its label is
            too cannot be known, turned as they say (apply), or taken as it is stored (ignore).
        contents: of the file, if they have been read already.

    Raises:
        DataError: see `open_file`; or its pixels are of a kind that has no obvious colors, or it is stored rotated.
    """
    image = _with_colors(open_file(path, "image", contents=contents), path, contents)
    return image if _turned(image, path, exif, contents) == UPRIGHT else ImageOps.exif_transpose(image)


def image_size(path: Path, exif: Exif = "refuse", contents: bytes | None = None) -> Size:
    """Return (height, width) of a photograph as `open_image` gives it, which is not decoded for that.

    A PNG may hold EXIF data behind its pixels. With `apply` it is decoded, with `refuse` they are not looked for.

    Raises:
        DataError: as `open_image`.
    """
    image = _with_colors(open_file(path, "image", decode=False, contents=contents), path, contents)
    if image.format == "PNG" and exif == "apply":
        return open_image(path, exif, contents).size[::-1]
    is_looked_for = image.format != "PNG" or "exif" in image.info
    on_its_side = is_looked_for and _turned(image, path, exif, contents) in ON_ITS_SIDE
    return image.size if on_its_side else image.size[::-1]


def _turned(image: Image.Image, path: Path, exif: Exif, contents: bytes | None) -> int:
    """Return the EXIF orientation in which an image still is, or refuse it."""
    is_tiff = image.format == "TIFF"  # PIL turns it and forgets the tag
    if exif == "ignore" and not is_tiff:
        return UPRIGHT
    stated = _of_tiff(file_formats.tiff_orientation, path, "image", contents) if is_tiff else _orientation(image, path)
    if stated not in TURNED or exif == "apply":
        return UPRIGHT if is_tiff else stated
    if exif == "ignore":
        raise DataError(f"{path} is a TIFF that is stored rotated, which is always turned when read; save it as PNG")
    raise DataError(
        f"{path} is stored rotated (EXIF orientation {stated}), and whether its label is too cannot be known; "
        "set dataset.exif: apply if labels lie on the photograph as it is seen, ignore if on the pixels as they are "
        "stored; or turn the pixels (for instance `mogrify -auto-orient`), and see that the label fits"
    )


def _orientation(image: Image.Image, path: Path) -> int:
    """Return the orientation that EXIF data state; broken ones are a DataError."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, UPRIGHT))
    except UNREADABLE as error:
        raise DataError(f"{path} has broken EXIF data ({error}); remove them (`exiftool -all= FILE`)") from error


def _with_colors(image: Image.Image, path: Path, contents: bytes | None = None) -> Image.Image:
    """Refuse pixels that have no obvious colors, or more bits than are read."""
    if image.mode not in COLOR_MODES:
        raise DataError(f"{path} has pixels of mode {image.mode}; save it as 8-bit RGB or gray")
    if image.format == "PNG" and _bits(path, "image", contents)[0] == 16:
        raise DataError(f"{path} has 16 bits per channel; save it as 8-bit RGB or gray")
    return image


def _bits(path: Path, what: str, contents: bytes | None) -> tuple[int, int]:
    """Return the bits of a sample and the type of colors that the header of a PNG states, at its bytes 24 and 25.

    Raises:
        DataError: it cannot be read any more.
    """
    head = _head(path, what, contents)
    return head[24], head[25]


def open_label(path: Path, contents: bytes | None = None) -> Image.Image:
    """Open a label: one class index per pixel, gray or palette, 8 bits.

    Raises:
        DataError: see `open_file`; or it is no PNG, is in colors, has more than 8 bits, or is gray with 2 or 4, which
            PIL spreads over 0 to 255. One bit, and a palette of any bits, stay the indices that they are.
    """
    label = open_file(path, "label", contents=contents)
    if label.format != "PNG":
        raise DataError(_no_png(path, label.format or ""))
    if label.mode not in INDEX_MODES:
        raise DataError(
            f"{path} has pixels of mode {label.mode}, but a label is one class index per "
            "pixel: convert it to a gray or palette PNG of 8 bits"
        )
    if label.mode == "L":
        bits, kind = _bits(path, "label", contents)
        if kind == GRAY and bits in (2, 4):
            raise DataError(
                f"{path} is a gray PNG of {bits} bits, in which 1 is read as {255 // (2**bits - 1)}: write its class "
                "indices into a gray or palette PNG of 8 bits, and see that they are still 0, 1, 2, ..."
            )
    return label


def _no_png(path: Path, form: str) -> str:
    """Say that a label is of a format that is read for images alone."""
    if form in ("JPEG", "MPO"):
        return (
            f"label {path} is a JPEG, which does not keep values: export the labels anew, as gray or palette PNG of "
            "8 bits, from where they were drawn"
        )
    return f"label {path} is a {form}, but labels are PNG: convert it to a gray or palette PNG of 8 bits"


def colors(image: Image.Image, size: Size | None) -> Pixels:
    """Return the pixels as RGB uint8 [H, W, 3], resized if `size` is given."""
    image = image.convert("RGB")
    if size is not None and image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.array(image, dtype=np.uint8)


def indices(label: Image.Image, path: Path, meaning: Mapping[int, int], size: Size | None) -> Pixels:
    """Return the classes of a label, uint8 [H, W], IGNORE_INDEX where void; resized if `size` is given.

    Args:
        label: of `open_label`.
        path: its file, for messages.
        meaning: value of a pixel -> class index or IGNORE_INDEX.
        size: wanted size.

    Raises:
        DataError: a value has no meaning.
    """
    values = np.asarray(label, dtype=np.uint8)
    if wrong := illegal(np.bincount(values.ravel(), minlength=256), path, meaning):
        raise DataError(wrong)
    table = np.arange(256, dtype=np.uint8)
    table[list(meaning)] = list(meaning.values())
    values = table[values]
    if size is not None and values.shape != size:
        resized = Image.fromarray(values).resize(size[::-1], Image.Resampling.NEAREST)
        values = np.array(resized, dtype=np.uint8)
    return values


def illegal(histogram: NDArray[np.int64], path: Path, meaning: Mapping[int, int]) -> str | None:
    """Say which values of a label, counted in `histogram` [256], mean nothing; None if all do."""
    wrong = [int(value) for value in np.flatnonzero(histogram) if int(value) not in meaning]
    if not wrong:
        return None
    void = sorted(value for value, index in meaning.items() if index == IGNORE_INDEX)
    known = sorted(set(meaning) - set(void))
    return (
        f"{path} has the value {', '.join(map(str, wrong[:10]))}, but the classes are {_ranges(known)} and void is "
        f"{void}; correct the label; of a folder data set, classes.txt must have a line for each value from 0 (where "
        "the names begin at 1, put a line - before them, as 0 is then no class), and dataset.void may list others"
    )


def different_sizes(label_path: Path, label: Size, image_path: Path, image: Size) -> str:
    """Say that an image and its label do not fit; sizes are (height, width)."""
    return (
        f"{label_path} is {label[1]} x {label[0]} pixels, but its image {image_path.name} is "
        f"{image[1]} x {image[0]}; they must agree"
    )


def _ranges(values: list[int]) -> str:
    """Write sorted numbers as `0 to 18`, or one by one where they have gaps."""
    if values and values == list(range(values[0], values[-1] + 1)):
        return f"{values[0]} to {values[-1]}"
    return ", ".join(map(str, values))
