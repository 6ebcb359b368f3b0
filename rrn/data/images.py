"""Images of one split by their place in a list: the list in arrays, the pixels decoded when asked for or once for all.

Workers of a loader read through this: 100,000 ids are no 100,000 objects that each of them copies. A file that changes
between two reads is refused, so that no run learns from two states of its data. No torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from rrn.data import cache, decoding
from rrn.data.decoding import DataError, Pixels, Size
from rrn.data.image_set import ImageSet

ABSENT = (-1, -1)
"""State of a file that cannot be looked at."""


class Ids(Sequence[str]):
    """A list of strings as their bytes, one behind the other, and where each begins.

    A process that looks at a Python object writes into it (its count of references), so that the page it lies in
    becomes a copy of its own; it also sends objects to others one by one. Arrays have neither cost.

    Args:
        names: the strings, in their order.
    """

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        self._bytes = b"".join(encoded)
        self._starts = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(name) for name in encoded], out=self._starts[1:])

    def __len__(self) -> int:
        """Return the number of ids."""
        return len(self._starts) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[str, ...]: ...

    def __getitem__(self, place: int | slice) -> str | tuple[str, ...]:
        """Return the id at a place, or those of a slice.

        Raises:
            IndexError: there is no such place.
        """
        if isinstance(place, slice):
            return tuple(self[i] for i in range(*place.indices(len(self))))
        if not -len(self) <= place < len(self):
            raise IndexError(f"place {place} of {len(self)} ids")
        place %= len(self)
        return self._bytes[self._starts[place] : self._starts[place + 1]].decode("utf-8", "surrogateescape")


class Images:
    """Images of one split, and the labels of some of them, by their place in a list of ids.

    Args:
        dataset: where they lie.
        split: name of the folder or list.
        ids: of the images, in this order.
        labeled: those of `ids` whose labels may be read; of others, no label is looked at.
        kept: whether to decode all of them now, once for all processes and stages, into files of `dataset.decoded`
            (`loading.cache`); else each is decoded when it is asked for, and must still be the file that it is now,
            which length and time of the last change tell. The pixels are the same.

    Attributes:
        ids: as above.

    Raises:
        DataError: with `kept`, if an image or label is missing or wrong, or there is no place for the decoded ones.
    """

    def __init__(
        self, dataset: ImageSet, split: str, ids: Sequence[str], labeled: Iterable[str] = (), kept: bool = False
    ) -> None:
        self.dataset, self.split, self.ids = dataset, split, Ids(ids)
        with_labels = set(labeled)
        self._kept = self._decoded(with_labels) if kept else None
        self._states = {} if kept else {"image": self._state("image"), "label": self._state("label", with_labels)}

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def size(self, place: int) -> Size:
        """Return (height, width) of an image; decodes nothing.

        Raises:
            DataError: the file is missing or no image.
        """
        return self._kept[0].size(place) if self._kept else self.dataset.shape(self.split, self.ids[place])

    def image(self, place: int) -> Pixels:
        """Return an image, RGB, uint8 [H, W, 3], only to be read.

        Raises:
            DataError: the file is missing, unreadable or truncated, or has changed.
        """
        if self._kept:
            return self._kept[0][place]
        with self._unchanged(place, "image"):
            return self.dataset.image(self.split, self.ids[place])

    def pair(self, place: int) -> tuple[Pixels, Pixels]:
        """Return an image and its label, as `ImageSet.pair` does; only to be read, and only of `labeled` ones.

        Raises:
            DataError: one of the files is missing or wrong, or has changed, or they do not fit.
        """
        if self._kept:
            images, labels = self._kept
            return images[place], labels[place]
        with self._unchanged(place, "image", "label"):
            return self.dataset.pair(self.split, self.ids[place])

    def _path(self, kind: str, name: str) -> Path:
        find = self.dataset.image_path if kind == "image" else self.dataset.label_path
        return find(self.split, name)

    def _state(self, kind: str, wanted: set[str] | None = None) -> NDArray[np.int64]:
        """Return length and time of all images or labels, int64 [N, 2]; `ABSENT` where not `wanted` or not there."""
        states = [ABSENT if wanted is not None and name not in wanted else self._now(kind, name) for name in self.ids]
        return np.array(states, dtype=np.int64).reshape(-1, 2)

    def _now(self, kind: str, name: str) -> tuple[int, int]:
        """Return length and time of a file as it is now, `ABSENT` if it cannot be looked at."""
        try:
            found = self._path(kind, name).stat()
        except (DataError, OSError):
            return ABSENT
        return found.st_size, found.st_mtime_ns

    @contextmanager
    def _unchanged(self, place: int, *kinds: str) -> Iterator[None]:
        """Let files be read; afterwards, also where that failed, they must be those of the beginning.

        Raises:
            DataError: one is not.
        """
        try:
            yield
        finally:
            for kind in kinds:
                self._require_same(kind, place)

    def _require_same(self, kind: str, place: int) -> None:
        """Raise a DataError if a file is not that of the beginning."""
        name = self.ids[place]
        now = self._now(kind, name)
        if now == tuple(self._states[kind][place].tolist()):
            return
        what = "cannot be found any more" if now == ABSENT else "has changed"
        raise DataError(
            f"{kind} {self._where(kind, name)} ({name!r}) {what} since this run began to read it: put it back as it "
            "was and give the same command again, which goes on from the last checkpoint; if the data set is meant "
            "to change, `dvc repro` begins anew with it"
        )

    def _where(self, kind: str, name: str) -> str:
        """Say where a file lies, or, where a layout has to look for it and finds none, where it should."""
        try:
            return str(self._path(kind, name))
        except DataError:
            return f"of {self.split!r} in {self.dataset.root}"

    def _decoded(self, labeled: set[str]) -> tuple[cache.Decoded, cache.Decoded]:
        """Return all images, and all labels, 0 x 0 pixels where an image is not `labeled`."""
        data, split = self.dataset, self.split
        nothing = np.zeros((0, 0), dtype=np.uint8)

        def images() -> Iterator[Pixels]:
            return (data.image(split, name) for name in self.ids)

        def labels() -> Iterator[Pixels]:
            return (data.pair(split, name)[1] if name in labeled else nothing for name in self.ids)

        both = []
        for kind, wanted, arrays, channels in (("images", set[str](), images, (3,)), ("labels", labeled, labels, ())):
            name, state = self._identity(kind, wanted)
            both.append(cache.decoded(data.decoded, name, state, len(self), arrays, channels))
        return both[0], both[1]

    def _identity(self, kind: str, labeled: set[str]) -> tuple[str, bytes]:
        """Return the name of a file of decoded pixels, which says of which images, and a digest of their state."""
        data, split = self.dataset, self.split
        meaning = sorted(data.layout.meaning.items()) if kind == "labels" else None
        which = hashlib.sha256(repr((kind, str(data.root), split)).encode(errors="surrogateescape"))
        state = hashlib.sha256(repr((kind, data.size, meaning, data.exif)).encode())
        for name in self.ids:
            kinds = ("image", "label") if name in labeled else ("image",)
            paths = {kind: self._path(kind, name) for kind in kinds}
            which.update(f"{len(paths)} {name}\n".encode(errors="surrogateescape"))
            for what, path in paths.items():
                state.update(_status(path, what))
        return f"{kind}-{which.hexdigest()[:16]}.pixels", which.digest() + state.digest()


def _status(path: Path, what: str) -> bytes:
    """Return what shows that a file is still the same: where it lies, its bytes and when it was written.

    Raises:
        DataError: it cannot be looked at.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise decoding.unreadable(error, path, what) from error
    return f"{path} {found.st_size} {found.st_mtime_ns}\n".encode(errors="surrogateescape")
