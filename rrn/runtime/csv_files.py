"""CSV files of runs and studies: the same numbers give the same bytes, and names stay texts. No torch."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from rrn.runtime import atomic_io


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table with fixed formatting, so that the same numbers give the same bytes."""
    atomic_io.write(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def read_csv(path: Path) -> pd.DataFrame:
    """Read a CSV file of a run or a study; names are texts, also NA and None."""
    names = dict.fromkeys(("name", "partition", "method", "class"), str)
    return pd.read_csv(path, dtype=names, keep_default_na=False, na_values=[""])
