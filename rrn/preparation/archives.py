"""The archives of the public data sets: where they come from (archives.json), and how they get onto the disk. No torch.

An archive that lies in the folder of the data already, put there by hand, is used in place of a download.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch

from rrn.data.decoding import DataError

RECORDS = Path(__file__).with_name("archives.json")
TIMEOUT = 30
"""Seconds without an answer after which a download is given up."""
CHUNK = 1 << 20
WEB_PAGE = (b"<!doctype html", b"<html", b"<head")


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


def records(path: Path = RECORDS) -> dict[str, Record]:
    """Read kind of data set -> record from a file like archives.json.

    Raises:
        DataError: it is missing or not of this form.
    """
    try:
        return {kind: _record(entry) for kind, entry in json.loads(path.read_text(encoding="utf-8")).items()}
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}; --archives names a changed copy of {RECORDS}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} is not of the form of {RECORDS} ({error!r}); start from a copy of it") from error


def fetch(archive: Archive, folder: Path) -> Path:
    """Return the file of an archive in `folder`, downloaded unless it lies there.

    Raises:
        DataError: no answer, a web page instead, or a checksum that differs.
    """
    path = folder / archive.name
    if path.is_file():
        require_whole(path, archive)
        return path
    print(f"downloading {archive.url}")
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        pooch.retrieve(archive.url, archive.checksum, archive.name, folder, downloader=_download)
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{archive.url}: {error} Run the command again; {_by_hand(path)}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise DataError(
            f"{archive.url} cannot be downloaded ({error}); check the network and run the command again, "
            f"{_by_hand(path)}"
        ) from error
    return path


def require_whole(path: Path, archive: Archive) -> None:
    """Check an archive that lies on the disk already.

    Raises:
        DataError: it is a web page, or its checksum differs.
    """
    refuse_web_page(path, path.name)
    if archive.checksum is None:
        return
    kind, expected = archive.checksum.split(":")
    found = pooch.file_hash(str(path), alg=kind)
    if found != expected:
        raise DataError(
            f"{path} is incomplete or another file: its {kind} is {found}, expected {expected}; "
            "delete it and run the command again, which downloads it"
        )


def refuse_web_page(path: Path, name: str) -> None:
    """Raise a DataError if the file that should be the archive `name` is HTML."""
    with path.open("rb") as file:
        start = file.read(512).lstrip().lower()
    if start.startswith(WEB_PAGE):
        raise DataError(
            f"{name} is no archive but a web page (HTML), as servers send in place of a file that has moved or needs "
            "a login; delete it if it is on the disk, and get the archive with a browser"
        )


def _record(entry: Mapping[str, Any]) -> Record:
    """Return a record from its JSON."""
    return Record({key: Archive(**values) for key, values in entry["files"].items()}, dict(entry["counts"]))


def _download(url: str, output_file: str, caller: pooch.Pooch | None) -> None:
    """Download with a progress bar, and see what came before pooch looks at its checksum."""
    pooch.HTTPDownloader(progressbar=True, chunk_size=CHUNK, timeout=TIMEOUT)(url, output_file, caller)
    refuse_web_page(Path(output_file), url)


def _by_hand(path: Path) -> str:
    """Say how to do without the download."""
    return f"or get the file in another way and put it there as {path}"
