"""classes.txt of a data set of one's own: which label value stands for which class. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rrn.config import IGNORE_INDEX
from rrn.data.files import CONTROL, DataError

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
    r"[^:]*:\d+,\d+,\d+:[^:]*:[^:]*": "a line of CVAT's labelmap.txt",
    r"(?i:pixel value\s*,\s*class)": "the header of Roboflow's _classes.csv",
    r"__ignore__": "the first line of labelme's labels.txt, which has no label value (remove it)",
    r"(names|nc|path|train|val|test)\s*:.*": "a key of YOLO's data.yaml",
    r"[\[{]|\[.*,.*\]|\{.*:.*\}?": "a list in JSON or YAML, such as the names of YOLO's data.yaml",
    r"[^,]+(,\s*\d{1,3}){3}": "a color, as in the tables of class_dict.csv",
    r"(\d{1,3}[\s,]+){3}\S.*": "a color, as in the tables of label_colors.txt",
    r".*\t.*": "a row of a table",
}
"""Lines of files that annotation tools write, of which one is enough to know them."""
LISTED = r"-\s+\S.*"
"""A line of a list in YAML, of which all lines must be."""
NUMBERED = re.compile(r"(\d+)(\s*[:;,]\s*|[.)]?\s+)\S.*")
"""A value and its name."""


def read(path: Path, hint: str) -> tuple[str, ...]:
    """Return what the label values 0, 1, ... stand for: a name, or VOID.

    Args:
        path: of classes.txt.
        hint: ends the message where it is missing.

    Raises:
        DataError: it is missing, no text, a file of an annotation tool, or its names cannot be those of classes.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing: it must hold the names of the classes, one a line; {hint}")
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
    if place := _first_numbered(list(lines.items())):
        number, line = place
        raise DataError(f"{path}, line {number}: {line!r} has its value before the name; {RULE}")


def _first_numbered(lines: list[tuple[int, str]]) -> tuple[int, str] | None:
    """Return the first line of a list that counts its names, perhaps below a header; `1 euro, 2 euro` are names."""
    for numbered in (lines, lines[1:]):
        found = [NUMBERED.fullmatch(line) for _, line in numbered]
        values = [int(match[1]) for match in found if match]
        first = values[0] if values else 0
        marked = all(match and match[2].strip() for match in found)
        if 1 < len(values) == len(found) and values == list(range(first, first + len(values))) and first <= marked:
            return numbered[0]
    return None


def _require_name(path: Path, number: int, name: str) -> None:
    """Refuse names that mean something else in tables, or hide."""
    if name in RESERVED:
        instead = "write - for a value that is no class" if name == "void" else "give the class another name"
        raise DataError(f"{path}, line {number}: the name {name!r} stands for {RESERVED[name]} in tables; {instead}")
    if CONTROL.search(name):
        raise DataError(
            f"{path}, line {number}: the name {name!r} holds characters that are not seen; give the class another name"
        )


def _require_classes(path: Path, names: Sequence[str], values: int) -> None:
    """Refuse too few or too many classes, and one twice."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        problem = f"names {twice[0]!r} twice" if twice else "is empty"
        raise DataError(f"{path} {problem}: it must hold the names of the classes, one a line, each once")
    if len(names) == 1:
        raise DataError(
            f"{path} names one class, {names[0]!r}: every label would be right, and nothing is learnt; name what else "
            "the images show, too, such as the background"
        )
    if values > IGNORE_INDEX:
        raise DataError(f"{path} names {values} classes; at most {IGNORE_INDEX} fit into 8-bit labels")
