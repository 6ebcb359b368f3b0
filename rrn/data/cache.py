"""Decoded pixels of a list of images in one file, which all processes map into memory: `loading.cache`. No torch.

Whoever comes first decodes them, under a lock; all others wait for that, and share the pages that the kernel keeps of
the file. The file is trusted only if its end, written last, fits what it must hold: the pixels of these files in this
state, and all of them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from rrn.data.decoding import DataError, Pixels, Size
from rrn.runtime import atomic_io, locking

FORMAT = "decoded pixels, 1"
"""Part of every digest; another way to lay out the file is another number."""
DIGEST = hashlib.sha256().digest_size
"""Bytes at the end of a file."""


class Unusable(DataError):
    """A file of decoded pixels is missing, cut short, or not of these images in their present state."""


class Decoded:
    """The pixels of a list of images; `decoded[place]`. Pickled, it is a path: another process maps the file anew.

    The file: pixels of all images, uint8, one behind the other; (height, width) of each, int64 [count, 2]; 32 bytes
    that depend on `state` and on these sizes.

    Args:
        path: of the file.
        state: digest of all that the pixels depend on.
        count: number of images.
        channels: of a pixel, the last axis; none for labels.

    Raises:
        Unusable: see there.
        OSError: the file cannot be read or mapped.
    """

    def __init__(self, path: Path, state: bytes, count: int, channels: tuple[int, ...] = ()) -> None:
        self._arguments = path, state, count, channels
        try:
            with path.open("rb") as file:
                self.sizes = _sizes(file, state, count)
                pixels = self.sizes.prod(axis=1) * np.prod(channels, dtype=np.int64)
                self._starts = np.concatenate([[0], np.cumsum(pixels)])
                self._pixels = self._mapped(file)
        except FileNotFoundError as error:
            raise Unusable(f"{path} is missing") from error

    def __getitem__(self, place: int) -> Pixels:
        """Return the pixels of an image, uint8 [H, W, *channels], as they lie in the file: only to be read."""
        pixels = self._pixels[self._starts[place] : self._starts[place + 1]]
        return pixels.reshape(*self.size(place), *self._arguments[-1])

    def __reduce__(self) -> tuple[type[Decoded], Any]:
        return type(self), self._arguments

    def size(self, place: int) -> Size:
        """Return (height, width) of an image."""
        height, width = self.sizes[place].tolist()
        return height, width

    def _mapped(self, file: BinaryIO) -> Pixels:
        """Return all pixels, uint8 [N]: private pages, so that torch may have them as tensors; nothing writes there."""
        total = int(self._starts[-1])
        if os.fstat(file.fileno()).st_size != total + self.sizes.nbytes + DIGEST:
            raise Unusable(f"{file.name} is cut short")
        if total == 0:  # which the kernel does not map
            return np.zeros(0, dtype=np.uint8)
        return np.asarray(np.memmap(file, np.uint8, "c", shape=(total,)))


def _sizes(file: BinaryIO, state: bytes, count: int) -> NDArray[np.int64]:
    """Return the sizes that the end of a file states, int64 [count, 2], if the end fits `state` and them."""
    length = 2 * np.dtype(np.int64).itemsize * count
    if os.fstat(file.fileno()).st_size < length + DIGEST:
        raise Unusable(f"{file.name} is cut short")
    file.seek(-length - DIGEST, os.SEEK_END)
    sizes = np.frombuffer(file.read(length), dtype=np.int64).reshape(count, 2)
    if file.read() != _digest(state, sizes):
        raise Unusable(f"{file.name} is cut short, or of images that have changed since")
    return sizes


def decoded(
    folder: Path, name: str, state: bytes, count: int, arrays: Callable[[], Iterator[Pixels]], channels: tuple[int, ...]
) -> Decoded:
    """Map a file of decoded pixels, which is made first if there is none or it is not of this state.

    Args:
        folder: where the files lie, made if missing.
        name: of the file; files of one name replace each other.
        state: digest of all that the pixels depend on.
        count: number of images.
        arrays: decodes all of them, uint8 [H, W, *channels] each, in order.
        channels: of a pixel; none for labels.

    Raises:
        DataError: the folder cannot be read or written, or what `arrays` raises.
    """
    path = folder / name
    try:
        try:
            return Decoded(path, state, count, channels)
        except Unusable:
            folder.mkdir(parents=True, exist_ok=True)
        with locking.held(path.with_suffix(".lock"), patience=-1):
            try:
                return Decoded(path, state, count, channels)
            except Unusable:
                _write(path, state, arrays())
                return Decoded(path, state, count, channels)
    except OSError as error:
        raise DataError(
            f"decoded images cannot be kept in {folder} ({error.strerror}): set loading.cache: false, make room there, "
            "or let RRN_SCRATCH name a folder that has some and may be written"
        ) from error


def _write(path: Path, state: bytes, arrays: Iterator[Pixels]) -> None:
    """Write the file."""
    sizes = []
    with atomic_io.atomic_path(path, lasting=True) as unfinished, unfinished.open("wb") as file:
        for pixels in arrays:
            sizes.append(pixels.shape[:2])
            file.write(np.ascontiguousarray(pixels).data)
        table = np.array(sizes, dtype=np.int64).reshape(-1, 2)
        file.write(table.tobytes() + _digest(state, table))


def _digest(state: bytes, sizes: NDArray[np.int64]) -> bytes:
    """Return the last bytes of a file."""
    return hashlib.sha256(FORMAT.encode() + state + sizes.tobytes()).digest()
