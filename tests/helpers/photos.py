"""Runs of a few steps to label with, and images of several sizes to be labeled."""

import numpy as np
import pytest
import tiny
from PIL import Image

from rrn import train

SIZES = {"a": (20, 28), "deep/b": (33, 47), "deep/c": (97, 64)}


def finished_runs(folder, rows=("rrn", "cps_cutmix")):
    """Train, in a new repository, the warmup 1of4-0 and rows, whose folders are called as they are; return it."""
    folder = tiny.repository(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("RRN_RESUME", raising=False)
        tiny.warm_up(folder)
        for row in rows:
            list(train.run("train", "1of4", row, 0, folder / row, {"train": {"steps": 3}}))
    return folder


def save_photo(path, height=20, width=28, seed=0, **options):
    """Save a smooth picture of random colors and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((width, height)).save(path, **options)
    return path


def save_photos(folder):
    """Save a picture of each of SIZES, and return the folder."""
    for seed, (name, (height, width)) in enumerate(SIZES.items()):
        save_photo(folder / f"{name}.png", height, width, seed)
    return folder
