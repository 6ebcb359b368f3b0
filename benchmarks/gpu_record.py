"""Put what gpu.py measured into benchmarks/results.csv, and the tables of docs/gpu.md, which are made from that.

    python benchmarks/gpu_record.py results/gpu           # both
    python benchmarks/gpu_record.py                       # the tables alone, from results.csv

Rows of parts that were measured before are replaced. What was measured in the small form is refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gpu
import pandas as pd
from run import RESULTS, merged

DOCUMENT = gpu.ROOT / "docs" / "gpu.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
PREFIX = "gpu_"
"""Of the parts' names in results.csv."""
NOTHING = "No GPU was at hand so far: nothing on this page has been measured on one."
GOALS = (
    ("step", "rrn, bf16", "a step", "at most", 0.120),
    ("step", "reference, bf16 / rrn, bf16", "a step", "at least", 2.5),
    ("step", "reference, fp32 / rrn, fp32", "a step", "at least", 2.5),
    ("step", "rrn, bf16 / cps_cutmix, bf16", "a step", "at most", 1.05),
    ("step", "rrn, fp32 / rrn, bf16", "a step", "at least", 2.0),
    ("step", "rrn, bf16 / reference, bf16", "peak memory", "at most", 0.6),
    ("evaluation", "sliding window, folded", "windows a second, each through both networks", "at least", 10.0),
    ("study", ".*, 4 side by side", "images a second of all, to one", "at least", 2.0),
)
"""What was wished for on a data-center GPU: part, case (a regular expression), measure, direction and bound."""


def rows(lines: Sequence[gpu.Line]) -> pd.DataFrame:
    """Return what was measured, as it stands in results.csv.

    Raises:
        Refused: it was measured in the small form, or nothing was.
    """
    if any(line.get("run", {}).get("small") for line in lines):
        raise gpu.Refused("this was measured with --small, on a CPU: its numbers mean nothing")
    known, found = {}, list[dict[str, Any]]()
    for line in lines:
        known = line.get("facts", known)
        if "row" in line:
            found.append({"benchmark": PREFIX + line["part"]} | line["row"] | machine(known))
    if not found:
        raise gpu.Refused("there is nothing in it that was measured")
    return pd.DataFrame(found).drop_duplicates(["benchmark", "case", "measure"], keep="last")


def machine(facts: gpu.Line) -> dict[str, Any]:
    """Return the columns that say what a row was measured on."""
    return {
        "processor": f"{facts['gpu']}, driver {facts.get('driver_version', 'unknown')}",
        "cores": facts["cores"],
        "memory_gb": facts["memory_gb"],
        "kernels": f"CUDA {facts['cuda']}, cuDNN {facts['cudnn']}",
        "python": facts["python"],
        "torch": facts["torch"],
        "date": facts["date"],
    }


def documented(text: str, results: pd.DataFrame) -> str:
    """Return docs/gpu.md with the tables of these results.

    Raises:
        Refused: it lacks the marks that the tables stand between.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise gpu.Refused(f"{DOCUMENT.name} lacks the lines {BEGIN} and {END}, between which the tables stand")
    return "\n".join([before + begin, "", *measured(results), "", end + after])


def measured(results: pd.DataFrame) -> Iterator[str]:
    """Yield the lines of the tables."""
    results = results[results["benchmark"].str.startswith(PREFIX)]
    if results.empty:
        yield NOTHING
        return
    for _, of in results.groupby(["processor", "kernels", "torch", "date"], sort=False):
        first = of.iloc[0]
        parts = ", ".join(of["benchmark"].str.removeprefix(PREFIX).unique())
        yield f"- {parts}: {first['processor']}, {first['kernels']}, torch {first['torch']}, {first['date']}."
    yield from ["", *goals(results)]
    for part in results["benchmark"].unique():
        of = results[results["benchmark"] == part]
        table = of.assign(measured=of["median"].map("{:.4g}".format))
        yield from ["", f"Part *{part.removeprefix(PREFIX)}*, medians:", ""]
        yield from gpu.markdown(table.to_dict("records"), ("case", "measure", "measured", "unit", "rounds"))


def goals(results: pd.DataFrame) -> Iterator[str]:
    """Yield the table of what was wished for, and what was measured of it."""
    lines = []
    for part, case, measure, direction, bound in GOALS:
        of = (results["benchmark"] == PREFIX + part) & (results["measure"] == measure)
        found = results[of & results["case"].str.fullmatch(case)]
        values = found["median"].map("{:.4g}".format)
        reached = found["median"] <= bound if direction == "at most" else found["median"] >= bound
        lines.append(
            {
                "what": f"{case.removeprefix('.*, ')}: {measure}",
                "wanted": f"{direction} {bound:g}",
                "measured": ", ".join(values) or "not yet",
                "reached": ", ".join(reached.map({True: "yes", False: "no"})),
            }
        )
    return gpu.markdown(lines, ("what", "wanted", "measured", "reached"))


def main(arguments: list[str] | None = None) -> int:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="that gpu.py wrote")
    options = parser.parse_args(arguments)
    try:
        results = pd.read_csv(RESULTS)
        if options.folder:
            merged(results, rows(gpu.read(options.folder))).to_csv(RESULTS, index=False, float_format="%.4g")
        text = documented(DOCUMENT.read_text(encoding="utf-8"), pd.read_csv(RESULTS))
        DOCUMENT.write_text(text, encoding="utf-8")
    except gpu.Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{RESULTS.name} and {DOCUMENT.name} are written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
