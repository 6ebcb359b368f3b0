"""The archives of the public data sets (archives.json): found or downloaded by pooch, then unpacked. No torch."""

from __future__ import annotations

import gzip
import json
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pooch
from tqdm import tqdm

from rrn.data.decoding import DataError
from rrn.runtime import atomic_io

RECORDS = Path(__file__).with_name("archives.json")
DOWNLOADER = pooch.HTTPDownloader(progressbar=True, chunk_size=1 << 20, timeout=30)
"""Gives up after 30 seconds without an answer."""
UNREADABLE = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)
"""What Python raises for archives that are none, broken or incomplete."""


@dataclass(frozen=True)
class Archive:
    """One archive.

    Attributes:
        name: of its file.
        url: where it is downloaded from; for Cityscapes, the page to visit.
        checksum: as md5:... or sha256:...; None if none is known.
        inside: the folder in it that is wanted.
        only: the parts of that folder that are wanted; none named: all.
    """

    name: str
    url: str
    checksum: str | None
    inside: str
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """What is known of a data set beforehand.

    Attributes:
        files: its archives, by what they hold.
        counts: images of each split.
    """

    files: Mapping[str, Archive]
    counts: Mapping[str, int]


def record(kind: str) -> Record:
    """Return what archives.json says of a kind of data set."""
    entry = json.loads(RECORDS.read_text(encoding="utf-8"))[kind]
    return Record({key: Archive(**values) for key, values in entry["files"].items()}, entry["counts"])


def fetch_archive(archive: Archive, folder: Path) -> Path:
    """Return the file of an archive in `folder`, downloaded unless it lies there with the right checksum.

    Raises:
        DataError: no answer, or a checksum that differs.
        OSError: the disk is full, or the folder cannot be written.
    """
    path = folder / archive.name
    instead = f"or get the file in another way and put it there as {path}"
    try:
        with atomic_io.explain_os_error(folder, "name another folder"):
            pooch.retrieve(archive.url, archive.checksum, archive.name, folder, downloader=DOWNLOADER)
    except ValueError as error:  # pooch found another checksum, and removed what it had downloaded
        raise DataError(f"{archive.url}: {error} Run the command again, {instead}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        lies_there = " has another checksum" if path.is_file() else " does not exist"
        raise DataError(
            f"{path}{lies_there}, and {archive.url} cannot be downloaded ({error}); check the network and run the "
            f"command again, {instead}"
        ) from error
    return path


def unpack(path: Path, archive: Archive, destination: Path) -> None:
    """Bring the files below the folder `archive.inside` of an archive to `destination`.

    They are unpacked into a hidden folder and moved from there when all are whole, in the order of their names. Files
    that are there already are replaced by those of the archive; others stay. pooch could unpack, too, but without
    Python's filter of paths that leave the folder, and into the place where data are read.

    Raises:
        DataError: the archive is none, is incomplete, has a member that leaves the folder, or lacks `archive.inside`.
        OSError: the disk is full, or the folder cannot be written.
    """
    staging = destination / f".{path.name}.unpacking"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        _extract(path, archive, staging)
        _move(staging / archive.inside, destination)
    except UNREADABLE as error:
        raise DataError(
            f"{path} is no archive or an incomplete one ({error}); delete it and run the command again"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _extract(path: Path, archive: Archive, staging: Path) -> None:
    bar = f"unpacking {path.name}"
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as zipped:
            names = [name for name in zipped.namelist() if _is_wanted(name, archive)]
            zipped.extractall(staging, tqdm(names, bar))
    else:
        with tarfile.open(path) as tar:
            members = [member for member in tar if _is_wanted(member.name, archive)]
            tar.extractall(staging, tqdm(members, bar), filter="data")
    if not (staging / archive.inside).is_dir():
        raise DataError(f"{path} holds no folder {archive.inside}: it is another archive; delete it and run again")


def _is_wanted(name: str, archive: Archive) -> bool:
    return any(PurePosixPath(name).is_relative_to(f"{archive.inside}/{part}") for part in archive.only or ("",))


def _move(source: Path, destination: Path) -> None:
    for path in sorted(source.rglob("*")):
        if not path.is_dir():
            target = destination / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
