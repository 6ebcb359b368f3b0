"""All benchmarks, or some: a table, and benchmarks/results.csv.

    python benchmarks/run.py                              # about two hours; the machine should be quiet
    python benchmarks/run.py rivals memory                # only these; the rows of the others stay
    python benchmarks/run.py --quick --out quick.csv      # tiny sizes: whether they work, not how long anything takes

Each runs in a process of its own. The file names processor, cores, memory, kernels, versions and date of every row.
"""

from __future__ import annotations

import argparse
import importlib
import re
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from measuring import Row, apart, machine

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.csv"
BENCHMARKS = sorted(
    path.stem for path in HERE.glob("*.py") if re.search(r"^def rows\(quick: bool\)", path.read_text(), re.MULTILINE)
)
"""Modules of this folder with a function `rows`."""


def measured(name: str, quick: bool) -> list[Row]:
    """Return the rows of one benchmark."""
    return importlib.import_module(name).rows(quick)


def table(name: str, rows: list[Row]) -> pd.DataFrame:
    """Return the rows of a benchmark as they stand in the file."""
    return pd.DataFrame([{"benchmark": name} | asdict(row) | machine() for row in rows])


def merged(known: pd.DataFrame | None, new: pd.DataFrame) -> pd.DataFrame:
    """Put new rows in place of those of the same benchmarks, sorted by benchmark."""
    if known is not None:
        new = pd.concat([known[~known["benchmark"].isin(new["benchmark"])], new])
    return new.sort_values("benchmark", kind="stable", ignore_index=True)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmarks", nargs="*", metavar="benchmark", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; needs --out")
    parser.add_argument("--out", type=Path, default=None, help="default: benchmarks/results.csv")
    options = parser.parse_args(arguments)
    unknown = set(options.benchmarks) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    if options.quick and options.out is None:
        parser.error("--quick measures nothing that belongs into results.csv: say --out FILE")
    out = options.out or RESULTS
    for name in options.benchmarks or BENCHMARKS:
        new = table(name, apart(measured, name, options.quick))
        shown = new.loc[:, "case":"rounds"].to_string(index=False, float_format="{:.4g}".format)
        print(f"\n==== {name}\n\n{shown}", flush=True)
        known = pd.read_csv(out) if out.exists() else None
        merged(known, new).to_csv(out, index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
