"""An export as a folder data set: images/<split>, labels/<split> and classes.txt, all of it or nothing. No torch."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from rrn.annotations.source import Annotated, Source, index_of
from rrn.config import IGNORE_INDEX
from rrn.data import decoding, palette
from rrn.data.decoding import DataError, Pixels
from rrn.data.formats import class_list
from rrn.runtime import atomic_io

SHOWN = 5
"""Problems that a message names; the others are counted."""


def write_data_set(
    source: Source, splits: Mapping[str, str], out: Path, void: Sequence[str], linked: bool
) -> pd.DataFrame:
    """Write a folder data set, and return what is in it.

    An image of train without a label stays unlabeled. Labels get a palette, so that they can be looked at.

    Args:
        source: what was exported.
        splits: id -> split.
        out: a folder that does not exist, or is empty.
        void: names of classes that are none.
        linked: whether images are links to where they are; else copies.

    Returns:
        A line for each split: images, labeled, and the share of each class and of void among its labels' pixels, in
        per cent.

    Raises:
        DataError: the folder holds something, classes make no sense, or files do not fit: then nothing is written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is not empty: remove it, or name another folder")
    _require_ids(source.images)
    index = _classes(source, void)
    with atomic_io.folder(out) as folder:
        counts = _write(source, splits, folder, index, linked)
        names = [name for name, value in index.items() if value != IGNORE_INDEX]
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        class_list.read_class_list(folder / "classes.txt", "")
    return _summary(source, splits, counts, names)


def _require_ids(images: Sequence[Annotated]) -> None:
    if not images:
        raise DataError("the export holds no image")
    if twice := [name for name, count in Counter(image.name for image in images).items() if count > 1]:
        paths = [str(image.image) for image in images if image.name == twice[0]]
        raise DataError(f"{' and '.join(paths)} would have one id, {twice[0]}: rename one ({len(twice)} such)")


def _classes(source: Source, void: Sequence[str]) -> dict[str, int]:
    """Return name -> index in the labels that are written, IGNORE_INDEX for what is void."""
    if unknown := [name for name in void if name not in source.classes]:
        raise DataError(f"--void: {unknown[0]!r} is no class of the export, which has {', '.join(source.classes)}")
    if len(source.classes) - len(void) > IGNORE_INDEX:
        raise DataError(f"the export has {len(source.classes)} classes; at most {IGNORE_INDEX} fit into 8-bit labels")
    return index_of(source.classes, void)


def _write(
    source: Source, splits: Mapping[str, str], folder: Path, index: Mapping[str, int], linked: bool
) -> dict[str, np.ndarray]:
    """Write images and labels; return split -> pixels by value, int64 [256]."""
    table = np.full(256, IGNORE_INDEX, np.uint8)
    table[: len(source.classes)] = [index[name] for name in source.classes]
    counts = {split: np.zeros(256, np.int64) for split in sorted(set(splits.values()))}
    problems: list[str] = []
    for image in tqdm(source.images, "importing", disable=None):
        split = splits[image.name]
        try:
            label = _label(image, split)
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


def _label(image: Annotated, split: str) -> Pixels | None:
    """Return the label of an image; None if it has none, as only images of train may."""
    width, height = decoding.open_image(image.image, decode=False).size
    if image.draw:
        return image.draw((height, width))
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
