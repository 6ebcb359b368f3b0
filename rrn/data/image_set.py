"""A data set as the rest of the package sees it, whatever its kind: ids, images, labels. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rrn.config import Settings
from rrn.data import decoding
from rrn.data.decoding import DataError, Exif, Pixels, Size
from rrn.data.formats import class_choice
from rrn.data.formats.base import Color, Layout, require_folder
from rrn.data.formats.camvid import CamVid
from rrn.data.formats.cityscapes import Cityscapes
from rrn.data.formats.folder import Folder
from rrn.data.formats.voc import VOC
from rrn.runtime import places

KINDS: dict[str, type[Layout]] = {"folder": Folder, "voc": VOC, "cityscapes": Cityscapes, "camvid": CamVid}
"""`dataset.kind` -> how the files of such a data set lie."""
EMBEDDED = "data/shapes"
"""The data set that ships, which `data.dvc` tracks."""
RENDERED = "build/shapes"
"""The same with more val and test scenes, which the stage `render` makes."""


@dataclass(frozen=True)
class ImageSet:
    """A data set of any kind.

    Attributes:
        root: the folder that `dataset.path` names, absolute.
        layout: where its files lie and what its labels mean.
        size: (height, width) that everything is resized to when read; None: as it is.
        train: name of the train split; likewise `val` and `test`.
        exif: what becomes of images whose EXIF data say that they are stored rotated: `dataset.exif`.
        made_of: a line for each class that `dataset.classes` makes, and for void; empty: as the data set has them.
        drawn: the colors in which the data set's authors draw its classes, whatever `dataset.classes` makes of them.
        decoded: folder of the files of decoded images (`loading.cache`); `RRN_SCRATCH` names its parent (default:
            `.scratch` in the repository).
    """

    root: Path
    layout: Layout
    size: Size | None
    train: str
    val: str
    test: str
    exif: Exif = "refuse"
    made_of: str = ""
    drawn: tuple[Color, ...] = ()
    decoded: Path = Path(".scratch", "decoded")

    @classmethod
    def open(cls, settings: Settings, root: Path) -> ImageSet:
        """Find the data set of `settings`; a relative path counts from the repository `root`.

        Raises:
            DataError: its folder is missing or holds no such data set, or not the classes of `dataset.classes`.
        """
        data = settings.dataset
        path = (root / data.path).resolve()
        made = {root / EMBEDDED: "run `dvc pull data.dvc`, or ", root / RENDERED: "run `dvc repro render`, or "}
        hint = next((advice for folder, advice in made.items() if path == folder.resolve()), "")
        require_folder(path, "dataset.path", f"{hint}set it to where the data set lies, see docs/data.md")
        layout, names = KINDS[data.kind].open(data, path, hint), (data.train, data.val, data.test)
        decoded, made_of, drawn = places.scratch(root / ".scratch") / "decoded", "", layout.colors
        if data.classes is not None:
            as_it_is, layout = layout, class_choice.choose(layout, data.classes)
            made_of = class_choice.described(as_it_is, data.classes)
        return cls(path, layout, data.size, *names, data.exif, made_of, drawn, decoded)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.layout.classes

    def ids(self, split: str) -> list[str]:
        """Return the ids of all images of a split, each once.

        Raises:
            DataError: there is none.
        """
        return self.layout.ids(split)

    def labeled_ids(self, split: str) -> list[str]:
        """Return the ids of the images of a split that have a label file.

        Raises:
            DataError: the split is empty.
        """
        return [name for name in self.ids(split) if self.label_path(split, name).is_file()]

    def require_labels(self, split: str) -> list[str]:
        """Return the ids of a split whose images must all have labels (val, test).

        Raises:
            DataError: lists the missing files, ten of them by name.
        """
        ids = self.ids(split)
        missing = [p for p in (self.label_path(split, name) for name in ids) if not p.is_file()]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(ids)} images of {split!r} have no label file; "
                f"add them or remove the images:{listed(missing)}"
            )
        return ids

    def image_path(self, split: str, name: str) -> Path:
        """Return the file of an image.

        Raises:
            DataError: there is none, where a layout has to look for it.
        """
        return self.layout.image_path(split, name)

    def label_path(self, split: str, name: str) -> Path:
        """Return where the label of an image lies, or would lie."""
        return self.layout.label_path(split, name)

    def shape(self, split: str, name: str) -> Size:
        """Return (height, width) of an image as `image` will give it; decodes nothing where EXIF data are not applied.

        Raises:
            DataError: the file is missing or no image.
        """
        if self.size is not None:
            return self.size
        return decoding.image_size(self.image_path(split, name), self.exif)

    def image(self, split: str, name: str) -> Pixels:
        """Return an image, RGB, uint8 [H, W, 3].

        Raises:
            DataError: the file is missing, unreadable or truncated.
        """
        return decoding.colors(decoding.open_image(self.image_path(split, name), self.exif), self.size)

    def label(self, split: str, name: str) -> Pixels:
        """Return a label, uint8 [H, W]: class indices, IGNORE_INDEX where void.

        Raises:
            DataError: the file is missing, unreadable, in colors, or holds a value without meaning.
        """
        path = self.label_path(split, name)
        return decoding.indices(decoding.open_label(path), path, self.layout.meaning, self.size)

    def pair(self, split: str, name: str) -> tuple[Pixels, Pixels]:
        """Return image [H, W, 3] and label [H, W], both uint8, of one size.

        Raises:
            DataError: as `image` and `label`, and if the two files differ in size.
        """
        image_path, label_path = self.image_path(split, name), self.label_path(split, name)
        image, label = decoding.open_image(image_path, self.exif), decoding.open_label(label_path)
        if image.size != label.size:
            raise DataError(decoding.different_sizes(label_path, label.size[::-1], image_path, image.size[::-1]))
        labels = decoding.indices(label, label_path, self.layout.meaning, self.size)
        return decoding.colors(image, self.size), labels


def listed(things: Sequence[object], most: int = 10) -> str:
    """List things, one a line, the first of them by name."""
    more = f"\n  and {len(things) - most} more" if len(things) > most else ""
    return "".join(f"\n  {thing}" for thing in things[:most]) + more
