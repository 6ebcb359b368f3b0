"""What a file holds, found once and remembered by path, size, time and inode: a file is read again when one differs.

Facts do not depend on settings: what a label's values mean is judged by `rrn.data.verify`. No torch.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sqlite3
import stat
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
from pydantic import TypeAdapter

from rrn.data import files
from rrn.data.files import DataError, Size
from rrn.data.layouts import Colour

APPLICATION, VERSION = 0x52524E, 3
"""What marks a database as ours; raise VERSION when facts are found or worded differently."""
WAIT = 60.0
"""Seconds to wait for another process that writes."""
TABLE = """create table facts (path blob, kind text, size integer, time integer, inode integer, found text,
    primary key (path, kind)) without rowid"""
FEW_COLOURS = 256
JPEG = b"\xff\xd8"

File = tuple[Path, str]
"""A path, and "image" or "label"."""
Status = tuple[int, int, int]
"""Size in bytes, time of the last change in nanoseconds, inode."""


@dataclass(frozen=True)
class Facts:
    """What one file holds.

    Attributes:
        digest: SHA-256 of its contents, hexadecimal; empty if they could not be read.
        problem: why it cannot be used; empty if it can.
        size: (height, width) of a usable image or label.
        histogram: value -> number of pixels, of a usable label.
        colours: of a label in colours that has few of them.
    """

    digest: str = ""
    problem: str = ""
    size: Size = (0, 0)
    histogram: Mapping[int, int] = field(default_factory=dict)
    colours: tuple[Colour, ...] = ()


READER = TypeAdapter(Facts)


def status(path: Path, kind: str) -> Status:
    """Return what changes when a file is written.

    Raises:
        DataError: it is missing, no file, or there is no permission.
    """
    try:
        return _checked(path.stat())
    except OSError as error:
        raise files.unreadable(error, path, kind) from error


def examine(wanted: Iterable[File]) -> list[tuple[Status | None, Facts]]:
    """Read and decode files; one that cannot be read has no status, and its facts say why."""
    return [_examined(path, kind) for path, kind in wanted]


def _examined(path: Path, kind: str) -> tuple[Status | None, Facts]:
    """Read one file and look into it."""
    try:
        with path.open("rb") as file:
            read = _checked(os.fstat(file.fileno()))
            if read[0] > files.MOST_BYTES:
                return read, Facts(problem=f"{kind} {path} has {read[0]} bytes, more than any image; replace it")
            contents = file.read()
    except OSError as error:
        return None, Facts(problem=str(files.unreadable(error, path, kind)))
    digest = hashlib.sha256(contents).hexdigest()
    try:
        if not contents:
            raise DataError(f"{kind} {path} cannot be read (it has 0 bytes): replace it or remove it")
        return read, (_image if kind == "image" else _label)(path, contents, digest)
    except DataError as error:
        return read, Facts(digest, str(error))


def _checked(found: os.stat_result) -> Status:
    """Return the status of a file; what is no file raises OSError."""
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no file")
    return found.st_size, found.st_mtime_ns, found.st_ino


def _image(path: Path, contents: bytes, digest: str) -> Facts:
    """Decode all of an image."""
    is_jpeg = contents.startswith(JPEG)
    image = files.open_image(path, decode=not is_jpeg, contents=contents)
    if is_jpeg:
        files.open_file(path, "image", contents=contents, reduced=True)
    return Facts(digest, size=(image.height, image.width))


def _label(path: Path, contents: bytes, digest: str) -> Facts:
    """Count the values of a label; of one in colours, list them."""
    try:
        label = files.open_label(path, contents)
    except DataError as error:
        return Facts(digest, str(error), colours=_colours(path, contents))
    counts = np.bincount(np.asarray(label, dtype=np.uint8).ravel(), minlength=256)
    histogram = {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    return Facts(digest, size=(label.height, label.width), histogram=histogram)


def _colours(path: Path, contents: bytes) -> tuple[Colour, ...]:
    """Return the colours of a label that opens as RGB and has few of them."""
    try:
        image = files.open_file(path, "label", contents=contents)
    except DataError:
        return ()
    if image.mode not in ("RGB", "RGBA"):
        return ()
    counted = image.convert("RGB").getcolors(FEW_COLOURS) or []
    return tuple(sorted((c[0], c[1], c[2]) for _, c in counted if isinstance(c, tuple)))


class Memory:
    """Facts on the disk, in SQLite; several processes may use one at once.

    Raises:
        sqlite3.DatabaseError: the file is damaged or of another program.
        DataError: its folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"the folder {path.parent} cannot be made ({error}); what is verified is kept in it"
            ) from error
        self.connection = sqlite3.connect(path, timeout=WAIT, isolation_level=None)

    def __enter__(self) -> Memory:
        """Make the table if the file is new."""
        try:
            self._prepare()
        except sqlite3.DatabaseError:
            self.connection.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the file."""
        self.connection.close()

    def _prepare(self) -> None:
        """Make the table, or see that it is ours."""
        self.connection.execute("begin immediate")
        (tables,) = self.connection.execute("select count(*) from sqlite_master").fetchone()
        marks = [self.connection.execute(f"pragma {name}").fetchone()[0] for name in ("application_id", "user_version")]
        if not tables:
            self.connection.execute(TABLE)
            self.connection.execute(f"pragma application_id = {APPLICATION}")
            self.connection.execute(f"pragma user_version = {VERSION}")
        elif marks != [APPLICATION, VERSION]:
            raise sqlite3.DatabaseError("it is of another program or version")
        self.connection.execute("commit")

    def find(self, file: File, now: Status) -> Facts | None:
        """Return the facts of a file whose status has not changed since."""
        path, kind = file
        row = self.connection.execute(
            "select found from facts where path = ? and kind = ? and size = ? and time = ? and inode = ?",
            (os.fsencode(path), kind, *now),
        ).fetchone()
        return READER.validate_json(row[0]) if row else None

    def keep(self, examined: Iterable[tuple[File, Status, Facts]]) -> None:
        """Write facts, in one transaction."""
        rows = [(os.fsencode(path), kind, *read, json.dumps(asdict(found))) for (path, kind), read, found in examined]
        if rows:
            self.connection.execute("begin immediate")
            self.connection.executemany("insert or replace into facts values (?, ?, ?, ?, ?, ?)", rows)
            self.connection.execute("commit")


def put_aside(path: Path, why: Exception) -> None:
    """Rename a database that cannot be used to <name>.unusable, with a warning."""
    aside = path.with_name(f"{path.name}.unusable")
    with suppress(FileNotFoundError):  # another process was faster
        path.replace(aside)
    warnings.warn(f"{path} cannot be used ({why}): renamed to {aside.name}; all files are read again", stacklevel=3)
