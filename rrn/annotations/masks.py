"""Masks as PNG, one for each image: those of CVAT and labelme, and any with a table of colors. No torch."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from rrn.annotations.source import (
    USUAL_SPLITS,
    Annotated,
    Color,
    Source,
    image_files,
    of_colors,
    of_values,
    open_mask,
    read_text,
    require_size,
    split_name,
    table_of,
)
from rrn.config import IGNORE_INDEX
from rrn.data.decoding import DataError, Pixels, Size
from rrn.data.formats import class_list

IMAGES = "JPEGImages"
MASKS = ("SegmentationClassPNG", "SegmentationClass")
"""Folders of VOC's tree, which CVAT and labelme follow; older labelme has arrays in the second, newer PNG."""
MARKS = ("", "_mask", "_label")
"""What a mask may be called beyond the name of its image."""
Read = Callable[[Path], Pixels]


def read_cvat(source: Path, images: Path | None = None) -> Source:
    """Read CVAT's "Segmentation mask 1.1": labelmap.txt, SegmentationClass/, JPEGImages/, and the lists of ImageSets/.

    Raises:
        DataError: what is wrong, and where.
    """
    table = source / "labelmap.txt"
    names, indices = _classes(table, _labelmap(table))
    listed = _listed(source / "ImageSets" / "Segmentation")
    return Source(names, tuple(_paired(source, images or source / IMAGES, partial(_of_cvat, table, indices), listed)))


def _labelmap(path: Path) -> Iterator[tuple[Color, str]]:
    """Yield color and name of each line of CVAT's labelmap.txt."""
    for number, line in _lines(path, "it says what the colors of the masks mean; export with it from CVAT"):
        name, *rest = line.rsplit(":", 3)
        yield _color(path, number, rest[0].split(",") if len(rest) == 3 else []), name


def _of_cvat(table: Path, indices: Mapping[Color, int], path: Path) -> Pixels:
    """Return the label of a mask in colors, or of a gray one, whose values count the lines of labelmap.txt."""
    mask = open_mask(path)
    if mask.mode == "L":
        return of_values(mask, path, dict(enumerate(indices.values())), table)
    return of_colors(mask, path, indices, table)


def read_labelme(source: Path, images: Path | None = None) -> Source:
    """Read what labelme's labelme2voc.py writes, and other palettes: class_names.txt, a mask and an image each.

    Raises:
        DataError: what is wrong, and where.
    """
    table = source / "class_names.txt"
    entries = class_list.read_class_list(table, "labelme2voc.py writes it")
    names = tuple(name for name in entries if name != class_list.VOID)
    meaning = class_list.meaning(entries) | {IGNORE_INDEX: IGNORE_INDEX}
    return Source(names, tuple(_paired(source, images or source / IMAGES, partial(_of_palette, table, meaning))))


def _of_palette(table: Path, meaning: Mapping[int, int], path: Path) -> Pixels:
    return of_values(open_mask(path), path, meaning, table)


def read_colors(source: Path, images: Path | None = None, colors: Path | None = None) -> Source:
    """Read masks in colors of one's own: images/, labels/ or masks/, and a table with lines `name,red,green,blue`.

    Folders named train, val or test, in both, are splits. A class may have several colors.

    Raises:
        DataError: what is wrong, and where.
    """
    table = colors or source / "colors.csv"
    names, indices = _classes(table, _table(table))
    read = partial(_of_table, table, indices)
    return Source(names, tuple(_paired(source, images or source / "images", read, folders=("labels", "masks"))))


def _of_table(table: Path, indices: Mapping[Color, int], path: Path) -> Pixels:
    return of_colors(open_mask(path), path, indices, table)


def _table(path: Path) -> Iterator[tuple[Color, str]]:
    """Yield color and name of each line; a header is passed over."""
    lines = list(_lines(path, "it says what the colors of the masks mean; name it with --colors"))
    for place, (number, line) in enumerate(lines):
        name, *color = next(csv.reader([line], skipinitialspace=True))
        if place or any(word.strip().isdecimal() for word in color):
            yield _color(path, number, color), name.strip()


def _classes(path: Path, entries: Iterable[tuple[Color, str]]) -> tuple[tuple[str, ...], dict[Color, int]]:
    """Return the names of classes, and color -> index."""
    table = table_of(path, entries)
    names = tuple(dict.fromkeys(table.values()))
    return names, {color: names.index(name) for color, name in table.items()}


def _lines(path: Path, hint: str) -> Iterator[tuple[int, str]]:
    """Yield the numbers and contents of the lines of a text that are not empty and no comment."""
    for number, line in enumerate(read_text(path, hint).splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            yield number, line.strip()


def _color(path: Path, number: int, words: Sequence[str]) -> Color:
    values = [int(word) for word in words if word.strip().isdecimal()]
    if len(values) != 3 or len(words) != 3 or max(values) > 255:
        raise DataError(f"{path}, line {number}: no color: three numbers from 0 to 255 are expected behind the name")
    return values[0], values[1], values[2]


def _paired(
    source: Path,
    images: Path,
    read: Read,
    listed: Mapping[str, str] | None = None,
    folders: tuple[str, ...] = MASKS,
) -> Iterator[Annotated]:
    """Yield the images of a folder with their masks.

    Args:
        source: where the folder of masks is.
        images: of the images.
        read: returns the label of a mask.
        listed: path of an image without ending -> split; None: a first folder named as a split is one.
        folders: names that the folder of masks may have; the first that holds one counts.

    Raises:
        DataError: there is no mask at all, or one without an image.
    """
    masks = next((image_files(source / name) for name in folders if (source / name).is_dir()), {})
    if not masks:
        raise DataError(f"{source} holds no mask in {' or '.join(folders)}: is it the unpacked export?")
    files = image_files(images)
    for key, image in files.items():
        own = [f"{key}{mark}" for mark in MARKS if not mark or f"{key}{mark}" not in files]
        path = next((masks.pop(name) for name in own if name in masks), None)
        draw = partial(_fitting, read, path) if path else None
        folder, _, rest = key.partition("/")
        split = listed.get(key, "") if listed is not None else split_name(folder) if rest else ""
        in_split = listed is None and split in USUAL_SPLITS
        name = (rest if in_split else key).replace("/", "_")
        yield Annotated(name, image, draw, split if in_split or listed is not None else "")
    if masks:
        first = next(iter(masks.values()))
        raise DataError(
            f"{first} has no image in {images} ({len(masks)} such masks); export images too, or name --images"
        )


def _fitting(read: Read, path: Path, size: Size) -> Pixels:
    return require_size(read(path), path, size)


def _listed(folder: Path) -> dict[str, str]:
    """Return id -> split of the lists of CVAT; `default` is none.

    Raises:
        DataError: an image is in two splits, or a list is no text.
    """
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.txt")):
        for line in read_text(path, "").splitlines() if path.stem != "default" else ():
            split, name = split_name(path.stem), line.strip()
            if name and found.setdefault(name, split) != split:
                raise DataError(f"{folder}: {name} is in {found[name]} and in {split}; remove one of the lists")
    return found
