"""What an annotation tool exported: classes, and images whose labels are drawn when they are asked for. No torch."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rrn.config import IGNORE_INDEX
from rrn.data import decoding, file_formats
from rrn.data.decoding import DataError, Pixels, Size

BACKGROUND = "background"
"""Class of the pixels that no polygon and no brush covers."""
USUAL_SPLITS = ("train", "val", "test")
OTHER_NAMES = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
"""Of the usual splits."""
MOST_CLASSES = 256
"""That a label can be drawn with, before some are made void."""
COLOR_MODES = ("1", "L", "P", "PA", "LA", "RGB", "RGBA")
Color = tuple[int, int, int]
Mask = NDArray[np.bool_]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Annotated:
    """An image, and its label if it has one.

    Attributes:
        name: id, one of its own.
        image: its file.
        draw: size (height, width) of the image -> label, uint8 [H, W], index of a class or IGNORE_INDEX; raises a
            DataError where the label does not fit. None: nobody labeled the image.
        split: in which the export has it; empty if it has none.
        empty: whether it is in the export, with nothing drawn on it: all background, or not labeled yet.
    """

    name: str
    image: Path
    draw: Callable[[Size], Pixels] | None = None
    split: str = ""
    empty: bool = False


@dataclass(frozen=True)
class Source:
    """An export.

    Attributes:
        classes: their names, in the order of their indices.
        images: with their labels.
    """

    classes: tuple[str, ...]
    images: tuple[Annotated, ...]


# ---- Names -------------------------------------------------------------------------------------------------------


def split_name(word: str) -> str:
    """Return what we call a split, as `val` for `valid`, `Validation` and `val2017`; others keep their names."""
    bare = word.lower().rstrip("0123456789").rstrip("_-")
    usual = OTHER_NAMES.get(bare, bare)
    return usual if usual in USUAL_SPLITS else word


def image_id(path: str) -> str:
    """Return the id of an image: its path without ending, folders joined to the name by `_`."""
    whole = PurePosixPath(path.replace("\\", "/"))
    parts = [part for part in whole.with_suffix("").parts if part not in (whole.anchor, "..")]
    return "_".join(parts)


def distinct(images: Sequence[Annotated]) -> tuple[Annotated, ...]:
    """Return images whose ids differ: where splits have the same ids, the split is put before each.

    Raises:
        DataError: there is no image, one file is two images, or two would still have one id.
    """
    if not images:
        raise DataError("the export holds no image")
    if _twice([image.name for image in images]) and all(image.split for image in images):
        images = [replace(image, name=f"{image.split}_{image.name}") for image in images]
    if same := _twice([image.name for image in images]):
        paths = " and ".join(str(image.image) for image in images if image.name == same[0])
        raise DataError(f"{paths} would have one id, {same[0]!r}: rename one ({len(same)} such)")
    if same := _twice([str(image.image) for image in images]):
        raise DataError(f"the export has two images of one file, {same[0]} ({len(same)} such)")
    if hidden := [image for image in images if not image.name or image.name.startswith(".")]:
        raise DataError(f"{hidden[0].image} would be hidden under the id {hidden[0].name!r}: rename it")
    return tuple(images)


def _twice(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def index_of(names: Sequence[str], void: Iterable[str] = ()) -> dict[str, int]:
    """Return name -> index of the class, IGNORE_INDEX for those that are none."""
    none = set(void)
    kept = [name for name in dict.fromkeys(names) if name not in none]
    return {name: index for index, name in enumerate(kept)} | dict.fromkeys(none, IGNORE_INDEX)


def table_of(path: Path, entries: Iterable[tuple[Key, str]]) -> dict[Key, str]:
    """Return color or value -> name of the class.

    Raises:
        DataError: two names have one.
    """
    found: dict[Key, str] = {}
    for key, name in entries:
        if found.setdefault(key, name) != name:
            raise DataError(f"{path} gives {key} to {found[key]!r} and to {name!r}: masks cannot tell them apart")
    return found


# ---- Files -------------------------------------------------------------------------------------------------------


def read_text(path: Path, hint: str) -> str:
    """Return a text in UTF-8, with or without a mark of its encoding.

    Raises:
        DataError: it is missing, which `hint` explains, or no such text.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing; {hint}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text ({error}); save it as UTF-8") from error


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        DataError: it is none.
    """
    try:
        return json.loads(read_text(path, "export it again"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is no JSON ({error}); export it again") from error


def image_files(folder: Path) -> dict[str, Path]:
    """Return the images in a folder and its folders: path without ending, from there -> file.

    Raises:
        DataError: there is no such folder, or two files differ in their ending alone.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: the images are looked for there; name theirs with --images")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        key = place.with_suffix("").as_posix()
        if file_formats.has_suffix(path) and path.is_file() and not any(part[0] == "." for part in place.parts):
            if key in found:
                raise DataError(f"{path} and {found[key].name} have one name: remove one of them")
            found[key] = path
    return found


def find_image(names: Sequence[str], folders: Iterable[Path]) -> Path:
    """Return the file of an image that an export names: the whole path in any folder, else the end of it.

    Args:
        names: that it may have, the likeliest first.
        folders: in which it may lie.

    Raises:
        DataError: it lies in none.
    """
    places = list(dict.fromkeys(folders))
    for name in names:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        for start in range(len(parts)):
            for folder in places:
                if (folder / Path(*parts[start:])).is_file():
                    return folder / Path(*parts[start:])
    raise DataError(f"the image {names[0]} is in none of {', '.join(map(str, places))}; name its folder with --images")


def open_mask(path: Path) -> Image.Image:
    """Open a mask of any kind of pixels.

    Raises:
        DataError: it is no PNG, broken, or has more than 8 bits.
    """
    mask = decoding.open_file(path, "label")
    if mask.format != "PNG":
        raise DataError(f"{path} is a {mask.format}, but masks are PNG: others may not keep values; export it again")
    if mask.mode not in COLOR_MODES:
        raise DataError(f"{path} has pixels of mode {mask.mode}: masks have 8 bits; export it again")
    return mask


# ---- Labels ------------------------------------------------------------------------------------------------------


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


def of_colors(mask: Image.Image, path: Path, indices: Mapping[Color, int], table: Path) -> Pixels:
    """Return the label that a mask in colors is, uint8 [H, W].

    Args:
        mask: of `open_mask`.
        path: its file, for messages.
        indices: color -> index of the class, or IGNORE_INDEX.
        table: where the colors stand, for messages.

    Raises:
        DataError: a color is not in the table.
    """
    pixels = np.asarray(mask.convert("RGB"), dtype=np.int64) @ np.array([1 << 16, 1 << 8, 1])
    known = {red << 16 | green << 8 | blue: index for (red, green, blue), index in indices.items()}
    named = {value: f"the color {(value >> 16, value >> 8 & 255, value & 255)}" for value in np.unique(pixels).tolist()}
    return _looked_up(pixels, known, named, path, f"{table}; add it there, or export masks without smooth edges")


def of_values(mask: Image.Image, path: Path, indices: Mapping[int, int], table: Path) -> Pixels:
    """Return the label that a gray or palette mask is, uint8 [H, W]; see `of_colors`."""
    if mask.mode not in decoding.INDEX_MODES:
        raise DataError(
            f"{path} has pixels of mode {mask.mode}, but a value of {table} is expected in each; export it again"
        )
    pixels = np.asarray(mask, dtype=np.int64)
    named = {value: f"the value {value}" for value in np.unique(pixels).tolist()}
    return _looked_up(pixels, indices, named, path, str(table))


def _looked_up(
    pixels: NDArray[np.int64], known: Mapping[int, int], named: Mapping[int, str], path: Path, table: str
) -> Pixels:
    """Return the indices of pixels; `named` says what each of their values is called."""
    if strange := [value for value in named if value not in known]:
        count = int((pixels == strange[0]).sum())
        raise DataError(
            f"{path} has {named[strange[0]]} in {count} pixels ({len(strange)} such), which is not in {table}"
        )
    found, place = np.unique(pixels, return_inverse=True)
    return np.array([known[value] for value in found.tolist()], np.uint8)[place.reshape(pixels.shape)]


def require_size(label: Pixels, path: Path, size: Size) -> Pixels:
    """Return a label that has the size of its image.

    Raises:
        DataError: it has another.
    """
    if label.shape != size:
        height, width = label.shape
        raise DataError(f"{path} is {width} x {height} pixels, but its image is {size[1]} x {size[0]}; they must agree")
    return label


def is_background(name: str) -> bool:
    """Return whether a class is what nothing covers, as `_background_` of labelme."""
    return re.fullmatch(r"_*background_*", name, re.IGNORECASE) is not None
