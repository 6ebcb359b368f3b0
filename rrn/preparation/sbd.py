"""The labels of SBD, MATLAB files, -> PNG files beside VOC 2012; and the list of train images that both make. No torch.

SBD (Hariharan et al. 2011) labels images of VOC 2012 that VOC itself did not. The list of 10,582 is SBD's train and val
and VOC's train, without VOC's val.
"""

from __future__ import annotations

import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from tqdm import tqdm

from rrn.data.decoding import DataError, Pixels
from rrn.data.formats.voc import CLASSES, FURTHER, HINT, LISTS, color
from rrn.data.id_lists import read_list
from rrn.runtime import atomic_io

AGAIN = "delete its folder and run `python -m rrn.data voc --root DIR` again"
PALETTE = [channel for index in range(256) for channel in color(index)]


def convert(source: Path, place: Path) -> None:
    """Write the labels of SBD that are not there yet as SegmentationClassAug/<id>.png.

    Images of VOC's own train and val are left out; their labels are VOC's.

    Args:
        source: folder of SBD: train.txt, val.txt, cls/<id>.mat.
        place: folder of VOC 2012.

    Raises:
        DataError: a list or a label is missing, or a label is not as SBD's are.
    """
    listed = {name for split in ("train", "val") for name in read_list(source / f"{split}.txt", AGAIN)}
    own = {name for split in ("train", "val") for name in read_list(place / LISTS / f"{split}.txt", HINT)}
    folder = place / FURTHER
    for name in tqdm(sorted(listed - own - stems(folder)), f"labels of SBD -> {FURTHER}"):
        label = Image.fromarray(_label(source / "cls" / f"{name}.mat"))
        label.putpalette(PALETTE)
        with atomic_io.atomic_path(folder / f"{name}.png") as unfinished:
            label.save(unfinished, format="PNG")


def train_images(place: Path) -> list[str]:
    """Return the sorted ids of the images that have a label of VOC's train or in SegmentationClassAug, without val."""
    train, val = (read_list(place / LISTS / f"{split}.txt", HINT) for split in ("train", "val"))
    return sorted((stems(place / FURTHER) | set(train)) - set(val))


def stems(folder: Path) -> set[str]:
    """Return the ids of the PNG files of a folder, none if there is no folder; unfinished ones do not count."""
    return {path.stem for path in folder.glob("[!.]*.png")}


def _label(path: Path) -> Pixels:
    """Return the classes, uint8 [H, W], of a label of SBD."""
    try:
        values = loadmat(BytesIO(path.read_bytes()))["GTcls"][0]["Segmentation"][0]
    except (MatReadError, zlib.error, OSError, ValueError, TypeError, LookupError) as error:
        raise DataError(f"{path} is no label of SBD (no GTcls.Segmentation: {error!r}); {AGAIN}") from error
    if values.ndim != 2 or values.dtype != np.uint8 or values.max(initial=0) >= len(CLASSES):
        raise DataError(
            f"{path} is no label of SBD: {values.dtype} of shape {values.shape}, largest value "
            f"{values.max(initial=0)}, expected uint8 [H, W] up to {len(CLASSES) - 1}; {AGAIN}"
        )
    return values
