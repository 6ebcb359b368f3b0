"""Numbers in tables of README.md and docs/: each stands in the file that the table names, or is known to have none.

A mark right above a table, `<!-- numbers: FILE COLUMN=VALUE|VALUE ... -->`, names the file and the rows of it that the
table is of. A row of the table is that of the names in its first cells; of several seeds it is mean and deviation.
"""

import importlib.util
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import chain

import pandas as pd
import pytest
from conftest import ROOT
from studies import table_cells

from rrn.runtime.csv_files import read_csv

MARK = re.compile(r"<!-- numbers: (\S+)((?: \S+=\S+)*) -->")
NUMBER = re.compile(r"(?<![\w.])(<?)([+-]?\d[\d,]*(?:\.\d+)?)(?:e(-?\d+))?( [MG%](?!\w))?(?![\w/])")
UNITS = {" M": 1e6, " G": 1e9, " %": 0.01, "": 1}
COLUMNS = {
    "miou_ensemble": "miou_ensemble",
    "miou": "miou_mean miou_std miou",
    "ensemble": "miou_ensemble ensemble_std",
    "difference": "difference difference_low difference_high",
    "detectable": "detectable",
    "p (holm)": "p_adjusted",
    "kept right": "kept",
    "auroc": "auroc",
    "aurc": "aurc",
    "ece": "ece",
    "right of the kept": "accuracy_kept",
    "right of the dropped": "accuracy_dropped",
}
"""How the header of a column begins -> the columns of the file that it may show; of any other one, all."""
FEWEST = 400

NO_FILE = "no file holds them yet"
ESTIMATED = "arithmetic on what is counted; the page says so"
NO_RESULT = "no numbers of ours: settings, versions, plans"
PROMISED = "no file of git holds it: the page shows what a command prints after a change"
WITHOUT_FILE = {
    ("docs/data.md", "`loading.evaluation_pixels`"): NO_FILE,
    ("docs/experiments.md", "Experiment"): PROMISED,
    ("docs/explore.md", ", "): NO_RESULT,
    ("docs/explore.md", "image, median"): NO_FILE,
    ("docs/feasibility.md", "encoder, dec"): NO_FILE,
    ("docs/feasibility.md", "channels, input averaged over"): NO_FILE,
    ("docs/feasibility.md", "data, encoder, dec"): NO_FILE,
    ("docs/filtering.md", "beside, AUROC on val"): "printed by benchmarks/filtering.py study, from results/study",
    ("docs/gpu.md", "part, minutes of 8"): NO_RESULT,
    ("docs/gpu.md", "encoders, `model.architecture`"): NO_RESULT,
    ("docs/gpu.md", "preset, row, parameters"): "printed by benchmarks/counted.py; " + NO_FILE,
    ("docs/gpu.md", "preset, A100"): ESTIMATED,
    ("docs/import.md", "kind, export"): NO_RESULT,
    ("docs/install.md", "Python"): NO_RESULT,
    ("docs/method.md", "released, here"): NO_RESULT,
    ("docs/performance.md", "setting, speed, memory, mIoU"): NO_FILE,
    ("docs/performance.md", "GPU, operations/s"): ESTIMATED,
}
"""Page and how the header of a table begins -> why it names no file."""
COLUMNS_WITHOUT_FILE = {("docs/reliability.md", "of the first run"): NO_FILE}


@dataclass(frozen=True)
class Table:
    """A table of a page: its mark, if it has one, and the cells."""

    page: str
    line: int
    mark: re.Match[str] | None
    header: list[str]
    rows: list[list[str]]

    def __str__(self):
        return f"{self.page}:{self.line}"

    @property
    def words(self):
        """Return how many of the first columns are names: the first one, and others up to one of numbers."""
        columns = [*zip(*self.rows, strict=True)]
        numeric = [any(map(decimals, cells)) or all(map(plain, filter(None, cells))) for cells in columns]
        return 1 + [*numeric[1:], True].index(True)


def decimals(cell):
    """Whether a cell has a number with a decimal point, outside of code."""
    return re.search(r"\d\.\d", re.sub(r"`[^`]*`|\]\([^)]*\)", "", cell)) is not None


def plain(cell):
    """Whether a cell is a number, with or without a unit, or bold."""
    return re.fullmatch(r"\**[+-]?\d[\d,]*(\.\d+)?( \S+)?\**", cell) is not None


def tables_of(page, text):
    """Return the tables of a page; one of a single row is taken by its columns."""
    found, lines = [], [*text.splitlines(), ""]
    for place, line in enumerate(lines):
        if line.startswith("|") and not lines[place - 1].startswith("|"):
            end = next(n for n in range(place, len(lines)) if not lines[n].startswith("|"))
            header, *rows = table_cells("\n".join(lines[place:end]))
            if len(rows) == 1:
                header, rows = ["", ""], [list(pair) for pair in zip(header, rows[0], strict=True)]
            found.append(Table(page, place + 1, MARK.fullmatch(lines[place - 1]), header, rows))
    return found


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TABLES = [table for page in PAGES for table in tables_of(page.relative_to(ROOT).as_posix(), page.read_text())]
MARKED = [table for table in TABLES if table.mark]


@cache
def gains(studies):
    """Return what benchmarks/filtering.py says that rows gain over a random filter, by row and seed."""
    spec = importlib.util.spec_from_file_location("filtering", ROOT / "benchmarks" / "filtering.py")
    filtering = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(filtering)
    parts = [filtering.study(ROOT / "results" / name) for name in studies.split("+")]
    rules = {row: by for _, found in parts for row, by in found.items()}
    return filtering.explained(pd.concat([part for part, _ in parts]), rules).reset_index()


def held(mark):
    """Return the rows of a file that a mark is of."""
    wanted = dict(condition.split("=") for condition in mark[2].split())
    if mark[1].endswith(".py"):
        return gains(wanted["studies"])
    table = read_csv(ROOT / mark[1])
    for column, values in wanted.items():
        table = table[table[column].astype(str).isin(values.split("|"))]
    assert len(table), f"{mark[0]}: no such row"
    return table


def named(table, texts):
    """Return the rows of a file that a text names: in all columns with any name in it, by its longest names first."""
    known, found = pd.Series(True, table.index), False
    for column in words_in(table):
        left, names = Counter(words_of(" ".join(texts))), []
        for name in sorted(table[column].dropna().unique(), key=lambda name: -len(words_of(name))):
            words = Counter(words_of(name))
            if words and words <= left:
                left, names = left - words, [*names, name]
        if names:
            known, found = known & table[column].isin(names), True
    assert found and known.any(), f"{texts} names no row"
    return table[known]


def words_in(table):
    """Return the columns that hold no numbers."""
    return [*table.select_dtypes(exclude=["number", "bool"])]


def words_of(text):
    return [word for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in ("and", "of", "the")]


def values_of(rows, header):
    """Return the numbers that a cell may show: of one row each, of several seeds mean and deviation."""
    names = next((names for start, names in COLUMNS.items() if header.lower().startswith(start)), "")
    columns = [name for name in names.split() if name in rows] or [*rows.select_dtypes("number")]
    groups = rows.groupby(words_in(rows), sort=False, dropna=False)[columns]
    found = {*groups.mean().to_numpy().ravel(), *groups.std().to_numpy().ravel()}
    if "unit" in rows:
        ratios = rows.loc[rows["unit"] == "ratio", ["median", "lower", "upper"]]
        found |= {*(1 / ratios).to_numpy().ravel()}  # times faster is what times as long is from the other side
    return [float(value) for value in found if value == value]


def agrees(token, values, percent):
    """Whether a number is one of the values as its digits round it; in per cent also of a share."""
    below, digits, power, unit = token
    number = float(digits.replace(",", "")) * 10 ** int(power or 0) * UNITS[unit]
    last = 10 ** (int(power or 0) - len(digits.partition(".")[2])) * UNITS[unit]
    if percent:
        values = [*values, *(100 * value for value in values)]
    if below:
        return any(value < number for value in values)
    return any(abs(value - number) <= last * 0.500001 + 1e-12 for value in values)


def compare(table, file=None):
    """Look up each number of a table; return how many there were, and those that the file has not."""
    file = held(table.mark) if file is None else file
    count, wrong = 0, []
    for cells in table.rows:
        rows = named(file, cells[: table.words])
        for header, cell in [*zip(table.header, cells, strict=True)][table.words :]:
            if (table.page, header) in COLUMNS_WITHOUT_FILE or cell.strip("*") == "1":  # what others are measured by
                continue
            values, percent = values_of(rows, header), "%" in "".join([*table.header, cell])
            for found in NUMBER.finditer(cell):
                token = [part or "" for part in found.groups()]
                if "." in token[1] or token[2] or plain(cell):
                    count += 1
                    wrong += [] if agrees(token, values, percent) else [f"{table}: {cells[0]}, {header}: {found[0]}"]
    return count, wrong


@pytest.mark.parametrize("table", MARKED, ids=str)
def test_numbers_of_a_table_stand_in_its_file(table):
    count, wrong = compare(table)
    print(f"{table}: {count} numbers, {table.mark[1]}")
    assert not wrong and count >= 3


def test_many_numbers_are_compared():
    count = sum(compare(table)[0] for table in MARKED)
    print(f"{count} numbers of {len(MARKED)} tables compared with their files; {len(WITHOUT_FILE)} tables name none")
    assert count >= FEWEST


def begins(table, start):
    return ", ".join(table.header).startswith(start)


def test_every_other_table_with_numbers_says_why_it_names_no_file():
    others = [table for table in TABLES if not table.mark and any(map(decimals, chain.from_iterable(table.rows)))]
    known = {(page, start): [t for t in others if t.page == page and begins(t, start)] for page, start in WITHOUT_FILE}
    missing = [str(table) for table in others if not any(table in found for found in known.values())]
    assert not missing, f"name their file in a mark, or say in WITHOUT_FILE why they have none: {missing}"
    assert not [key for key, found in known.items() if not found], "WITHOUT_FILE lists what is no more"
    shown = {(table.page, header) for table in MARKED for header in table.header}
    assert set(COLUMNS_WITHOUT_FILE) <= shown


def test_a_mark_is_one():
    marks = [line for page in PAGES for line in page.read_text().splitlines() if "<!-- numbers" in line]
    assert len(marks) == len(MARKED), "a mark stands right above its table and reads as MARK says"
    assert all((ROOT / table.mark[1]).is_file() for table in MARKED)


FILE = pd.DataFrame(
    {
        "method": ["rrn", "rrn", "rrn_mean", "cps"],
        "seed": [0, 1, 0, 0],
        "miou_mean": [58.0, 60.0, 57.126, 40.0],
        "auroc": [0.75, 0.77, 0.5, 0.8126],
        "parameters": [1_500_000, 1_500_000, 1_500_000, 2_000_000],
    }
)


def check(row, header="| row | mIoU | AUROC, % | parameters |"):
    (table,) = tables_of("page", f"{header}\n| :-- | --: | --: | --: |\n{row}\n| cps | 40.00 | 81.26 | 2.0 M |\n")
    return compare(table, FILE)


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ("| `rrn`, ours | **59.00 ± 1.41** | 0.76 | 1.5 M |", []),
        ("| **rrn_mean** | 57.13 | 50.0 | 1.50 M |", []),
        ("| rrn_mean, rrn | 57.1, 59.0 | 50 | 1.5 M |", []),
        ("| rrn | 59.01 | 0.76 | 1.5 M |", ["59.01"]),
        ("| rrn | 59.00 ± 1.42 | 0.76 | 1.5 M |", ["1.42"]),
        ("| rrn | -59.00 | 0.76 | 1.5 M |", ["-59.00"]),
        ("| rrn | 0.76 | 59.00 | 1.5 M |", ["0.76", "59.00"]),
        ("| rrn_mean | 57.12 | 50 | 1.4 M |", ["57.12", "1.4 M"]),
        ("| rrn_mean | 59.00 | 50 | 1.5 M |", ["59.00"]),
    ],
)
def test_a_wrong_number_is_noticed(row, wrong):
    count, found = check(row)
    assert [text.rpartition(": ")[2] for text in found] == wrong and count >= 6


def test_a_row_that_the_file_does_not_name_is_noticed():
    with pytest.raises(AssertionError, match=r"\['random'\] names no row"):
        check("| random | 59.00 | 0.76 | 1.5 M |")
