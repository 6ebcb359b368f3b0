"""Roboflow's "semantic segmentation masks": train/, valid/ and test/, each with `_classes.csv`. No torch."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from rrn.annotations.source import Annotated, Source, image_files, image_id, index_of, require_size, split_name
from rrn.data import decoding
from rrn.data.decoding import DataError, Pixels, Size

CLASSES = "_classes.csv"
MARK = "_mask"
"""At the end of the name of a mask, beside its image."""


def read_roboflow(source: Path, images: Path | None = None) -> Source:
    """Read the folders of an export; a split whose classes differ from the others' has its own values.

    Args:
        source: the unpacked export, or one of its folders.
        images: not used: they lie beside the masks.

    Raises:
        DataError: what is wrong, and where.
    """
    if images:
        raise DataError("--images is not for Roboflow, whose images lie beside the masks")
    tables = {path.parent: _values(path) for path in sorted([*source.glob(CLASSES), *source.glob(f"*/{CLASSES}")])}
    if not tables:
        raise DataError(f"{source} holds no {CLASSES}, nor does a folder in it: is it the unpacked export?")
    index = index_of([name for values in tables.values() for name in values.values()])
    found: list[Annotated] = []
    for folder, values in tables.items():
        meaning = {value: index[name] for value, name in values.items()}
        split = split_name(folder.name) if folder != source else ""
        found += _images(folder, meaning, split)
    return Source(tuple(index), tuple(found))


def _values(path: Path) -> dict[int, str]:
    """Return value -> name of a class."""
    lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines(), skipinitialspace=True))
    entries = [line for line in lines if len(line) == 2 and line[0].strip().isdigit()]
    if len(entries) != len(lines) - 1 or not entries:
        raise DataError(f"{path} is no table of Roboflow: a header `Pixel Value, Class` and lines `0, background`")
    return {int(value): name.strip() for value, name in entries}


def _images(folder: Path, meaning: Mapping[int, int], split: str) -> list[Annotated]:
    files = image_files(folder)
    found = [
        Annotated(image_id(key), path, partial(_label, mask, meaning) if mask else None, split)
        for key, path in files.items()
        if not key.endswith(MARK)
        for mask in [files.get(f"{key}{MARK}")]
    ]
    if alone := [path for key, path in files.items() if key.endswith(MARK) and key.removesuffix(MARK) not in files]:
        raise DataError(f"{alone[0]} is a mask without an image ({len(alone)} such); export it again")
    return found


def _label(path: Path, meaning: Mapping[int, int], size: Size) -> Pixels:
    return require_size(decoding.indices(decoding.open_label(path), path, meaning, None), path, size)
