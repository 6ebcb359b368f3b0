"""Cityscapes: leftImg8bit/<split>/<city>/*_leftImg8bit.png and gtFine/<split>/<city>/*_gtFine_labelIds.png. No torch.

Its labels hold 34 ids, of which 19 are trained and evaluated; where `_labelTrainIds` files exist, they are read.
An id is <city>_<sequence>_<frame>.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rrn.config import IGNORE_INDEX, Dataset
from rrn.data.decoding import DataError
from rrn.data.formats.base import Color, Layout, require_folder

TRAINED: dict[str, tuple[int, Color]] = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
"""Class in the order of the train ids -> label id and color, from the data set's public definition."""

LABEL_IDS = 34
IMAGE, LABEL = "_leftImg8bit.png", "_gtFine_{kind}.png"
HINT = (
    "put leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip into DIR and run "
    "`python -m rrn.data cityscapes --root DIR`, see docs/data.md"
)


@dataclass(frozen=True)
class Cityscapes(Layout):
    """Cityscapes; splits are its folders: train, val.

    Attributes:
        kind: labelIds, or labelTrainIds.
    """

    kind: str

    @classmethod
    def open(cls, data: Dataset, root: Path, hint: str) -> Cityscapes:
        """Look which labels there are.

        Raises:
            DataError: the folders of images or labels are missing, or some but not all labels have train ids.
        """
        for name in ("leftImg8bit", "gtFine"):
            require_folder(root / name, "dataset.path", f"{hint}{HINT}")
        ready, raw = (
            sum(1 for _ in (root / "gtFine").glob(f"*/*/*{LABEL.format(kind=kind)}"))
            for kind in ("labelTrainIds", "labelIds")
        )
        if 0 < ready < raw:
            raise DataError(
                f"{root / 'gtFine'} has {ready} labels of train ids and {raw} of label ids: make the missing ones, or "
                "delete the *_labelTrainIds.png, which are not needed"
            )
        if ready:
            meaning = {index: index for index in range(len(TRAINED))} | {255: IGNORE_INDEX}
        else:
            meaning = dict.fromkeys(range(LABEL_IDS), IGNORE_INDEX)
            meaning |= {value: index for index, (value, _) in enumerate(TRAINED.values())}
        kind = "labelTrainIds" if ready else "labelIds"
        return cls(root, tuple(TRAINED), meaning, tuple(c for _, c in TRAINED.values()), f"{hint}{HINT}", kind)

    def ids(self, split: str) -> list[str]:
        """Return the sorted ids of all images of a split."""
        folder = self.root / "leftImg8bit" / split
        found = sorted(path.name.removesuffix(IMAGE) for path in folder.glob(f"*/*{IMAGE}"))
        if not found:
            raise DataError(f"the split {split!r} is empty: no */*{IMAGE} in {folder}; {self.hint}")
        return found

    def image_path(self, split: str, name: str) -> Path:
        """Return leftImg8bit/<split>/<city>/<id>_leftImg8bit.png."""
        return self.root / "leftImg8bit" / split / _city(name) / f"{name}{IMAGE}"

    def label_path(self, split: str, name: str) -> Path:
        """Return gtFine/<split>/<city>/<id>_gtFine_labelIds.png, or _labelTrainIds where there are such."""
        return self.root / "gtFine" / split / _city(name) / f"{name}{LABEL.format(kind=self.kind)}"


def _city(name: str) -> str:
    return name.split("_", 1)[0]
