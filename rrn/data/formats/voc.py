"""PASCAL VOC 2012 with the further labels of SBD: 20 classes and background, void 255. No torch.

DIR/VOCdevkit/VOC2012/      (DIR may also be one of these two folders)
JPEGImages/<id>.jpg
SegmentationClass/<id>.png         the fine labels: 1,464 of train, 1,449 of val
SegmentationClassAug/<id>.png      labels of SBD as PNG: `python -m rrn.data voc`, or the community's ready-made folder
ImageSets/Segmentation/train.txt val.txt train_aug.txt
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rrn.config import IGNORE_INDEX, Dataset
from rrn.data.decoding import DataError
from rrn.data.formats.base import Color, Layout
from rrn.data.id_lists import RepeatedIds, read_list

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
FINE, FURTHER = "SegmentationClass", "SegmentationClassAug"
LISTS = Path("ImageSets", "Segmentation")
TRAIN_AUG = ("train_aug", "trainaug")
"""Names under which the list of the 10,582 train images is found."""
HINT = "`python -m rrn.data voc --root DIR` fetches and lays out everything, see docs/data.md"


@dataclass(frozen=True)
class VOC(Layout):
    """VOC 2012; splits are the names of the lists: train_aug, train, val.

    Attributes:
        own: ids whose labels are VOC's own, in SegmentationClass; none if there is only the ready-made folder.
    """

    own: frozenset[str]

    @classmethod
    def open(cls, data: Dataset, root: Path, hint: str) -> VOC:
        """Find the folder of VOC 2012 at or below `root`.

        Raises:
            DataError: there are no images.
        """
        place = voc_folder(root)
        if place is None:
            raise DataError(f"dataset.path: {root} holds no VOC 2012 (no JPEGImages in it); {hint}{HINT}")
        meaning = {index: index for index in range(len(CLASSES))} | {255: IGNORE_INDEX}
        lists = [place / LISTS / f"{split}.txt" for split in ("train", "val")] if (place / FINE).is_dir() else []
        own = frozenset(name for path in lists for name in _listed(path))
        return cls(place, CLASSES, meaning, tuple(map(color, range(len(CLASSES)))), f"{hint}{HINT}", own)

    def ids(self, split: str) -> list[str]:
        """Return the ids of ImageSets/Segmentation/<split>.txt."""
        names = TRAIN_AUG if split in TRAIN_AUG else (split,)
        paths = [self.root / LISTS / f"{name}.txt" for name in names]
        return read_list(next((path for path in paths if path.is_file()), paths[0]), self.hint)

    def image_path(self, split: str, name: str) -> Path:
        """Return JPEGImages/<id>.jpg."""
        return self.root / "JPEGImages" / f"{name}.jpg"

    def label_path(self, split: str, name: str) -> Path:
        """Return the label: VOC's own for an image of VOC's train and val, that of SBD for any other."""
        return self.root / (FINE if name in self.own else FURTHER) / f"{name}.png"

    def finely_annotated(self) -> frozenset[str]:
        """Return the 1,464 images of train.txt: VOC's own labels, while SBD's are coarser."""
        return frozenset(self.ids("train"))


def _listed(path: Path) -> list[str]:
    """Return the ids of a list; what is wrong with it is said where it is read as a split."""
    try:
        return read_list(path, HINT)
    except RepeatedIds as error:
        return error.ids
    except DataError:
        return []


def voc_folder(root: Path) -> Path | None:
    """Return the folder that holds JPEGImages: DIR, DIR/VOC2012 or DIR/VOCdevkit/VOC2012."""
    places = (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012")
    return next((place for place in places if (place / "JPEGImages").is_dir()), None)


def color(index: int) -> Color:
    """Return VOC's color of a class: the bits of its index, spread over red, green and blue from the top."""
    channels = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            channels[channel] |= (index >> (3 * place + channel) & 1) << (7 - place)
    red, green, blue = channels
    return red, green, blue
