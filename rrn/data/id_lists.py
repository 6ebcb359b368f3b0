"""Lists of images, one id a line. What is wrong with a list is a `DataError` that names the line. No torch."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from rrn.data.decoding import DataError

PATH = re.compile(r"(?P<stem>.+?)\.(?:jpe?g|png)(?:\s.*)?$", re.IGNORECASE)
"""A line that begins with the path of an image."""
LONGEST = 255
"""Characters of a file name."""
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
"""Characters that no name needs, and that end a line or hide it from a reader; a tab is none of them."""
OUTSIDE = re.compile(
    r"(^|[\s/\\])\.\.([\s/\\]|$)|^[A-Za-z][\w+.-]*:[/\\]|^[/\\](?!(JPEGImages|images|leftImg8bit)[/\\])"
)
"""What leads out of the folder of a data set: `..`, a drive or an address, an absolute path. The slash that published
lists put before these folders means the data set's own."""


class RepeatedIds(DataError):
    """A list names ids twice; `ids` holds each of its ids once."""

    def __init__(self, message: str, ids: list[str]) -> None:
        super().__init__(message)
        self.ids = ids


def read_list(path: Path, hint: str) -> list[str]:
    """Return the ids of a list file in its order, one a line; see `ids_of` for what a line may hold.

    Raises:
        DataError: it is missing, empty, no text, or names an id twice.
    """
    try:
        return ids_of(path.read_text(encoding="utf-8-sig"), str(path))
    except FileNotFoundError as error:
        raise DataError(f"the list {path} is missing; {hint}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text: {error}") from error


def ids_of(text: str, source: str) -> list[str]:
    """Return the ids of a list, one a line.

    A line holds an id, or the path of an image, or those of image and label, as `JPEGImages/x.jpg
    SegmentationClass/x.png`; line ends may be those of Windows. Cityscapes' `_leftImg8bit` is no part of an id.

    Raises:
        DataError: the list is empty or names an id twice; a line leads out of the data set, or holds no name.
    """
    lines = enumerate(re.split(r"\r\n|\r|\n", text), 1)
    ids = [_id(line.strip(), f"{source}, line {number}") for number, line in lines if line.strip()]
    if not ids:
        raise DataError(f"the list {source} is empty")
    require_once(ids, source)
    return ids


def require_once(ids: list[str], source: str) -> None:
    """Raise RepeatedIds, a DataError, that names the ids which stand twice in a list."""
    twice = sorted(name for name, count in Counter(ids).items() if count > 1)
    if twice:
        message = f"{source} lists {len(twice)} ids twice: {', '.join(twice[:10])}; remove the second ones"
        raise RepeatedIds(message, list(dict.fromkeys(ids)))


def _id(line: str, where: str) -> str:
    """Return the id of a line of a list; ids may hold spaces, so that only the ending of an image ends its path."""
    if OUTSIDE.search(line):
        raise DataError(
            f"{where}: {line[:LONGEST]!r} leads out of the data set; write the id of an image, or its path below the "
            "folder of the data set"
        )
    path = PATH.match(line)
    name = re.split(r"[/\\]", path["stem"] if path else line)[-1].removesuffix("_leftImg8bit")
    if not name or len(name) > LONGEST or CONTROL.search(line):
        raise DataError(
            f"{where}: {line[:LONGEST]!r} names no image; write its id, without characters that are not seen"
        )
    return name
