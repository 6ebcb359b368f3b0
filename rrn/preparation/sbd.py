"""The labels of SBD, MATLAB files, -> PNG files beside VOC 2012; and the list of train images that both make. No torch.

SBD (Hariharan et al. 2011) labels images of VOC 2012 that VOC itself did not. The list of 10,582 is SBD's train and val
and VOC's train, without VOC's val.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from rrn.data.decoding import DataError, Pixels, read_list
from rrn.data.formats.voc import CLASSES, FURTHER, HINT, LISTS, colour
from rrn.runtime import atomic_io

INSTALL = "pip install scipy -c requirements.lock"
AGAIN = "delete its folder and run `python -m rrn.data voc --root DIR` again"
PALETTE = [channel for index in range(256) for channel in colour(index)]

Reader = Callable[[BytesIO], dict[str, Any]]


def matlab_reader() -> Reader:
    """Return the function that reads MATLAB files.

    Raises:
        DataError: scipy is not installed.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise DataError(
            "the labels of SBD are MATLAB files, and scipy, which reads them, is not installed: run "
            f"`{INSTALL}` (or install rrn with the extra `sbd`), then this command again"
        ) from error
    return loadmat


def convert(source: Path, place: Path, without: set[str]) -> None:
    """Write the labels of SBD that are not there yet as SegmentationClassAug/<id>.png.

    Args:
        source: folder of SBD: train.txt, val.txt, cls/<id>.mat.
        place: folder of VOC 2012.
        without: ids to leave out: VOC's train and val, whose labels are its own.

    Raises:
        DataError: scipy, a list or a label is missing, or a label is not as SBD's are.
    """
    read = matlab_reader()
    listed = {name for split in ("train", "val") for name in read_list(source / f"{split}.txt", AGAIN)}
    folder = place / FURTHER
    folder.mkdir(exist_ok=True)
    for name in tqdm(sorted(listed - without - stems(folder)), desc=f"labels of SBD -> {FURTHER}", unit=" files"):
        label = Image.fromarray(_label(source / "cls" / f"{name}.mat", read))
        label.putpalette(PALETTE)
        with atomic_io.file(folder / f"{name}.png") as unfinished:
            label.save(unfinished, format="PNG")


def train_images(place: Path) -> list[str]:
    """Return the sorted ids of the images that have a label of VOC's train or in SegmentationClassAug, without val."""
    train, val = (read_list(place / LISTS / f"{split}.txt", HINT) for split in ("train", "val"))
    return sorted((stems(place / FURTHER) | set(train)) - set(val))


def stems(folder: Path) -> set[str]:
    """Return the ids of the PNG files of a folder, none if there is no folder; unfinished ones do not count."""
    return {path.stem for path in folder.glob("[!.]*.png")}


def _label(path: Path, read: Reader) -> Pixels:
    """Return the classes [H, W] of a label of SBD."""
    from scipy.io.matlab import MatReadError

    try:
        contents = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"the label {path} is missing, though SBD lists it; {AGAIN}") from error
    try:
        values = read(BytesIO(contents))["GTcls"][0]["Segmentation"][0]
    except (MatReadError, zlib.error, OSError, ValueError, TypeError, LookupError, NotImplementedError) as error:
        raise DataError(f"{path} is no label of SBD (no GTcls.Segmentation: {error!r}); {AGAIN}") from error
    if values.ndim != 2 or values.dtype != np.uint8 or values.max(initial=0) >= len(CLASSES):
        raise DataError(
            f"{path} is no label of SBD: {values.dtype} of shape {values.shape}, largest value "
            f"{values.max(initial=0)}, expected uint8 [H, W] up to {len(CLASSES) - 1}; {AGAIN}"
        )
    return values
