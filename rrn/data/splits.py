"""The images of an experiment, as split.json holds them: the prepare stage writes it, all others read it. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from rrn.data.decoding import DataError
from rrn.data.formats.base import Color
from rrn.data.id_lists import CONTROL
from rrn.runtime import atomic_io

NAME = "split.json"


@dataclass(frozen=True)
class Split:
    """The images of an experiment, by id.

    Attributes:
        partition: how many train images are labeled: 1of16, 662, all.
        protocol: who chose them: seeded | cps | u2pl | classic.
        origin: the permutation, or the public list.
        data: checksum of the data set that was prepared; later stages depend on it in place of thousands of files.
        classes: names of the classes.
        colours: of the classes, as the data set's authors draw them; empty: none of its own.
        labeled: train images whose labels training may read.
        unlabeled: all other train images.
        val: images of the val split.
        test: images of the test split.
    """

    partition: str
    protocol: str
    origin: str
    data: str
    classes: tuple[str, ...]
    # the key of files, spelled as in the first of them
    colours: tuple[Color, ...]
    labeled: tuple[str, ...]
    unlabeled: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse empty lists, ids that name no file, repeated ids, and ids that are labeled and unlabeled at once."""
        for key in ("labeled", "val", "test"):
            if not getattr(self, key):
                raise DataError(f"the partition {self.partition} has no {key} image")
        for key in ("labeled", "unlabeled", "val", "test"):
            ids = getattr(self, key)
            for name in ids:
                if not name or "/" in name or name == ".." or CONTROL.search(name):
                    raise DataError(f"the partition {self.partition} lists {name!r} as {key}, which names no image")
            if len(set(ids)) < len(ids):
                twice = next(name for name in ids if ids.count(name) > 1)
                raise DataError(f"the partition {self.partition} lists {twice!r} twice as {key}")
        both = sorted(set(self.labeled) & set(self.unlabeled))
        if both:
            raise DataError(
                f"the partition {self.partition} lists {len(both)} images as labeled and as "
                f"unlabeled: {', '.join(both[:10])}; remove them from one list"
            )


def write_split(split: Split, folder: Path) -> Path:
    """Write `split` as split.json into `folder`, made if missing; return the file."""
    path = folder / NAME
    atomic_io.write(path, json.dumps(asdict(split), indent=2, sort_keys=True) + "\n")
    return path


def read_split(folder: Path) -> Split:
    """Read split.json from `folder`.

    Raises:
        DataError: if it is missing, no JSON, lacks a key, or contradicts itself.
    """
    path = folder / NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: run the prepare stage first (`dvc repro prepare`)") from error
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}): run the prepare stage again") from error
    keys = list(Split.__dataclass_fields__)
    if not isinstance(values, dict) or sorted(values) != sorted(keys):
        raise DataError(f"{path} must have exactly the keys {', '.join(keys)}: run the prepare stage again")
    try:
        return TypeAdapter(Split).validate_python(values)
    except ValidationError as error:
        problem = error.errors()[0]
        where = [".".join(map(str, problem["loc"]))] if problem["loc"] else []
        said = " ".join([*where, problem["msg"].removeprefix("Value error, ")])
        raise DataError(f"{path}: {said}") from error


def sample(ids: Sequence[str], limit: int | None) -> tuple[str, ...]:
    """Return at most `limit` ids, spread evenly over a list; None: all."""
    return evenly_spaced(ids, len(ids) if limit is None else limit)


def evenly_spaced(ids: Sequence[str], count: int) -> tuple[str, ...]:
    """Return `count` ids, spread evenly over a list, or all if there are fewer."""
    count = min(count, len(ids))
    return tuple(ids[place * len(ids) // count] for place in range(count))
