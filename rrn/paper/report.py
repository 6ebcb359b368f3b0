"""All results on one page: `python -m rrn.report` writes results/report.html.

The page holds every table and figure of every study in results/, its settings and versions. It loads
nothing: it stays under 1 MB, figures made smaller until it does, and is the same bytes for the same
results. No torch.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rrn import config
from rrn.paper.inline import Inline, PageTooLargeError, inline
from rrn.runtime import atomic_io

LIMIT = 1_000_000
"""Bytes of the page."""

MAIN = "shapes"
"""The study that comes first."""

TITLES = {
    "ablation": "Ablation",
    "partitions": "Share of labeled images",
    "variants": "Variants: what is kept, known and reached",
    "per_class": "Classes",
    "class_gain": "Classes: gain over cps_cutmix",
    "validation": "On val, by which rows are chosen",
}
"""Tables in the order of the page, by the stems of their files; others follow."""

BOLD = re.compile(r"\*\*(.*?)\*\*")
ESCAPED = re.compile(r"\\([\\`*\[\]$|])")
"""What `rrn.paper.table_format` writes in place of a mark of Markdown."""


class ReportError(ValueError):
    """A file in results/ is not as the ablation stage writes it."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, whether it is bold, and whether it is set flush right."""

    text: str
    strong: bool
    right: bool


@dataclass(frozen=True)
class Shown:
    """A table of the page."""

    title: str
    file: str
    header: list[Cell]
    rows: list[list[Cell]]
    caption: str


@dataclass(frozen=True)
class StudySection:
    """What the page shows of a folder of results/."""

    name: str
    about: str
    tables: list[Shown]
    figures: list[Path]
    rows: dict[str, str]
    settings: dict[str, str]
    fingerprint: str
    versions: str


def read_table(path: Path) -> Shown:
    """Read a table that `rrn.paper.table_format` wrote in Markdown.

    Raises:
        ReportError: it is none.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    table = [_split(line) for line in lines if line.startswith("|")]
    if len(table) < 2 or any(len(cells) != len(table[0]) for cells in table):
        raise ReportError(
            f"{_place(path)} is no table as `rrn.paper.table_format` writes it: run its ablation stage again"
        )
    right = [cell.endswith("-:") for cell in table[1]]
    header, *rows = [[_cell(*pair) for pair in zip(cells, right, strict=True)] for cells in (table[0], *table[2:])]
    caption = " ".join(line for line in lines if line and not line.startswith("|"))
    return Shown(TITLES.get(path.stem, _words(path.stem)), path.stem, header, rows, caption)


def _split(line: str) -> list[str]:
    """Return the cells of a line of Markdown."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def _cell(text: str, right: bool) -> Cell:
    """Return a cell from its Markdown."""
    words = ESCAPED.sub(r"\1", BOLD.sub(r"\1", text)).replace("&lt;", "<").replace("&amp;", "&")
    return Cell(words, bool(BOLD.search(text)), right)


def _words(stem: str) -> str:
    """Return the name of a file as words."""
    return stem.replace("_", " ").capitalize()


def _place(path: Path) -> str:
    """Return results/<name>/<file>."""
    return "/".join(path.parts[-3:])


def abouts(presets: Path) -> dict[str, str]:
    """Return what presets say of the studies that they make: `name` -> the comment that a preset begins with."""
    found: dict[str, str] = {}
    for path in sorted(presets.glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        first = next((place for place, line in enumerate(lines) if not line.startswith("#")), len(lines))
        name = config.read(path).get("name")
        if name and first:
            found.setdefault(name, " ".join(" ".join(line.lstrip("#") for line in lines[:first]).split()))
    return found


def read_study(folder: Path, about: str) -> StudySection:
    """Read a folder of results/, and its pictures.

    Raises:
        ReportError: a file in it is not as the ablation stage writes it; says which.
    """
    order = list(TITLES)
    paths = sorted(folder.glob("*.md"), key=lambda path: (order.index(path.stem) if path.stem in order else 99, path))
    path, places = folder / "settings.json", (folder, folder.parent / "row-pictures" / folder.name)
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        params, versions = config.up_to_date(told.get("params", {})), told.get("versions", {})
        return StudySection(
            folder.name,
            about,
            [read_table(path) for path in paths],
            [path for place in places for path in sorted((place / "figures").glob("*.png"))],
            {row: _flow(values) or "none" for row, values in params.get("methods", {}).items()},
            {name: _flow(value) for name, value in params.items() if name != "methods"},
            told.get("settings", ""),
            ", ".join(f"{package} {_versions(version)}" for package, version in versions.items()),
        )
    except (json.JSONDecodeError, AttributeError, TypeError) as error:
        raise ReportError(f"{_place(path)} is not as the ablation stage writes it ({error}): run it again") from error


def _versions(found: str | list[str]) -> str:
    """Return the version of a package, or the different ones that runs of a study were computed with."""
    return found if isinstance(found, str) else " and ".join(found)


def _flow(value: Any) -> str:
    """Return a setting on one line, nearly as params.yaml has it."""
    if isinstance(value, Mapping):
        return ", ".join(
            f"{key}: {{{_flow(inner)}}}" if isinstance(inner, Mapping) else f"{key}: {_flow(inner)}"
            for key, inner in value.items()
        )
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False).replace('"', "")


def page(studies: list[StudySection]) -> str:
    """Return the page of the studies, in their order, under LIMIT bytes.

    Raises:
        PageTooLargeError: the figures do not fit.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("report.jinja")
    paths = [path for study in studies for path in study.figures]

    def render(figures: list[Inline]) -> str:
        drawn = dict(zip(paths, figures, strict=True))
        return template.render(studies=studies, drawn=drawn, words=_words)

    empty = render([Inline("", 1000, 1000)] * len(paths))
    return render(inline(paths, LIMIT - len(empty.encode()) - 1))


def measured(folder: Path) -> bool:
    """Say whether a folder of results/ holds what benchmarks/gpu.py measured, which is no study of the pipeline."""
    return (folder / "results.jsonl").is_file()


def write_report(root: Path) -> Path:
    """Write results/report.html of the repository at `root` over all folders of results/; return its path.

    Raises:
        ReportError: there is nothing to report, or a file is not as the ablation stage writes it.
        PageTooLargeError: the figures do not fit.
        atomic_io.WriteError: the disk is full, or results/ may not be written.
    """
    told = abouts(root / "presets")
    folders = [path for path in (root / "results").glob("*") if any(path.glob("*.md")) and not measured(path)]
    if not folders:
        raise ReportError("results/ holds no study: run `dvc repro` first")
    folders.sort(key=lambda path: (path.name != MAIN, path.name))
    target = root / "results" / "report.html"
    studies = [read_study(folder, told.get(folder.name, "")) for folder in folders]
    atomic_io.write(target, page(studies))
    return target


def main() -> int:
    """Run the command line."""
    try:
        target = write_report(config.find_root())
    except (ReportError, PageTooLargeError, config.SettingsError, FileNotFoundError, atomic_io.WriteError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{target.parent.name}/{target.name}: {target.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
