"""Images of one split by their place in a list: the list in arrays, the pixels decoded when asked for or once for all.

Workers of a loader read through this: 100,000 ids are no 100,000 objects that each of them copies. No torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from rrn.data import cache, files
from rrn.data.files import Pixels, Size
from rrn.data.sets import ImageSet


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
            (`dataset.cache`); else each is decoded when it is asked for. The pixels are the same.

    Attributes:
        ids: as above.

    Raises:
        DataError: with `kept`, if an image or label is missing or wrong, or there is no place for the decoded ones.
    """

    def __init__(
        self, dataset: ImageSet, split: str, ids: Sequence[str], labeled: Iterable[str] = (), kept: bool = False
    ) -> None:
        self.dataset, self.split, self.ids = dataset, split, Ids(ids)
        self._kept = self._decoded(set(labeled)) if kept else None

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
            DataError: the file is missing, unreadable or truncated.
        """
        return self._kept[0][place] if self._kept else self.dataset.image(self.split, self.ids[place])

    def pair(self, place: int) -> tuple[Pixels, Pixels]:
        """Return an image and its label, as `ImageSet.pair` does; only to be read, and only of `labeled` ones.

        Raises:
            DataError: one of the files is missing or wrong, or they do not fit.
        """
        if self._kept is None:
            return self.dataset.pair(self.split, self.ids[place])
        images, labels = self._kept
        return images[place], labels[place]

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
        state = hashlib.sha256(repr((kind, data.size, meaning)).encode())
        for name in self.ids:
            paths = {"image": data.image_path(split, name)}
            if name in labeled:
                paths["label"] = data.label_path(split, name)
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
        raise files.unreadable(error, path, what) from error
    return f"{path} {found.st_size} {found.st_mtime_ns}\n".encode(errors="surrogateescape")
