"""What an image or a label file holds, whatever the settings: its values are judged by `verification`. No torch."""

from __future__ import annotations

import errno
import hashlib
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from rrn.data import decoding
from rrn.data.decoding import DataError, Exif, Size
from rrn.data.formats.base import Color

FEW_COLORS = 256
JPEG = b"\xff\xd8"


@dataclass(frozen=True)
class Facts:
    """What one file holds.

    Attributes:
        digest: SHA-256 of its contents, hexadecimal; empty if they could not be read.
        problem: why it cannot be used; empty if it can.
        size: (height, width) of a usable image or label.
        histogram: value -> number of pixels, of a usable label.
        colors: of a label in colors that has few of them.
        palette: value -> color, of the values that a label with a palette holds; empty if it only counts up in gray.
    """

    digest: str = ""
    problem: str = ""
    size: Size = (0, 0)
    histogram: Mapping[int, int] = field(default_factory=dict)
    colors: tuple[Color, ...] = ()
    palette: Mapping[int, Color] = field(default_factory=dict)


def examine(pair: tuple[Path, Path | None], exif: Exif) -> tuple[Facts, Facts | None]:
    """Read and decode an image and its label, if it has one; facts of what cannot be read say why."""
    image, label = pair
    of_label = None if label is None else _examined(label, "label", _label)
    return _examined(image, "image", partial(_image, exif=exif)), of_label


def _examined(path: Path, kind: str, look: Callable[[Path, bytes, str], Facts]) -> Facts:
    """Read one file and look into it."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise OSError(errno.EINVAL, "it is no file")
        if status.st_size > decoding.MOST_BYTES:
            return Facts(problem=f"{kind} {path} has {status.st_size} bytes, more than any image; replace it")
        with path.open("rb") as file:
            contents = file.read()
    except OSError as error:
        return Facts(problem=str(decoding.unreadable(error, path, kind)))
    digest = hashlib.sha256(contents).hexdigest()
    try:
        if not contents:
            raise DataError(f"{kind} {path} cannot be read (it has 0 bytes): replace it or remove it")
        return look(path, contents, digest)
    except DataError as error:
        return Facts(digest, str(error))


def _image(path: Path, contents: bytes, digest: str, exif: Exif) -> Facts:
    """Decode all of an image."""
    if contents.startswith(JPEG):
        size = decoding.image_size(path, exif, contents)
        decoding.open_file(path, "image", contents=contents, reduced=True)
        return Facts(digest, size=size)
    image = decoding.open_image(path, exif, contents)
    return Facts(digest, size=(image.height, image.width))


def _label(path: Path, contents: bytes, digest: str) -> Facts:
    """Count the values of a label; of one in colors, list them."""
    try:
        label = decoding.open_label(path, contents)
    except DataError as error:
        return Facts(digest, str(error), colors=_colors(path, contents))
    counts = np.bincount(np.asarray(label, dtype=np.uint8).ravel(), minlength=256)
    histogram = {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    return Facts(digest, size=(label.height, label.width), histogram=histogram, palette=_palette(label, histogram))


def _palette(label: Image.Image, used: Iterable[int]) -> dict[int, Color]:
    """Return the colors of the values that are used."""
    channels = label.getpalette() or []
    colors = list(zip(*[iter(channels)] * 3, strict=False))
    if all(color == (value,) * 3 for value, color in enumerate(colors)):
        return {}
    return {value: colors[value] for value in used if value < len(colors)}


def _colors(path: Path, contents: bytes) -> tuple[Color, ...]:
    """Return the colors of a label that opens as RGB and has few of them."""
    try:
        image = decoding.open_file(path, "label", contents=contents)
    except DataError:
        return ()
    if image.mode not in ("RGB", "RGBA"):
        return ()
    counted = image.convert("RGB").getcolors(FEW_COLORS) or []
    return tuple(sorted((c[0], c[1], c[2]) for _, c in counted if isinstance(c, tuple)))
