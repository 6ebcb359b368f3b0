"""Data sets in a folder: images/<split>/<id>.jpg, labels/<split>/<id>.png, classes.txt. No torch.

A label image holds one value per pixel, which classes.txt names line by line. A train image without a label file is an
unlabeled image; a further folder images/<unlabeled> may hold more of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rrn.config import IGNORE_INDEX, Dataset
from rrn.data import file_formats
from rrn.data.decoding import DataError
from rrn.data.formats import class_list
from rrn.data.formats.base import Layout, require_folder

HINT = "set dataset.path to a folder with classes.txt, images/<split> and labels/<split>"


@dataclass(frozen=True)
class Folder(Layout):
    """A data set of one's own.

    Attributes:
        train: name of the train split, which `unlabeled` adds to.
        unlabeled: name of a folder of images/ without labels, or None.
    """

    public: ClassVar[bool] = False
    train: str
    unlabeled: str | None

    @classmethod
    def open(cls, data: Dataset, root: Path, hint: str) -> Folder:
        """Read classes.txt.

        Raises:
            DataError: it is missing or makes no sense, or a void value is a class.
        """
        entries = class_list.read_class_list(root / "classes.txt", f"{hint}{HINT}")
        void = data.void or ()
        for value in void:
            if value < len(entries) and entries[value] != class_list.VOID:
                raise DataError(
                    f"dataset.void: {value} is also the class {entries[value]!r} of {root / 'classes.txt'}; if {value} "
                    f"is no class, put a line - before {entries[value]!r}, which moves the names behind it one value "
                    "up; else remove the value here"
                )
        meaning = class_list.meaning(entries) | dict.fromkeys(void, IGNORE_INDEX)
        classes = tuple(name for name in entries if name != class_list.VOID)
        return cls(root, classes, meaning, (), f"{hint}{HINT}", data.train, data.unlabeled)

    def ids(self, split: str) -> list[str]:
        """Return the sorted ids (file names without ending) of all images of a split."""
        found: dict[str, Path] = {}
        for further in self._folders(split)[1:]:
            require_folder(further, "dataset.unlabeled", self.hint)
        for folder in self._folders(split):
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                if not file_formats.has_suffix(path) or path.name.startswith(".") or path.is_dir():
                    continue
                if path.stem in found:
                    raise DataError(f"{path} and {found[path.stem]} have one id: remove one of them")
                found[path.stem] = path
        if not found:
            raise DataError(
                f"the split {split!r} is empty: no image in {self.root / 'images' / split} "
                f"({', '.join(file_formats.SUFFIXES)}); {self.hint}; "
                "dataset.train, val and test name the splits, and test may equal val"
            )
        return sorted(found)

    def image_path(self, split: str, name: str) -> Path:
        """Return the file of an image; train images may lie in the folder of unlabeled ones."""
        for path in _candidates(self._folders(split), name):
            if path.is_file() or path.is_symlink():
                return path
        raise DataError(f"{self.root / 'images' / split / name}.jpg (or .png) is missing; {self.hint}")

    def label_path(self, split: str, name: str) -> Path:
        """Return labels/<split>/<id>.png."""
        return self.root / "labels" / split / f"{name}.png"

    def _folders(self, split: str) -> list[Path]:
        further = [self.unlabeled] if split == self.train and self.unlabeled else []
        return [self.root / "images" / name for name in (split, *further)]


def _candidates(folders: list[Path], name: str) -> Iterator[Path]:
    """Yield what the image of an id may be; folders are listed only where no usual ending leads to it."""
    for folder, suffix in itertools.product(folders, file_formats.SUFFIXES):
        yield from (folder / f"{name}{written}" for written in (suffix, suffix.upper(), f".{suffix[1:].capitalize()}"))
    for path in itertools.chain.from_iterable(folder.glob("*") for folder in folders):
        if path.stem == name and file_formats.has_suffix(path):
            yield path
