"""classes.txt of a data set of one's own: which label value stands for which class. No torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rrn.config import IGNORE_INDEX
from rrn.data.decoding import DataError
from rrn.data.id_lists import CONTROL

VOID = "-"
"""In place of a name: the value of this line is no class."""
RESERVED = {"(all)": "all classes together", "mean": "the mean of the classes", "void": "what counts as no class"}
"""What names of classes mean in tables and figures, which would join such a class with them."""
RULE = (
    "classes.txt holds the names of the classes alone, one a line, in the order of the label values from 0; "
    "a line - is a value that is no class"
)
OF_OTHER_FILES = {
    r"#.*": "a comment, such as the first line of CVAT's labelmap.txt",
    r"(//|;).*": "a comment (remove it)",
    r"[^:]*:\d+,\d+,\d+:[^:]*:[^:]*": "a line of CVAT's labelmap.txt",
    r"(?i:pixel value\s*,\s*class)": "the header of Roboflow's _classes.csv",
    r"__ignore__": "the first line of labelme's labels.txt, which has no label value (remove it)",
    r"(names|nc|path|train|val|test)\s*:.*": "a key of YOLO's data.yaml",
    r"[\[{]|\[.*,.*\]|\{.*:.*\}?": "a list in JSON or YAML, such as the names of YOLO's data.yaml",
    r"[^,]+(,\s*\d{1,3}){3}": "a color, as in the tables of class_dict.csv",
    r".*[^\d\s,;:|(\[][\s,;:|(\[]+(\d{1,3}[\s,;:|]+){2}\d{1,3}[)\]]?": "a name and a color (write the name alone)",
    r".*[\s,;:|]#[0-9a-fA-F]{6}": "a name and a color (write the name alone)",
    r"\w*\(\s*['\"].*\),?": "a line of a program, such as Cityscapes' labels.py (write the name alone)",
    r"([\"'])[^\"']*\1,?": "a name in quotes, which would become part of it (write it without them)",
    r"(\d{1,3}[\s,]+){3}\S.*": "a color, as in the tables of label_colors.txt",
    r".*\t.*": "a row of a table",
}
"""Lines of files that annotation tools write, of which one is enough to know them."""
LISTED = r"-\s+\S.*"
"""A line of a list in YAML, of which all lines must be."""
MARK = r"\s*[:;,|=]\s*|\s+-\s+"
BEFORE = re.compile(rf"(?P<value>\d+)(?P<mark>{MARK}|[.)]?\s+)(?P<name>\S.*)")
"""A value and its name."""
BEHIND = re.compile(rf"(?P<name>\S.*?)(?P<mark>{MARK}|\s+)(?P<value>\d+)")
"""A name and its value."""
HEADERS = frozenset(
    (
        *("label", "labels", "class", "classes", "name", "names", "category", "categories"),
        *("class name", "class names", "classname", "classnames", "label name", "label names", "category name"),
    )
)
"""What a column of names is called, in lower case."""
COLUMNS = HEADERS | {"value", "id", "index", "class id", "color", "colour", "r", "g", "b", "red", "green", "blue"}
"""What the columns of a table of classes are called."""
ALIKE = frozenset(
    (
        *("class.txt", "classes.txt.txt", "classes", "classes.csv", "_classes.csv", "class_dict.csv", "classes.json"),
        *("class_names.txt", "classnames.txt", "names.txt", "classes.names", "obj.names", "label.txt", "labels.txt"),
        *("labels.csv", "labels.json", "labelmap.txt", "label_map.txt", "label_colors.txt", "label_names.txt"),
        *("classes.txt", "classes.yaml", "data.yaml", "data.yml", "dataset.yaml", "dataset.yml", "dataset.json"),
    )
)
"""Files, in lower case, in which others keep the names of classes."""


def read_class_list(path: Path, hint: str) -> tuple[str, ...]:
    """Return what the label values 0, 1, ... stand for: a name, or VOID.

    Args:
        path: of classes.txt.
        hint: ends the message where it is missing.

    Raises:
        DataError: it is missing, no text, a file of an annotation tool, or its names cannot be those of classes.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing: it must hold the names of the classes, one a line; {_alike(path)}{hint}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text: {error}") from error
    lines = {number: line.strip() for number, line in enumerate(text.split("\n"), 1) if line.strip()}
    _require_plain_list(path, lines)
    for number, name in lines.items():
        _require_name(path, number, name)
    entries = tuple(lines.values())
    _require_classes(path, [name for name in entries if name != VOID], len(entries))
    return entries


def meaning(entries: Sequence[str]) -> dict[int, int]:
    """Return label value -> class index; the classes are counted without VOID, which is IGNORE_INDEX."""
    named = [value for value, name in enumerate(entries) if name != VOID]
    return dict.fromkeys(range(len(entries)), IGNORE_INDEX) | {value: index for index, value in enumerate(named)}


def _require_plain_list(path: Path, lines: Mapping[int, str]) -> None:
    """Refuse a file of an annotation tool, whose lines would shift the names or become part of them."""
    for number, line in lines.items():
        for pattern, what in OF_OTHER_FILES.items():
            if re.fullmatch(pattern, line):
                raise DataError(f"{path}, line {number}: {line!r} is {what}; {RULE}")
    if len(lines) > 1 and all(re.fullmatch(LISTED, line) for line in lines.values()):
        number, line = next(iter(lines.items()))
        raise DataError(f"{path}, line {number}: {line!r} is of a list in YAML, as in YOLO's data.yaml; {RULE}")
    listed = list(lines.items())
    for numbered, where in ((BEFORE, "before"), (BEHIND, "behind")):
        if place := _first_numbered(listed, numbered):
            number, line = place
            raise DataError(f"{path}, line {number}: {line!r} has its value {where} the name; {RULE}")
    if listed and _is_header(listed[0][1]):
        number, line = listed[0]
        raise DataError(
            f"{path}, line {number}: {line!r} is the header of a table, and would be the class of the value 0; remove "
            f"the line, or, if a class is called so, write more of its name; {RULE}"
        )


def _is_header(line: str) -> bool:
    columns = {*re.split(r"\s*[,;|]\s*", line.casefold().replace("_", " ").rstrip(" :"))}
    return columns <= COLUMNS and not columns.isdisjoint(HEADERS)


def _alike(path: Path) -> str:
    """Name the files beside a missing classes.txt that may hold the names."""
    *_, inside = next(os.walk(path.parent), ("", [], []))
    found = ", ".join(sorted(name for name in inside if name.lower() in ALIKE))
    return f"{found} lies there and is not read: write its names to {path.name}; " if found else ""


def _first_numbered(lines: list[tuple[int, str]], pattern: re.Pattern[str]) -> tuple[int, str] | None:
    """Return the first line of a list that counts its names, perhaps below a header; `1 euro, 2 euro` are names."""
    for numbered in (lines, lines[1:]):
        found = [match for _, line in numbered if (match := pattern.fullmatch(line))]
        if 1 < len(found) == len(numbered) and _counts_up(found, pattern):
            return numbered[0]
    return None


def _counts_up(found: Sequence[re.Match[str]], pattern: re.Pattern[str]) -> bool:
    """Tell whether numbers beside names are values: from 0, or from 1 where more than a blank is between."""
    values, first = [int(match["value"]) for match in found], int(found[0]["value"])
    is_marked = all(match["mark"].strip() for match in found)
    if pattern is BEHIND and len({match["name"] for match in found}) < len(found):  # `lane 0, lane 1` are names
        return False
    if pattern is BEHIND and is_marked:
        return values == sorted({*values}) and values[-1] <= IGNORE_INDEX
    return values == list(range(first, first + len(values))) and first <= is_marked


def name_problem(name: str, instead: str = "give the class another name") -> str:
    """Return why a class cannot be called so, and what to do instead; nothing if it can."""
    if name in RESERVED:
        return f"the name {name!r} stands for {RESERVED[name]} in tables; {instead}"
    if CONTROL.search(name):
        return f"the name {name!r} holds characters that are not seen; give the class another name"
    return ""


def _require_name(path: Path, number: int, name: str) -> None:
    void = ("write - for a value that is no class",) if name == "void" else ()
    if problem := name_problem(name, *void):
        raise DataError(f"{path}, line {number}: {problem}")


def _require_classes(path: Path, names: Sequence[str], values: int) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        problem = f"names {twice[0]!r} twice" if twice else "is empty"
        raise DataError(f"{path} {problem}: it must hold the names of the classes, one a line, each once")
    if len(names) == 1:
        raise DataError(
            f"{path} names one class, {names[0]!r}: every label would be right, and nothing is learned; name what else "
            "the images show, too, such as the background"
        )
    if values > IGNORE_INDEX:
        raise DataError(f"{path} names {values} classes; at most {IGNORE_INDEX} fit into 8-bit labels")
