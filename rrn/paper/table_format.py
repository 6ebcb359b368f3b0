"""A table for machines and for people: numbers as CSV, the same numbers as text in Markdown and LaTeX (booktabs).

All tables are written here, so that a mean, a deviation and an interval look alike everywhere, and
the same numbers give the same bytes. No torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rrn.runtime import atomic_io, csv_files

LATEX = str.maketrans(
    {
        **{mark: "\\" + mark for mark in "&%$#_{}"},
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
        **{"±": r"$\pm$", "†": r"$^\dagger$", "<": "$<$", ">": "$>$", "|": "$|$"},
    }
)
MARKDOWN = str.maketrans({"&": "&amp;", "<": "&lt;", **{mark: "\\" + mark for mark in "\\`*[]$|"}})
"""What Markdown, HTML or MathJax would take for a mark in a word, such as the name of a class."""
WIDE = 8
"""Columns of a table that fit a column of a paper; one of more spans the page, and is made to fit it."""
BOLD = re.compile(r"^\*\*(.*)\*\*$")


@dataclass(frozen=True)
class Table:
    """A table that can be written.

    Attributes:
        name: stem of its files.
        numbers: what the CSV holds, unrounded.
        header: names of the columns that people read.
        rows: their cells as text, one list a row; **text** is bold.
        words: how many of the first columns are words, set flush left; the others are numbers.
        caption: what the numbers are.
    """

    name: str
    numbers: pd.DataFrame
    header: list[str]
    rows: list[list[str]]
    words: int
    caption: str

    def markdown(self) -> str:
        """Return it in Markdown, with its caption below."""
        rows = [[*map(_word, row[: self.words]), *map(_bar, row[self.words :])] for row in self.rows]
        sides = ["left"] * self.words + ["right"] * (len(self.header) - self.words)
        cells = pd.DataFrame(rows, columns=[*map(_bar, self.header)])
        text = cells.to_markdown(index=False, colalign=sides, disable_numparse=True)
        return f"{text}\n\n{self.caption}\n"

    def latex(self) -> str:
        """Return it in LaTeX; needs the packages booktabs and, of more than WIDE columns, graphicx."""
        wide = len(self.header) > WIDE
        text = (
            pd.DataFrame(self.rows, columns=self.header)
            .style.hide(axis="index")
            .format(_latex)
            .format_index(_latex, axis="columns")
            .to_latex(
                environment="table*" if wide else "table",
                position_float="centering",
                caption=_latex(self.caption),
                label=f"tab:{self.name}",
                column_format="l" * self.words + "r" * (len(self.header) - self.words),
                hrules=True,
            )
        )
        if wide:
            text = text.replace(r"\begin{tabular}", r"\resizebox{\textwidth}{!}{%" + "\n" + r"\begin{tabular}")
            text = text.replace(r"\end{tabular}", r"\end{tabular}" + "\n}")
        return text

    def write(self, folder: Path) -> None:
        """Write <name>.csv, <name>.md and <name>.tex into `folder`, which is made if missing."""
        csv_files.write_csv(self.numbers, folder / f"{self.name}.csv")
        atomic_io.write(folder / f"{self.name}.md", self.markdown())
        atomic_io.write(folder / f"{self.name}.tex", self.latex())

    def _repr_markdown_(self) -> str:
        """Return it as Jupyter asks for it."""
        return self.markdown()


def number(value: float, digits: int = 2) -> str:
    """Return a number as text; nothing for NaN."""
    return "" if pd.isna(value) else f"{value:.{digits}f}"


def format_p(value: float) -> str:
    """Return a p value as text; nothing for NaN."""
    return "<0.001" if value < 0.001 else number(value, 3)


def deviating(mean: float, deviation: float) -> str:
    """Return 'mean ± deviation', the mean alone where there is no deviation, or nothing."""
    return number(mean) if pd.isna(deviation) else f"{number(mean)} ± {number(deviation)}"


def difference(mean: float, low: float, high: float, digits: int = 2) -> str:
    """Return '+mean [+low, +high]', all with their sign, or nothing."""
    return "" if pd.isna(mean) else f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def bold(text: str, really: bool) -> str:
    """Return a cell, bold if `really`."""
    return f"**{text}**" if really else text


def counts(numbers: pd.Series) -> str:
    """Return how many seeds there are: 'n = 3', or 'n = 1 to 3' where rows differ."""
    low, high = int(numbers.min()), int(numbers.max())
    return f"n = {low}" if low == high else f"n = {low} to {high}"


def _word(text: str) -> str:
    """Return a word for a cell of Markdown, shown as it is."""
    return text.translate(MARKDOWN)


def _bar(text: str) -> str:
    """Return text that does not end a cell of Markdown."""
    return text.replace("|", "\\|")


def _latex(value: object) -> str:
    """Return a text for LaTeX; **text** becomes bold, a minus is set as one, and no mark is an option."""
    text = str(value)
    inner = BOLD.sub(r"\1", text)
    escaped = re.sub(r"(?<![\w.)\]])-(?=\d)", "$-$", inner.translate(LATEX))
    if BOLD.match(text):
        return f"\\textbf{{{escaped}}}"
    return f"{{}}{escaped}" if escaped.startswith(("[", "*")) else escaped
