"""Data sets in a folder: images/<split>/<id>.jpg, labels/<split>/<id>.png, classes.txt.

A label image holds one class index per pixel, in the order of classes.txt, as a grey or palette
PNG. Values that the settings call void become IGNORE_INDEX. A train image without a label file is
an unlabeled image. No torch in here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rrn.config import IGNORE_INDEX, Settings

SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
COLOUR_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
INDEX_MODES = ("1", "L", "P")
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""What PIL raises for files that are no image, truncated, broken inside, or absurdly large."""


class DataError(ValueError):
    """The data on the disk are not as they must be; the message says where and what to do."""


@dataclass(frozen=True)
class Folder:
    """A data set in the folder layout.

    Attributes:
        root: folder of classes.txt, images and labels.
        classes: names; the index of a name is its value in label images.
        void: label values that are no class.
        size: (height, width) that everything is resized to when read; None: as it is.
        train: name of the train split; likewise `val` and `test`.
        hint: what to do where the folder lacks files, for messages.
    """

    root: Path
    classes: tuple[str, ...]
    void: tuple[int, ...] = (IGNORE_INDEX,)
    size: tuple[int, int] | None = None
    train: str = "train"
    val: str = "val"
    test: str = "test"
    hint: str = "set dataset.path to a folder with classes.txt, images/<split> and labels/<split>"

    @classmethod
    def open(cls, settings: Settings, root: Path) -> Folder:
        """Find the data set of `settings`; a relative path counts from the repository `root`.

        Raises:
            DataError: if the folder or its classes.txt is missing or makes no sense.
        """
        data = settings.dataset
        path = (root / data.path).resolve()
        hint = cls.hint
        if path.is_relative_to(root.resolve()):
            hint = f"run `dvc pull data.dvc`, or {hint}"
        if not path.is_dir():
            raise DataError(f"dataset.path: there is no folder {path}; {hint}")
        classes = _classes(path / "classes.txt", hint)
        for value in data.void:
            if value < len(classes):
                raise DataError(
                    f"dataset.void: {value} is also the class {classes[value]!r} of "
                    f"{path / 'classes.txt'}; remove the name there or the value here"
                )
        return cls(path, classes, data.void, data.size, data.train, data.val, data.test, hint)

    def ids(self, split: str) -> list[str]:
        """Return the sorted ids (file names without ending) of all images of a split.

        Raises:
            DataError: if there is none, or two files have one id.
        """
        folder = self.root / "images" / split
        found: dict[str, Path] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix not in SUFFIXES or path.name.startswith("."):
                continue
            if path.stem in found:
                raise DataError(f"{path} and {found[path.stem].name} have one id: remove one of them")
            found[path.stem] = path
        if not found:
            raise DataError(
                f"the split {split!r} is empty: no .jpg or .png in {folder}; {self.hint}; "
                "dataset.train, val and test name the splits, and test may equal val"
            )
        return sorted(found)

    def labeled_ids(self, split: str) -> list[str]:
        """Return the sorted ids of the images of a split that have a label file.

        Raises:
            DataError: if the split is empty.
        """
        return [name for name in self.ids(split) if self.label_path(split, name).is_file()]

    def require_labels(self, split: str) -> list[str]:
        """Return the sorted ids of a split whose images must all have labels (val, test).

        Raises:
            DataError: lists the missing files, ten of them by name.
        """
        ids = self.ids(split)
        missing = [p for p in (self.label_path(split, name) for name in ids) if not p.is_file()]
        if missing:
            shown = "".join(f"\n  {path}" for path in missing[:10])
            more = f"\n  and {len(missing) - 10} more" if len(missing) > 10 else ""
            raise DataError(
                f"{len(missing)} of {len(ids)} images of {split!r} have no label file; "
                f"add them or remove the images:{shown}{more}"
            )
        return ids

    def image_path(self, split: str, name: str) -> Path:
        """Return the file of an image.

        Raises:
            DataError: if there is none.
        """
        stem = self.root / "images" / split / name
        for suffix in SUFFIXES:
            path = stem.with_name(name + suffix)
            if path.is_file():
                return path
        raise DataError(f"{stem}.jpg (or .png) is missing; {self.hint}")

    def label_path(self, split: str, name: str) -> Path:
        """Return where the label of an image lies, or would lie."""
        return self.root / "labels" / split / f"{name}.png"

    def shape(self, split: str, name: str) -> tuple[int, int]:
        """Return (height, width) of an image as `image` will give it; decodes nothing.

        Raises:
            DataError: if the file is missing or no image.
        """
        if self.size is not None:
            return self.size
        width, height = _open(self.image_path(split, name), "image", decode=False).size
        return height, width

    def image(self, split: str, name: str) -> NDArray[np.uint8]:
        """Return an image, RGB, uint8 [H, W, 3].

        Raises:
            DataError: if the file is missing, unreadable or truncated.
        """
        return self._colours(self._open_image(split, name))

    def label(self, split: str, name: str) -> NDArray[np.uint8]:
        """Return a label, uint8 [H, W]: class indices, IGNORE_INDEX where void.

        Raises:
            DataError: if the file is missing, unreadable, in colours, or holds a value that is
                neither a class nor void.
        """
        return self._indices(self._open_label(split, name), self.label_path(split, name))

    def pair(self, split: str, name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return image [H, W, 3] and label [H, W], both uint8, of one size.

        Raises:
            DataError: as `image` and `label`, and if the two files differ in size.
        """
        image, label = self._open_image(split, name), self._open_label(split, name)
        if image.size != label.size:
            raise DataError(
                f"{self.label_path(split, name)} is {label.width} x {label.height} pixels, but its "
                f"image {self.image_path(split, name).name} is {image.width} x {image.height}; "
                "they must agree"
            )
        return self._colours(image), self._indices(label, self.label_path(split, name))

    def checksum(self) -> str:
        """Return 16 hexadecimal digits that change with any file that this data set reads, and with its settings."""
        contents = hashlib.sha256(repr((self.classes, self.void, self.size)).encode())
        for split in dict.fromkeys((self.train, self.val, self.test)):
            for name in self.ids(split):
                for path in (self.image_path(split, name), self.label_path(split, name)):
                    if path.is_file():
                        file = hashlib.sha256(path.read_bytes()).hexdigest()
                        contents.update(f"{path.relative_to(self.root).as_posix()} {file}\n".encode())
        return contents.hexdigest()[:16]

    def _open_image(self, split: str, name: str) -> Image.Image:
        path = self.image_path(split, name)
        image = _open(path, "image")
        if image.mode not in COLOUR_MODES:
            raise DataError(f"{path} has pixels of mode {image.mode}; save it as 8-bit RGB or grey")
        return image

    def _open_label(self, split: str, name: str) -> Image.Image:
        path = self.label_path(split, name)
        label = _open(path, "label")
        if label.mode not in INDEX_MODES:
            raise DataError(
                f"{path} has pixels of mode {label.mode}, but a label is one class index per "
                "pixel: convert it to a grey or palette PNG of 8 bits"
            )
        return label

    def _colours(self, image: Image.Image) -> NDArray[np.uint8]:
        image = image.convert("RGB")
        if self.size is not None and image.size != self.size[::-1]:
            image = image.resize(self.size[::-1], Image.Resampling.BILINEAR)
        return np.array(image, dtype=np.uint8)

    def _indices(self, label: Image.Image, path: Path) -> NDArray[np.uint8]:
        values = np.asarray(label, dtype=np.uint8)
        present = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
        wrong = [int(v) for v in present if v >= len(self.classes) and v not in self.void]
        if wrong:
            raise DataError(
                f"{path} has the value {', '.join(map(str, wrong[:10]))}, but the classes of "
                f"classes.txt are 0 to {len(self.classes) - 1} and dataset.void is "
                f"{list(self.void)}; correct the label, or add to classes.txt or dataset.void"
            )
        meaning = np.arange(256, dtype=np.uint8)
        meaning[list(self.void)] = IGNORE_INDEX
        values = meaning[values]
        if self.size is not None and values.shape != self.size:
            resized = Image.fromarray(values).resize(self.size[::-1], Image.Resampling.NEAREST)
            values = np.array(resized, dtype=np.uint8)
        return values


def _classes(path: Path, hint: str) -> tuple[str, ...]:
    """Read the names of the classes, one a line."""
    if not path.is_file():
        raise DataError(f"{path} is missing: it must hold the names of the classes, one a line; {hint}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text: {error}") from error
    names = tuple(line.strip() for line in lines if line.strip())
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        problem = f"names {twice[0]!r} twice" if twice else "is empty"
        raise DataError(f"{path} {problem}: it must hold the names of the classes, one a line, each once")
    if len(names) > IGNORE_INDEX:
        raise DataError(f"{path} names {len(names)} classes; at most {IGNORE_INDEX} fit into 8-bit labels")
    return names


def _open(path: Path, what: str, decode: bool = True) -> Image.Image:
    """Open an image file, and decode it too unless only its size is asked for."""
    try:
        with Image.open(path) as image:
            if decode:
                image.load()
            return image
    except FileNotFoundError as error:
        raise DataError(f"{what} {path} is missing") from error
    except UNREADABLE as error:
        raise DataError(
            f"{what} {path} cannot be read ({error}): it is broken or incomplete; replace it or remove it"
        ) from error
