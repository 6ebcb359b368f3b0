"""What every kind of data set answers: which ids, which files, what the values of a label mean. No torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rrn.config import Dataset
from rrn.data.decoding import DataError

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Layout(ABC):
    """Where the files of one data set lie.

    Attributes:
        root: its folder.
        classes: names; the index of a name is its class.
        meaning: value of a label pixel -> class index or IGNORE_INDEX; any other value is an error.
        colors: of the classes, as its authors draw them; empty: none of its own.
        hint: what to do where files are missing, for messages.
        public: whether others fixed its files and lists, so that a user cannot change them.
    """

    public: ClassVar[bool] = True
    root: Path
    classes: tuple[str, ...]
    meaning: Mapping[int, int]
    colors: tuple[Color, ...]
    hint: str

    @classmethod
    @abstractmethod
    def open(cls, data: Dataset, root: Path, hint: str) -> Layout:
        """Find the files in `root`.

        Args:
            data: its settings.
            root: the folder that `dataset.path` names, absolute; it exists.
            hint: begins the advice of messages about missing files.

        Raises:
            DataError: there is no such data set.
        """

    @abstractmethod
    def ids(self, split: str) -> list[str]:
        """Return the ids of a split, in the order of its list or sorted.

        Raises:
            DataError: there is none.
        """

    @abstractmethod
    def image_path(self, split: str, name: str) -> Path:
        """Return the file of an image.

        Raises:
            DataError: the layout looks for it and does not find it.
        """

    @abstractmethod
    def label_path(self, split: str, name: str) -> Path:
        """Return where the label of an image lies, or would lie."""

    def finely_annotated(self) -> frozenset[str]:
        """Return the ids whose labels are finer than the others', where a data set has both; else none."""
        return frozenset()


def require_folder(path: Path, what: str, hint: str) -> Path:
    """Return a folder that must exist.

    Raises:
        DataError: it does not.
    """
    if not path.is_dir():
        raise DataError(f"{what}: there is no folder {path}; {hint}")
    return path


def require_empty(path: Path) -> None:
    """Refuse to write into a folder that holds something.

    Raises:
        DataError: it does, or is a file.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(f"{path} is not empty: remove it, or name another folder")
