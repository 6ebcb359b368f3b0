"""Archives -> folders, safely: every member is looked at before the first is written. No torch.

An archive is unpacked into a hidden folder beside it, and its files are moved from there when all are
whole; an interrupted unpacking leaves no half file where data are read, and the next one begins anew.
Only files and folders are unpacked, and no more of them than an archive of images can hold; an archive
in an archive stays one file.
"""

from __future__ import annotations

import errno
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TypeVar

from tqdm import tqdm

from rrn.data.decoding import DataError
from rrn.preparation.archives import Archive, refuse_web_page

MOST_MEMBERS = 1_000_000
"""Files and folders of an archive; VOC 2012, the largest, has 40,000."""
MOST_TIMES = 100
"""How many times as large as itself an archive may become; photographs and PNG are compressed already."""
SMALL = 1 << 20
"""Bytes that an archive counts as at least: a few short texts may shrink further."""
ENCRYPTED = 1
"""The flag of a member of a zip archive that needs a password."""
LONGEST_HEADER = 1 << 20
"""Bytes of a header of tar, which is read into memory at once; a path needs a few hundred."""
UNREADABLE = (
    *(tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError),
    *(NotImplementedError, UnicodeDecodeError),
)
"""What tarfile, gzip and zipfile raise for archives that are none, broken, incomplete, or packed in an unusual way."""
OF_THE_ARCHIVE = (None, errno.EINVAL, errno.ENAMETOOLONG)
"""Numbers of an OSError that say the same; any other is the disk's."""


def unpack(path: Path, archive: Archive, destination: Path) -> None:
    """Bring the files below the folder `archive.inside` of an archive to `destination`.

    Files that are there already are replaced by those of the archive; others stay.

    Raises:
        DataError: the archive is none, is incomplete, holds a member that would leave the folder, a link or a device,
            becomes larger than an archive of images can or than there is room; or it lacks that folder.
    """
    refuse_web_page(path, str(path))
    staging = path.with_name(f".{path.name}.unpacking")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        _extract(path, archive, staging)
        _move(staging / archive.inside, destination)
    except (*UNREADABLE, OSError) as error:
        if isinstance(error, OSError) and error.errno not in OF_THE_ARCHIVE:
            raise
        raise DataError(
            f"{path} is no archive or an incomplete one ({error}); delete it and run the command again"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _extract(path: Path, archive: Archive, staging: Path) -> None:
    """Extract the wanted members of a zip or tar archive, after a look at all."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as zipped:
            infos = {info.filename: info for info in _harmless(zipped.infolist(), path)}
            for name in _wanted({name: info.file_size for name, info in infos.items()}, archive, path):
                zipped.extract(name, staging)
        return
    with tarfile.open(path, tarinfo=Member) as tar:
        members = {member.name: member for member in _harmless(tar, path)}
        for name in _wanted({name: member.size for name, member in members.items()}, archive, path):
            tar.extract(members[name], staging, filter="data")


class Member(tarfile.TarInfo):
    """A member of a tar archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Member:
        """Read the 512 bytes of a header, and refuse it if it announces a longer one than there can be.

        Raises:
            tarfile.TarError: it is none, or longer than `LONGEST_HEADER`.
        """
        member = super().frombuf(buf, encoding, errors)
        if member.type not in tarfile.SUPPORTED_TYPES or member.isreg() or 0 <= member.size <= LONGEST_HEADER:
            return member
        raise tarfile.ReadError(f"it announces a header of {member.size} bytes")


Entry = TypeVar("Entry", zipfile.ZipInfo, tarfile.TarInfo)


def _harmless(members: Iterable[Entry], path: Path) -> Iterator[Entry]:
    """Yield the members of an archive, each after a look at it and at what they come to so far."""
    most, total = MOST_TIMES * max(path.stat().st_size, SMALL), 0
    for number, member in enumerate(members, 1):
        name, size, kind = _described(member)
        total += size
        if reason := _leaves(name) or kind or ("its size is negative" if size < 0 else ""):
            raise DataError(_refusal(path, name, reason))
        if total > most:
            reason = f"up to here it holds {total} bytes, more than {MOST_TIMES} times its own size"
            raise DataError(_refusal(path, name, reason))
        if number > MOST_MEMBERS:
            raise DataError(_refusal(path, name, f"it is one of more than {MOST_MEMBERS} members"))
        yield member


def _described(member: zipfile.ZipInfo | tarfile.TarInfo) -> tuple[str, int, str]:
    """Return the name of a member, its bytes when unpacked, and why it is no file and no folder that can be had."""
    if isinstance(member, tarfile.TarInfo):
        return member.name, member.size, "" if member.isfile() or member.isdir() else "it is a link or a device"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return member.filename, member.file_size, "it is a link or a device"
    return member.filename, member.file_size, "it is encrypted" if member.flag_bits & ENCRYPTED else ""


def _leaves(name: str) -> str:
    """Say so if the path of a member is absolute, on any system, has `..`, or is none."""
    if "\0" in name:
        return "its path holds a NUL"
    forms = (PurePosixPath(name), PureWindowsPath(name))
    return "its path leaves the folder" if any(form.anchor or ".." in form.parts for form in forms) else ""


def _wanted(sizes: Mapping[str, int], archive: Archive, path: Path) -> Iterable[str]:
    """Return the members below the wanted folders and files of an archive, with a bar; `sizes` are those of all."""
    inside = PurePosixPath(archive.inside)
    places = [inside / part for part in archive.only] or [inside]
    found = [name for name in sizes if any(PurePosixPath(name).is_relative_to(place) for place in places)]
    if not found:
        raise DataError(f"{path} holds no folder {inside}: it is another archive; delete it and run the command again")
    needed, free = sum(sizes[name] for name in found), shutil.disk_usage(path.parent).free
    if needed > free:
        raise DataError(
            f"{path} becomes {needed / 1e9:.1f} GB, and the disk of {path.parent} has {free / 1e9:.1f} GB free; "
            "nothing was unpacked; make room and run the command again"
        )
    return tqdm(found, desc=path.name, unit=" files")


def _refusal(path: Path, name: str, reason: str) -> str:
    """Say which member was refused."""
    return f"{path}: the member {name!r} is refused ({reason}); nothing was unpacked; get the archive from its authors"


def _move(source: Path, destination: Path) -> None:
    """Move all files of a folder, in the order of their names, into another, which may have files already."""
    for path in sorted(source.rglob("*")):
        if not path.is_dir():
            target = destination / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
