"""CSV files of runs and studies: the same numbers give the same bytes, and names stay texts. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from rrn.runtime import atomic_io

FORMAT: dict[str, Any] = {"index": False, "float_format": "%.6g", "lineterminator": "\n"}


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table with fixed formatting, so that the same numbers give the same bytes."""
    atomic_io.write(path, table.to_csv(**FORMAT))


@contextmanager
def append_rows(path: Path, columns: Sequence[str]) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Write a table part by part, so that only one part is in memory; the file is there once all are.

    Yields:
        Appends the rows of a table that has at least these columns.
    """
    with atomic_io.atomic_path(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        pd.DataFrame(columns=[*columns]).to_csv(file, **FORMAT)
        yield lambda table: table[[*columns]].to_csv(file, header=False, **FORMAT)


def read_csv(path: Path) -> pd.DataFrame:
    """Read a CSV file of a run or a study; names are texts, also NA and None."""
    names = dict.fromkeys(("name", "partition", "method", "class"), str)
    return pd.read_csv(path, dtype=names, keep_default_na=False, na_values=[""])
