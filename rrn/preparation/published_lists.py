"""Published lists of labeled and unlabeled images: fetched from their origin, checked, cached. No torch.

`published_lists.json` says where each list lies (a public repository at a pinned commit), how many ids it has and what
their sha256 is. Equal sizes are not equal lists: 662 images of `cps` hold 93 finely annotated ones, 662 of `u2pl` hold
662.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from rrn.data.decoding import DataError
from rrn.data.id_lists import ids_of
from rrn.runtime import atomic_io, locking, places

CATALOG = Path(__file__).with_name("published_lists.json")
ORIGIN = "https://raw.githubusercontent.com"
"""Where repositories are read; `RRN_LISTS` names a folder with <repository>/<commit>/<path> in its place."""
TIMEOUT = 30
"""Seconds."""
ROLES = ("labeled", "unlabeled")


@dataclass(frozen=True)
class Published:
    """One list: what it is, how many ids it has, their sha256 (one a line, in order), and its origin."""

    kind: str
    protocol: str
    partition: str
    role: str
    count: int
    sha256: str
    repository: str
    commit: str
    path: str
    license: str

    @property
    def origin(self) -> str:
        """Where it comes from, for people."""
        return f"{self.repository}@{self.commit[:12]} {self.path} ({self.license})"

    @property
    def file(self) -> str:
        """Name in the cache."""
        return f"{self.kind}-{self.protocol}-{self.partition}-{self.role}.txt"


@functools.cache
def catalog() -> tuple[Published, ...]:
    """Return all lists that are known."""
    return tuple(Published(**entry) for entry in json.loads(CATALOG.read_text(encoding="utf-8")))


def find(kind: str, protocol: str, partition: str) -> dict[str, Published]:
    """Return the labeled and the unlabeled list of a partition, by its name (1of16) or its number of labels (662).

    Raises:
        DataError: the protocol has no such partition; lists those that it has.
    """
    known = [entry for entry in catalog() if (entry.kind, entry.protocol) == (kind, protocol)]
    if not known:
        others = sorted({f"{entry.protocol} of {entry.kind}" for entry in catalog()})
        raise DataError(
            f"split.protocol: {protocol} has no lists for dataset.kind: {kind}; there are {', '.join(others)}, "
            "and seeded for every data set"
        )
    labeled = [entry for entry in known if entry.role == "labeled"]
    names = {e.partition for e in labeled if partition in (e.partition, str(e.count))}
    if not names:
        there = ", ".join(f"{e.partition} ({e.count} labels)" for e in labeled)
        raise DataError(f"partition {partition!r}: split.protocol: {protocol} of {kind} has {there}")
    (name,) = names
    return {entry.role: entry for entry in known if entry.partition == name}


def fetch_all(kind: str, folder: Path, protocol: str | None = None) -> list[Path]:
    """Fetch what is missing of the lists of a data set, or of one protocol, so that later no network is needed.

    Args:
        kind: voc | cityscapes.
        folder: of the cache, made if missing.
        protocol: cps | u2pl | classic; None: all.

    Returns:
        the files.

    Raises:
        DataError: see `ids`.
    """
    wanted = [entry for entry in catalog() if entry.kind == kind and protocol in (None, entry.protocol)]
    for entry in wanted:
        ids(entry, folder)
    return [folder / entry.file for entry in wanted]


def ids(published: Published, folder: Path) -> list[str]:
    """Return the ids of a list in the published order, from the cache, or from its origin, which fills the cache.

    Raises:
        DataError: it cannot be fetched or written, or it is not the list whose count and checksum are pinned.
    """
    path = folder / published.file
    if path.is_file():
        return _checked(path.read_bytes(), published, path)
    contents = _fetch(published, path)
    names = _checked(contents, published, path)
    try:
        with locking.exclusive(path, patience=-1):  # several processes may fetch one list
            atomic_io.write(path, contents)
    except OSError as error:
        if not os.environ.get("RRN_LISTS"):  # a folder of lists needs no cache
            raise DataError(
                f"{error}. Or name a folder that holds {published.repository}/{published.commit}/{published.path} "
                "and the others by RRN_LISTS"
            ) from error
    return names


def address(published: Published) -> str:
    """Return where a list is fetched: at its origin, or in the folder `RRN_LISTS`."""
    named = os.environ.get("RRN_LISTS")
    base = places.place(named).resolve().as_uri() if named else ORIGIN
    return f"{base}/{published.repository}/{published.commit}/{published.path}"


def _fetch(published: Published, path: Path) -> bytes:
    try:
        with urllib.request.urlopen(address(published), timeout=TIMEOUT) as answer:
            return answer.read()
    except (urllib.error.URLError, TimeoutError, ValueError) as error:
        raise DataError(
            f"the list {published.file} cannot be fetched from {address(published)} ({error}); fetch it elsewhere and "
            f"put it at {path}, or name a folder of lists by RRN_LISTS"
        ) from error


def _checked(contents: bytes, published: Published, path: Path) -> list[str]:
    try:
        names = ids_of(contents.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} from {published.origin} is no UTF-8 text; delete it and fetch it again") from error
    found = hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()
    if (len(names), found) != (published.count, published.sha256):
        raise DataError(
            f"{path} is not the list of {published.origin}: it has {len(names)} ids of sha256 {found[:12]}..., "
            f"expected {published.count} of {published.sha256[:12]}...; delete it to fetch it again"
        )
    return names
