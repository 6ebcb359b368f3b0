"""What verification found in a data set, kept in a file for the stages that need it. No torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rrn.config import Dataset
from rrn.data.decoding import DataError
from rrn.runtime import atomic_io

FILE = "report.json"
VERIFY = "run `python -m rrn.repro verify`"


MOST = 5
"""Files with one problem that are named on lines of their own."""
NAMED = 3
"""Of more files with one problem, those that share its line."""
NUMBERS = re.compile(r"\d+(, \d+)*")
"""What differs between files with one problem, besides their names."""


class Problems:
    """Problems so far, each on one line; many files with one problem share a line."""

    def __init__(self) -> None:
        self.groups: dict[str, dict[str, Path | None]] = {}

    def add(self, problem: str, path: Path | None = None, kind: str = "") -> None:
        """Write down a problem, once.

        Args:
            problem: what is wrong.
            path: the file that it is about.
            kind: what it has in common with others; default: all of it but the name of the file and numbers.
        """
        line = " ".join(problem.split("\n"))
        if path and not kind:
            kind = NUMBERS.sub("#", line.replace(str(path), "").replace(path.stem, ""))
        self.groups.setdefault(kind or line, {})[line] = path

    def lines(self) -> tuple[str, ...]:
        """Return the lines, those with many of a kind shortened."""
        return tuple(line for group in self.groups.values() for line in self._of(group))

    def _of(self, group: Mapping[str, Path | None]) -> list[str]:
        """Return the lines of one kind of problem."""
        if len(group) <= MOST:
            return list(group)
        first, *others = group
        named = ", ".join(path.name for path in list(group.values())[1 : NAMED + 1] if path)
        return [f"{first}; the same of {len(others)} others, such as {named}: {len(group)} files"]


@dataclass(frozen=True)
class Report:
    """What `rrn.preparation.verification` found.

    Attributes:
        problems: one line each: which file, what is wrong, what to do; empty: none. More than a few files with one
            problem share a line, which counts them.
        notes: one line each: what is no error but may be a mistake.
        checksum: 16 hexadecimal digits that change with the contents of any listed image or label, the lists, the
            classes, the meaning of label values, the size everything is resized to and `dataset.exif`, and with nothing
            else.
        classes: names of the classes.
        ids: split -> its ids; none where its list cannot be read.
        pixels: split -> pixels of each class and, last, of void, int64 [N, C + 1], of the files as they lie; 0 for an
            image without a label.
        train: name of the train split; likewise `val`.
        made_of: of what `dataset.classes` makes the classes, a line each; empty: they are those of the data set.
    """

    problems: tuple[str, ...]
    notes: tuple[str, ...]
    checksum: str
    classes: tuple[str, ...]
    ids: Mapping[str, tuple[str, ...]]
    pixels: Mapping[str, NDArray[np.int64]]
    train: str
    val: str
    made_of: str = ""

    def write(self, folder: Path, data: Dataset) -> None:
        """Write FILE into a folder, which is made if missing.

        Args:
            folder: runs/<name>/verify.
            data: the settings that the report is of.

        Raises:
            atomic_io.WriteError: it cannot be written.
        """
        pixels = {split: counts.tolist() for split, counts in self.pixels.items()}
        kept = {"dataset": _settings(data)} | vars(self) | {"pixels": pixels}
        atomic_io.write(folder / FILE, json.dumps(kept, separators=(",", ":")) + "\n")

    @classmethod
    def read(cls, folder: Path, data: Dataset) -> Report:
        """Read what `write` wrote.

        Args:
            folder: runs/<name>/verify.
            data: the settings that it must be of.

        Raises:
            DataError: it is missing, cannot be read, or is of other settings.
        """
        path = folder / FILE
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            verified, columns = kept.pop("dataset"), len(kept["classes"]) + 1
            for key in ("problems", "notes", "classes"):
                kept[key] = tuple(kept[key])
            kept["ids"] = {split: tuple(ids) for split, ids in kept["ids"].items()}
            kept["pixels"] = {s: np.array(rows, np.int64).reshape(-1, columns) for s, rows in kept["pixels"].items()}
            found = cls(**kept)
        except FileNotFoundError as error:
            raise DataError(f"{path} is missing: the data set has not been verified; {VERIFY}") from error
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise DataError(f"{path} cannot be read ({error}); {VERIFY}") from error
        for key, value in _settings(data).items():
            if verified.get(key) != value:
                raise DataError(f"{path} is of dataset.{key}: {verified.get(key)}, and not of {value}; {VERIFY}")
        return found

    def require(self) -> None:
        """Raise a DataError that lists every problem, if there is one."""
        if self.problems:
            raise DataError("\n  ".join([f"{problems_in_words(len(self.problems))} in the data:", *self.problems]))

    def shares(self, split: str, names: Iterable[str]) -> NDArray[np.float64]:
        """Return the share of each class and, last, of void in the pixels of some images of a split.

        Args:
            split: its name.
            names: ids; those without labels do not count.

        Returns:
            [C + 1], summing to 1; NaN if no image has a label.

        Raises:
            DataError: an id is not in the split.
        """
        places = {name: place for place, name in enumerate(self.ids.get(split, ()))}
        chosen = list(names)
        unknown = [name for name in chosen if name not in places]
        if unknown:
            raise DataError(f"the split {split!r} has no image {', '.join(unknown[:10])}: run the prepare stage again")
        if not chosen:
            return np.full(len(self.classes) + 1, np.nan)
        counts = self.pixels[split][[places[name] for name in chosen]].sum(axis=0)
        return counts / counts.sum() if counts.any() else np.full(len(counts), np.nan)

    def summary(self) -> str:
        """Return, as a text, how many images and labels there are, how frequent the classes are, and the notes."""
        counts = {s: (len(ids), int(self.pixels[s].any(axis=1).sum())) for s, ids in self.ids.items()}
        shares = pd.DataFrame({split: 100 * self.shares(split, ids) for split, ids in self.ids.items()})
        shares.index = pd.Index([*self.classes, "void"])
        table = pd.DataFrame(counts, index=["images", "labels"]).T
        notes = "".join(f"\nnote: {note}" for note in self.notes)
        frequent = f"per cent of the labeled pixels\n{shares.to_string(float_format='%.2f')}"
        made_of = f"classes, as dataset.classes makes them\n{self.made_of}\n\n" if self.made_of else ""
        return f"{table.to_string()}\n\n{made_of}{frequent}{notes and chr(10)}{notes}"


def problems_in_words(problems: int) -> str:
    """Return how many problems there are, in words."""
    return f"{problems or 'no'} problem{'' if problems == 1 else 's'}"


def _settings(data: Dataset) -> dict[str, Any]:
    """Return the settings that a report depends on, as JSON has them."""
    return data.model_dump(mode="json")
