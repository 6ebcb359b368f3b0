"""Data sets in a folder: images/<split>/<id>.jpg, labels/<split>/<id>.png, classes.txt. No torch.

A label image holds one class index per pixel, in the order of classes.txt. A train image without a label file is an
unlabeled image; a further folder images/<unlabeled> may hold more of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rrn.config import IGNORE_INDEX, Dataset
from rrn.data import file_formats
from rrn.data.files import CONTROL, DataError
from rrn.data.layouts import Layout, require_folder

RESERVED = {"(all)": "all classes together", "mean": "the mean of the classes", "void": "what counts as no class"}
"""What names of classes mean in tables and figures, which would join such a class with them."""
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
        classes = _classes(root / "classes.txt", f"{hint}{HINT}")
        void = data.void or ()
        for value in void:
            if value < len(classes):
                raise DataError(
                    f"dataset.void: {value} is also the class {classes[value]!r} of "
                    f"{root / 'classes.txt'}; remove the name there or the value here"
                )
        meaning = {index: index for index in range(len(classes))} | dict.fromkeys(void, IGNORE_INDEX)
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
        for folder in self._folders(split):
            if path := _file_of(folder, name):
                return path
        raise DataError(f"{self.root / 'images' / split / name}.jpg (or .png) is missing; {self.hint}")

    def label_path(self, split: str, name: str) -> Path:
        """Return labels/<split>/<id>.png."""
        return self.root / "labels" / split / f"{name}.png"

    def _folders(self, split: str) -> list[Path]:
        """Return the folders of images that make up a split."""
        further = [self.unlabeled] if split == self.train and self.unlabeled else []
        return [self.root / "images" / name for name in (split, *further)]


def _file_of(folder: Path, name: str) -> Path | None:
    """Return the image of an id in a folder; the usual ways to write its ending are tried first."""
    for suffix in file_formats.SUFFIXES:
        for written in (suffix, suffix.upper()):
            path = folder / f"{name}{written}"
            if path.is_file() or path.is_symlink():
                return path
    listed = folder.iterdir() if folder.is_dir() else ()
    return next((path for path in listed if path.stem == name and file_formats.has_suffix(path)), None)


def _classes(path: Path, hint: str) -> tuple[str, ...]:
    """Read the names of the classes, one a line."""
    if not path.is_file():
        raise DataError(f"{path} is missing: it must hold the names of the classes, one a line; {hint}")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text: {error}") from error
    for number, name in enumerate(map(str.strip, lines), 1):
        if name in RESERVED or CONTROL.search(name):
            why = f"stands for {RESERVED[name]} in tables" if name in RESERVED else "holds characters that are not seen"
            raise DataError(f"{path}, line {number}: the name {name!r} {why}; give the class another name")
    names = tuple(line.strip() for line in lines if line.strip())
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        problem = f"names {twice[0]!r} twice" if twice else "is empty"
        raise DataError(f"{path} {problem}: it must hold the names of the classes, one a line, each once")
    if len(names) == 1:
        raise DataError(
            f"{path} names one class, {names[0]!r}: every label would be right, and nothing is learnt; name what else "
            "the images show, too, such as the background"
        )
    if len(names) > IGNORE_INDEX:
        raise DataError(f"{path} names {len(names)} classes; at most {IGNORE_INDEX} fit into 8-bit labels")
    return names
