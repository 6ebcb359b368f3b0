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

LATEX = {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "†": r"$^\dagger$",
    "~": r"\textasciitilde{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "^": r"\textasciicircum{}",
    **{mark: "\\" + mark for mark in "&%$#_{}"},
}
MARKDOWN = {"&": "&amp;", "<": "&lt;", **{mark: "\\" + mark for mark in "\\`*[]$|"}}
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
        rule = [":--" if column < self.words else "--:" for column in range(len(self.header))]
        words = self.words
        rows = [[*map(_word, row[:words]), *map(_bar, row[words:])] for row in self.rows]
        lines = [map(_bar, self.header), rule, *rows]
        return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + f"\n\n{self.caption}\n"

    def latex(self) -> str:
        """Return it in LaTeX; needs the packages booktabs and, of more than WIDE columns, graphicx."""
        columns = "l" * self.words + "r" * (len(self.header) - self.words)
        lines = [" & ".join(map(_escape, cells)) + r" \\" for cells in (self.header, *self.rows)]
        lines = [
            f"{{}}{line}" if line.startswith(("[", "*")) else line for line in lines
        ]  # no option of the line before
        body = ["\\toprule", lines[0], "\\midrule", *lines[1:], "\\bottomrule", "\\end{tabular}"]
        wide = len(self.header) > WIDE
        kind, fit, end = ("table*", ["\\resizebox{\\textwidth}{!}{%"], ["}"]) if wide else ("table", [], [])
        head = [f"\\begin{{{kind}}}", "\\centering", f"\\caption{{{_escape(self.caption)}}}", *fit]
        return "\n".join([*head, f"\\begin{{tabular}}{{{columns}}}", *body, *end, f"\\end{{{kind}}}"]) + "\n"

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


def deviating(mean: float, deviation: float) -> str:
    """Return 'mean ± deviation', the mean alone where there is no deviation, or nothing."""
    return number(mean) if pd.isna(deviation) else f"{number(mean)} ± {number(deviation)}"


def difference(mean: float, low: float, high: float) -> str:
    """Return '+mean [+low, +high]', all with their sign, or nothing."""
    return "" if pd.isna(mean) else f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def bold(text: str, really: bool) -> str:
    """Return a cell, bold if `really`."""
    return f"**{text}**" if really else text


def counts(numbers: pd.Series) -> str:
    """Return how many seeds there are: 'n = 3', or 'n = 1 to 3' where rows differ."""
    low, high = int(numbers.min()), int(numbers.max())
    return f"n = {low}" if low == high else f"n = {low} to {high}"


def _word(text: str) -> str:
    """Return a word for a cell of Markdown, shown as it is."""
    return "".join(MARKDOWN.get(character, character) for character in text)


def _bar(text: str) -> str:
    """Return text that does not end a cell of Markdown."""
    return text.replace("|", "\\|")


def _escape(text: str) -> str:
    """Return text for LaTeX; **text** becomes bold, and a minus is set as one."""
    inner = BOLD.sub(r"\1", text)
    escaped = "".join(LATEX.get(character, character) for character in inner)
    escaped = re.sub(r"(?<![\w.)\]])-(?=\d)", "$-$", escaped)
    return f"\\textbf{{{escaped}}}" if BOLD.match(text) else escaped
