"""An export as a folder data set: images/<split>, labels/<split> and classes.txt, all of it or nothing. No torch."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from rrn.annotations.source import MOST_CLASSES, Annotated, Source, index_of
from rrn.config import IGNORE_INDEX
from rrn.data import decoding, file_formats, palette
from rrn.data.decoding import DataError, Exif, Pixels
from rrn.data.formats import class_list
from rrn.data.formats.base import require_empty
from rrn.runtime import atomic_io

SHOWN = 5
"""Problems that a message names; the others are counted."""


def write_data_set(
    source: Source, splits: Mapping[str, str], out: Path, void: Sequence[str], linked: bool, exif: Exif = "refuse"
) -> pd.DataFrame:
    """Write a folder data set, and return what is in it.

    An image of train without a label stays unlabeled. Labels get a palette, so that they can be looked at.

    Args:
        source: what was exported.
        splits: id -> split.
        out: a folder that does not exist, or is empty.
        void: names of classes that are none.
        linked: whether images are links to where they are; else copies.
        exif: what `dataset.exif` will be, as the sizes of images depend on it.

    Returns:
        A line for each split: images, labeled, and the share of each class and of void among its labels' pixels, in
        per cent.

    Raises:
        DataError: the folder holds something, classes make no sense, or files do not fit: then nothing is written.
    """
    require_empty(out)
    index = _classes(source, void)
    names = [name for name, value in index.items() if value != IGNORE_INDEX]
    with atomic_io.folder(out) as folder:
        counts = _write(source, splits, folder, index, linked, exif)
        (folder / "classes.txt").write_text(_listed(names), encoding="utf-8")
    return _summary(source, splits, counts, names)


def _classes(source: Source, void: Sequence[str]) -> dict[str, int]:
    """Return name -> index in the labels that are written, IGNORE_INDEX for what is void.

    Raises:
        DataError: there are too many, or what is left cannot stand in classes.txt.
    """
    if unknown := [name for name in void if name not in source.classes]:
        raise DataError(f"--void: {unknown[0]!r} is no class of the export, which has {', '.join(source.classes)}")
    if len(source.classes) > MOST_CLASSES:
        raise DataError(f"the export has {len(source.classes)} classes; at most {MOST_CLASSES} fit into 8-bit labels")
    index = index_of(source.classes, void)
    names = tuple(name for name, value in index.items() if value != IGNORE_INDEX)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "classes.txt"
        path.write_text(_listed(names), encoding="utf-8")
        try:
            read = class_list.read_class_list(path, "")
        except DataError as error:
            reason = str(error).replace(str(path), "as classes.txt")
            raise DataError(
                f"the classes {', '.join(map(repr, names))} cannot be kept ({reason}); rename or --void"
            ) from error
    if read != names or class_list.VOID in names:
        odd = [name for name in names if name not in read or name == class_list.VOID]
        raise DataError(
            f"the class {odd[0]!r} has no name that a line of classes.txt can hold; rename it, or --void it"
        )
    return index


def _listed(names: Sequence[str]) -> str:
    return "".join(f"{name}\n" for name in names)


def _write(
    source: Source, splits: Mapping[str, str], folder: Path, index: Mapping[str, int], linked: bool, exif: Exif
) -> dict[str, np.ndarray]:
    """Write images and labels; return split -> pixels by value, int64 [256]."""
    table = np.full(256, IGNORE_INDEX, np.uint8)
    table[: len(source.classes)] = [index[name] for name in source.classes]
    counts = {split: np.zeros(256, np.int64) for split in sorted(set(splits.values()))}
    problems: list[str] = []
    for image in tqdm(source.images, "importing", disable=None):
        split = splits[image.name]
        try:
            label = _label(image, split, exif)
        except DataError as error:
            problems.append(str(error))
            continue
        _place(image, folder / "images" / split, linked)
        if label is not None:
            counts[split] += np.bincount(table[label].ravel(), minlength=256)
            _save(table[label], folder / "labels" / split / f"{image.name}.png", len(source.classes))
    if problems:
        more = f"\nand {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise DataError("\n".join(problems[:SHOWN]) + f"{more}\nNothing was written.")
    return counts


def _label(image: Annotated, split: str, exif: Exif) -> Pixels | None:
    """Return the label of an image that can be read to its end; None if it has none, as only images of train may."""
    if not file_formats.has_suffix(image.image):
        raise DataError(f"{image.image} is not called as an image ({', '.join(file_formats.SUFFIXES)}); rename it")
    size = decoding.image_size(image.image, exif)
    decoding.open_file(image.image, "image", reduced=True)
    if image.draw:
        return image.draw(size)
    if split != "train":
        raise DataError(f"{image.image} has no label, and is in {split}: only images of train may have none")
    return None


def _place(image: Annotated, folder: Path, linked: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{image.name}{image.image.suffix.lower()}"
    if linked:
        target.symlink_to(image.image.resolve())
    else:
        shutil.copyfile(image.image, target)


def _save(label: Pixels, path: Path, classes: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(label)
    picture.putpalette(palette.palette(classes).tobytes())
    picture.save(path)


def _summary(
    source: Source, splits: Mapping[str, str], counts: Mapping[str, np.ndarray], names: Sequence[str]
) -> pd.DataFrame:
    lines = []
    for split, pixels in counts.items():
        inside = [image for image in source.images if splits[image.name] == split]
        total = max(int(pixels.sum()), 1)
        shares = {name: 100 * int(pixels[number]) / total for number, name in enumerate(names)}
        labeled = sum(image.draw is not None for image in inside)
        lines.append(
            {"split": split, "images": len(inside), "labeled": labeled}
            | shares
            | {"void": 100 * pixels[IGNORE_INDEX] / total}
        )
    return pd.DataFrame(lines)
