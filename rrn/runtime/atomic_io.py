"""Output files are whole or absent: what is written gets its name when all of it is on the disk. No torch.

A disk that is full, a folder that is read-only or a process that is killed leaves the former file, or none; the next
run writes over what the killed one left.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""No room: the disk, the user's share of it, or what a file may hold."""
CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
"""No permission, or something else lies there."""


class WriteError(OSError):
    """A file cannot be written; the message says which, why, and what to do.

    Attributes:
        errno: of the system.
        strerror: the reason, as the system says it.
    """

    def __init__(self, path: Path, error: OSError, instead: str) -> None:
        cure = "make room there" if error.errno in FULL else "let it be written"
        super().__init__(
            f"{path} cannot be written ({error.strerror}): {cure}, or {instead}; then give the same command again"
        )
        self.errno, self.strerror = error.errno, error.strerror

    def __str__(self) -> str:
        return str(self.args[0])


@contextmanager
def explain_os_error(path: Path, instead: str = "name another place") -> Iterator[None]:
    """Turn what the system says when `path` cannot be written into a WriteError; other errors pass.

    Args:
        path: what is written.
        instead: what else the user may do.

    Raises:
        WriteError: see there.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        if error.errno in FULL | CLOSED:
            raise WriteError(path, error, instead) from error
        raise


@contextmanager
def atomic_path(path: Path, lasting: bool = False) -> Iterator[Path]:
    """Give a name to write to, which becomes `path` when all went well and is removed when not.

    The folder is made if missing.

    Args:
        path: of the file.
        lasting: wait until it is on the disk, for what nothing can compute again after a power failure.

    Raises:
        WriteError: the disk is full, or the folder may not be written.
    """
    unfinished = path.with_name(f".{path.name}.part")
    with explain_os_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            if lasting:
                _synchronize(unfinished)
            unfinished.replace(path)
            if lasting:
                _synchronize(path.parent)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


@contextmanager
def folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill, which takes the place of `path` when all went well and is removed when not.

    Raises:
        WriteError: see `atomic_path`.
    """
    unfinished = path.with_name(f".{path.name}.part")
    with explain_os_error(path):
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            unfinished.mkdir(parents=True)
            yield unfinished
            if path.exists():
                shutil.rmtree(path)
            unfinished.rename(path)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise


def _synchronize(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, contents: str | bytes, lasting: bool = False) -> None:
    """Write a file, text as UTF-8; its folder is made if missing.

    Raises:
        WriteError: see `atomic_path`.
    """
    with atomic_path(path, lasting) as unfinished:
        unfinished.write_bytes(contents.encode() if isinstance(contents, str) else contents)
