"""CamVid as the SegNet tutorial lays it out: train/<id>.png, trainannot/<id>.png, and so for val and test. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rrn.config import IGNORE_INDEX, Dataset
from rrn.data.decoding import DataError
from rrn.data.formats.base import Color, Layout

COLORS: dict[str, Color] = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign_symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
VOID = 11
HINT = "`python -m rrn.data camvid --root DIR` fetches and lays out everything, see docs/data.md"


@dataclass(frozen=True)
class CamVid(Layout):
    """CamVid, 11 classes, void 11; splits are its folders: train, val, test."""

    @classmethod
    def open(cls, data: Dataset, root: Path, hint: str) -> CamVid:
        """Find the folder that holds train and trainannot: DIR or DIR/CamVid.

        Raises:
            DataError: there is none.
        """
        place = next((p for p in (root, root / "CamVid") if (p / "trainannot").is_dir()), None)
        if place is None:
            raise DataError(f"dataset.path: {root} holds no CamVid (no trainannot in it); {hint}{HINT}")
        meaning = {index: index for index in range(len(COLORS))} | {VOID: IGNORE_INDEX}
        return cls(place, tuple(COLORS), meaning, tuple(COLORS.values()), f"{hint}{HINT}")

    def ids(self, split: str) -> list[str]:
        """Return the sorted ids of all images of a split."""
        found = sorted(path.stem for path in (self.root / split).glob("*.png"))
        if not found:
            raise DataError(f"the split {split!r} is empty: no .png in {self.root / split}; {self.hint}")
        return found

    def image_path(self, split: str, name: str) -> Path:
        """Return <split>/<id>.png."""
        return self.root / split / f"{name}.png"

    def label_path(self, split: str, name: str) -> Path:
        """Return <split>annot/<id>.png."""
        return self.root / f"{split}annot" / f"{name}.png"
