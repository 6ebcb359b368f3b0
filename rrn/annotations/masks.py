"""Masks as PNG, one for each image: those of CVAT and labelme, and any with a table of colors. No torch."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from rrn.annotations.source import (
    Annotated,
    Color,
    Source,
    image_files,
    image_id,
    of_colors,
    require_size,
    split_name,
)
from rrn.config import IGNORE_INDEX
from rrn.data import decoding
from rrn.data.decoding import DataError, Pixels, Size
from rrn.data.formats import class_list

IMAGES = "JPEGImages"
MASKS = ("SegmentationClassPNG", "SegmentationClass")
"""Folders of VOC's tree, which CVAT and labelme follow; older labelme has arrays in the second, newer PNG."""
MARKS = ("", "_mask", "_label")
"""What a mask may be called beyond the name of its image."""
Read = Callable[[Path], Pixels]


def read_cvat(source: Path, images: Path | None = None) -> Source:
    """Read CVAT's "Segmentation mask 1.1": labelmap.txt, SegmentationClass/, ImageSets/, and JPEGImages/ if saved.

    Raises:
        DataError: what is wrong, and where.
    """
    table = source / "labelmap.txt"
    colors = dict(_labelmap(table))
    names = list(dict.fromkeys(colors.values()))
    index = {color: names.index(name) for color, name in colors.items()}
    found = _paired(source, images or source / IMAGES, partial(_of_cvat, index, list(colors.values()), table))
    return Source(tuple(names), tuple(found))


def _labelmap(path: Path) -> Iterator[tuple[Color, str]]:
    """Yield color and name of each line of CVAT's labelmap.txt."""
    for number, line in _lines(path, "export with it from CVAT"):
        name, *rest = line.rsplit(":", 3)
        yield _color(path, number, rest[0].split(",") if len(rest) == 3 else []), name


def _of_cvat(index: Mapping[Color, int], names: list[str], table: Path, path: Path) -> Pixels:
    """Return the label of a mask in colors, or of a gray one, whose values count the lines of labelmap.txt."""
    mask = decoding.open_file(path, "label")
    if mask.mode != "L":
        return of_colors(mask, path, index, str(table))
    of_line = np.array(list(index.values()), np.uint8)
    values = np.asarray(mask)
    if values.max(initial=0) >= len(of_line):
        raise DataError(f"{path} has the value {values.max()}, but {table} has {len(names)} classes, from 0")
    return of_line[values]


def read_labelme(source: Path, images: Path | None = None) -> Source:
    """Read what labelme's labelme2voc.py writes, and other palettes: class_names.txt, a mask and an image each.

    Raises:
        DataError: what is wrong, and where.
    """
    names = class_list.read_class_list(source / "class_names.txt", "labelme2voc.py writes it")
    meaning = class_list.meaning(names) | {IGNORE_INDEX: IGNORE_INDEX}
    found = _paired(source, images or source / IMAGES, partial(_of_palette, meaning))
    return Source(tuple(name for name in names if name != class_list.VOID), tuple(found))


def _of_palette(meaning: Mapping[int, int], path: Path) -> Pixels:
    return decoding.indices(decoding.open_label(path), path, meaning, None)


def read_colors(source: Path, images: Path | None = None, table: Path | None = None) -> Source:
    """Read masks in colors of one's own: images/, labels/ or masks/, and a table with lines `name,red,green,blue`.

    Folders named as splits, in both, are splits. A class may have several colors.

    Raises:
        DataError: what is wrong, and where.
    """
    path = table or source / "colors.csv"
    colors = dict(_table(path))
    names = list(dict.fromkeys(colors.values()))
    index = {color: names.index(name) for color, name in colors.items()}
    found = _paired(source, images or source / "images", partial(_of_table, index, path), ("labels", "masks"), True)
    return Source(tuple(names), tuple(found))


def _of_table(index: Mapping[Color, int], table: Path, path: Path) -> Pixels:
    return of_colors(decoding.open_file(path, "label"), path, index, str(table))


def _table(path: Path) -> Iterator[tuple[Color, str]]:
    """Yield color and name of each line; a header is passed over."""
    for number, line in _lines(path, "name the table of colors with --colors"):
        name, *color = next(csv.reader([line], skipinitialspace=True))
        if number > 1 or "".join(color).strip().isdigit():
            yield _color(path, number, color), name.strip()


def _lines(path: Path, hint: str) -> Iterator[tuple[int, str]]:
    """Yield the numbers and contents of the lines of a text that are not empty and no comment."""
    if not path.is_file():
        raise DataError(f"{path} is missing, which says what the colors of the masks mean; {hint}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text: {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            yield number, line.strip()


def _color(path: Path, number: int, words: list[str]) -> Color:
    values = [int(word) for word in words if word.strip().isdigit()]
    if len(values) != 3 or len(words) != 3 or max(values) > 255:
        raise DataError(f"{path}, line {number}: no color: three numbers from 0 to 255 are expected behind the name")
    return values[0], values[1], values[2]


def _paired(
    source: Path, images: Path, read: Read, folders: tuple[str, ...] = MASKS, has_splits: bool = False
) -> Iterator[Annotated]:
    """Yield the images of a folder with their masks.

    Args:
        source: where the folder of masks is.
        images: of the images.
        read: returns the label of a mask.
        folders: names that the folder of masks may have; the first that holds one counts.
        has_splits: whether the first folder of a path is the split; else the lists of ImageSets/ say it.

    Raises:
        DataError: there is no mask at all, or one without an image.
    """
    masks = next((found for name in folders if (found := _masks(source / name))), {})
    if not masks:
        raise DataError(f"{source} holds no PNG in {' or '.join(folders)}: is it the unpacked export?")
    listed = {} if has_splits else _listed(source / "ImageSets" / "Segmentation")
    for key, image in image_files(images).items():
        path = next((masks.pop(f"{key}{mark}") for mark in MARKS if f"{key}{mark}" in masks), None)
        draw = partial(_fitting, read, path) if path else None
        folder, _, name = key.partition("/")
        in_split = has_splits and bool(name)
        split = split_name(folder) if in_split else listed.get(key, "")
        yield Annotated(image_id(name if in_split else key), image, draw, split)
    if masks:
        first = next(iter(masks.values()))
        raise DataError(
            f"{first} has no image in {images} ({len(masks)} such masks); export images too, or name --images"
        )


def _masks(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.png"))}


def _fitting(read: Read, path: Path, size: Size) -> Pixels:
    return require_size(read(path), path, size)


def _listed(folder: Path) -> dict[str, str]:
    """Return id -> split of the lists of CVAT; `default` is none."""
    lists = [path for path in sorted(folder.glob("*.txt")) if path.stem != "default"]
    return {name.strip(): split_name(path.stem) for path in lists for name in path.read_text("utf-8").splitlines()}
