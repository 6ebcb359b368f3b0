"""What an annotation tool exported: classes, and images whose labels are drawn when they are asked for. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rrn.config import IGNORE_INDEX
from rrn.data import file_formats
from rrn.data.decoding import DataError, Pixels, Size

BACKGROUND = "background"
"""Class of the pixels that no polygon and no brush covers."""
SPLITS = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
"""Other names of the usual splits."""
Color = tuple[int, int, int]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Annotated:
    """An image, and its label if it has one.

    Attributes:
        name: id, one of its own.
        image: its file.
        draw: size (height, width) of the image -> label, uint8 [H, W], index of a class or IGNORE_INDEX; raises a
            DataError where the label does not fit. None: nobody labeled the image.
        split: in which the export has it; empty if it has none.
    """

    name: str
    image: Path
    draw: Callable[[Size], Pixels] | None = None
    split: str = ""


@dataclass(frozen=True)
class Source:
    """An export.

    Attributes:
        classes: their names, in the order of their indices.
        images: with their labels.
    """

    classes: tuple[str, ...]
    images: tuple[Annotated, ...]


def split_name(word: str) -> str:
    """Return what we call a split, as `val` for `valid`, `validation` and `val2017`."""
    plain = word.lower().rstrip("0123456789").rstrip("_-")
    return SPLITS.get(plain, plain)


def image_id(path: str) -> str:
    """Return the id of an image: its path without ending, folders joined to the name."""
    return "_".join(PurePosixPath(path).with_suffix("").parts)


def image_files(folder: Path) -> dict[str, Path]:
    """Return the images in a folder and its folders: path without ending, from there -> file.

    Raises:
        DataError: there is no such folder, or two files differ in their ending alone.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: the images are looked for there; name theirs with --images")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        key = path.relative_to(folder).with_suffix("").as_posix()
        if file_formats.has_suffix(path) and path.is_file() and not path.name.startswith("."):
            if key in found:
                raise DataError(f"{path} and {found[key].name} have one name: remove one of them")
            found[key] = path
    return found


def find_image(name: str, folders: Iterable[Path]) -> Path:
    """Return the file of an image that an export names, in the first folder that has it.

    Raises:
        DataError: none has it.
    """
    places = list(folders)
    for folder in places:
        for candidate in (folder / name, folder / PurePosixPath(name).name):
            if candidate.is_file():
                return candidate
    raise DataError(f"the image {name} is in none of {', '.join(map(str, places))}; name its folder with --images")


def paint(masks: Sequence[tuple[int, Mask]], size: Size, background: int) -> Pixels:
    """Return a label of masks, of which the smaller lies on top; what none covers is background.

    Args:
        masks: index of the class, and bool [H, W]; of equal ones, the later lies on top.
        size: of the label.
        background: index of its class.
    """
    label = np.full(size, background, np.uint8, order="F")  # as pycocotools lays out its masks
    for index, mask in sorted(masks, key=lambda entry: np.count_nonzero(entry[1]), reverse=True):
        np.copyto(label, np.uint8(index), where=mask)
    return np.ascontiguousarray(label)


def of_colors(picture: Image.Image, path: Path, indices: Mapping[Color, int], table: str) -> Pixels:
    """Return the label that a picture in colors is, uint8 [H, W].

    Args:
        picture: of any kind of pixels that has colors.
        path: its file, for messages.
        indices: color -> index of the class, or IGNORE_INDEX.
        table: where the colors stand, for messages.

    Raises:
        DataError: a color is not in the table.
    """
    colors = np.asarray(picture.convert("RGB"), dtype=np.int64) @ np.array([1 << 16, 1 << 8, 1])
    found, place = np.unique(colors, return_inverse=True)
    known = {red << 16 | green << 8 | blue: index for (red, green, blue), index in indices.items()}
    if strange := [value for value in found.tolist() if value not in known]:
        first = strange[0]
        raise DataError(
            f"{path} has the color {(first >> 16, first >> 8 & 255, first & 255)} in {int((colors == first).sum())} "
            f"pixels ({len(strange)} such colors in all), which is not in {table}; add it there, or export masks "
            "as PNG without smooth edges"
        )
    return np.array([known[value] for value in found.tolist()], np.uint8)[place.reshape(colors.shape)]


def require_size(label: Pixels, path: Path, size: Size) -> Pixels:
    """Return a label that has the size of its image.

    Raises:
        DataError: it has another.
    """
    if label.shape != size:
        height, width = label.shape
        raise DataError(f"{path} is {width} x {height} pixels, but its image is {size[1]} x {size[0]}; they must agree")
    return label


def index_of(names: Sequence[str], void: Iterable[str] = ()) -> dict[str, int]:
    """Return name -> index of the class, IGNORE_INDEX for those that are none."""
    none = set(void)
    kept = [name for name in dict.fromkeys(names) if name not in none]
    return {name: index for index, name in enumerate(kept)} | dict.fromkeys(none, IGNORE_INDEX)
