"""Roboflow's "semantic segmentation masks": train/, valid/ and test/, each with `_classes.csv`. No torch."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from rrn.annotations.source import (
    Annotated,
    Source,
    image_files,
    index_of,
    of_values,
    open_mask,
    read_text,
    require_size,
    split_name,
    table_of,
)
from rrn.data.decoding import DataError, Pixels, Size

CLASSES = "_classes.csv"
MARK = "_mask"
"""At the end of the name of a mask, beside its image."""


def read_roboflow(source: Path, images: Path | None = None) -> Source:
    """Read the folders of an export; each has its own values.

    Args:
        source: the unpacked export, or one of its folders.
        images: not for this kind: they lie beside the masks.

    Raises:
        DataError: what is wrong, and where.
    """
    if images:
        raise DataError("--images is not for Roboflow, whose images lie beside the masks")
    folders = (
        [source] if (source / CLASSES).is_file() else [path for path in sorted(source.glob("*/")) if image_files(path)]
    )
    if not folders:
        raise DataError(f"{source} holds no {CLASSES}, and no folder of images: is it the unpacked export?")
    tables = {folder: _values(folder / CLASSES) for folder in folders}
    index = index_of([name for values in tables.values() for name in values.values()])
    found: list[Annotated] = []
    for folder, values in tables.items():
        meaning = {value: index[name] for value, name in values.items()}
        found += _images(folder, meaning, split_name(folder.name) if folder != source else "")
    return Source(tuple(index), tuple(found))


def _values(path: Path) -> dict[int, str]:
    """Return value -> name of a class."""
    text = read_text(path, "it says what the values of the masks mean; export with it from Roboflow")
    _, *lines = [line for line in csv.reader(text.splitlines(), skipinitialspace=True) if line] or [[]]
    if not lines or not all(len(line) == 2 and line[0].strip().isdecimal() and int(line[0]) < 256 for line in lines):
        raise DataError(f"{path} is no table of Roboflow: a header `Pixel Value, Class` and lines `0, background`")
    return table_of(path, ((int(value), name.strip()) for value, name in lines))


def _images(folder: Path, meaning: Mapping[int, int], split: str) -> Iterator[Annotated]:
    files = image_files(folder)
    masks = {key.removesuffix(MARK): path for key, path in files.items() if key.endswith(MARK)}
    for key, path in files.items():
        if not key.endswith(MARK):
            mask = masks.pop(key, None)
            draw = partial(_label, mask, meaning, folder / CLASSES) if mask else None
            yield Annotated(key.replace("/", "_"), path, draw, split)
    if masks:
        first = next(iter(masks.values()))
        raise DataError(f"{first} is a mask without an image ({len(masks)} such); export it again")


def _label(path: Path, meaning: Mapping[int, int], table: Path, size: Size) -> Pixels:
    return require_size(of_values(open_mask(path), path, meaning, table), path, size)
