"""Source code as far as it can change a result: without comments, docstrings and blank lines.

The text is cut, never written anew, so that all versions of Python agree on what is left.
"""

from __future__ import annotations

import ast
import functools
import io
import tokenize
from collections.abc import Iterator
from importlib.util import decode_source
from pathlib import Path

Position = tuple[int, int]
"""Line and column of a character, both from 0."""
Line = tuple[str, bool]
"""Its text, and whether it begins within a string."""
STRINGS = {"FSTRING_START": 1, "FSTRING_END": -1, "TSTRING_START": 1, "TSTRING_END": -1}
"""Tokens of which newer versions of Python make one string that holds values, among which strings may be again."""


def contents(path: Path) -> bytes:
    """Return the bare source of a Python file as UTF-8; any other file, and one that is no Python, as it is."""
    held = path.read_bytes()
    if path.suffix != ".py":
        return held
    try:
        return bare(decode_source(held)).encode()
    except (SyntaxError, ValueError):  # whoever imports it says what is wrong
        return held


@functools.cache
def bare(source: str) -> str:
    """Return Python source without comments, blank lines, and strings that are statements, such as docstrings.

    Where a block holds nothing else, `pass` takes their place.

    Raises:
        SyntaxError: it is no Python.
    """
    source = source.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    texts = source.split("\n")
    cuts = list(_documents(ast.parse(source), texts))
    comments, inside = _comments_and_strings(source)
    lone = [place for place in comments if not any(start < place < end for start, end, _ in cuts)]
    cuts += [((line, column), (line, len(texts[line])), "") for line, column in lone]
    lines = [(text, number in inside) for number, text in enumerate(texts)]
    for (first, left), (last, right), instead in sorted(cuts, reverse=True):
        lines[first : last + 1] = [(lines[first][0][:left] + instead + lines[last][0][right:], lines[first][1])]
    return "".join(f"{text}\n" for text in _filled(lines))


def _comments_and_strings(source: str) -> tuple[list[Position], set[int]]:
    """Return where comments begin, and the lines that begin within a string."""
    comments: list[Position] = []
    inside: set[int] = set()
    opened: list[int] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        first, last = token.start[0] - 1, token.end[0] - 1
        step = STRINGS.get(tokenize.tok_name[token.type], 0)
        if step > 0:
            opened.append(first)
        elif step < 0:
            inside |= set(range(opened.pop() + 1, last + 1))
        elif token.type == tokenize.STRING:
            inside |= set(range(first + 1, last + 1))
        elif token.type == tokenize.COMMENT and not opened:
            comments.append((first, token.start[1]))
    return comments, inside


def _documents(tree: ast.Module, texts: list[str]) -> Iterator[tuple[Position, Position, str]]:
    """Yield the spans of strings that are statements, and what takes their place."""
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            found = getattr(node, name, None)
            block = found if isinstance(found, list) else []
            strings = [part for part in block if _is_string(part)]
            for number, string in enumerate(strings):
                start, end = _span(string, texts)
                shared = texts[start[0]][: start[1]] + texts[end[0]][end[1] :].partition("#")[0]
                last_of_block = node is not tree and number == 0 and len(strings) == len(block)
                yield start, end, "pass" if shared.strip() or last_of_block else ""


def _is_string(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _span(node: ast.stmt, texts: list[str]) -> tuple[Position, Position]:
    """Return where a statement starts and ends; ast counts lines from 1, and bytes."""
    assert node.end_lineno is not None and node.end_col_offset is not None
    found = (node.lineno - 1, node.col_offset), (node.end_lineno - 1, node.end_col_offset)
    start, end = ((line, len(texts[line].encode()[:column].decode())) for line, column in found)
    return start, end


def _filled(lines: list[Line]) -> Iterator[str]:
    """Yield lines, but for blank ones; what lies in a string stays, and the line in which a backslash goes on."""
    within = [inside for _, inside in lines[1:]] + [False]
    continued = False
    for (text, inside), unfinished in zip(lines, within, strict=True):
        kept = text if unfinished else text.rstrip()
        if kept or inside or continued:
            yield kept
        continued = not unfinished and kept.endswith("\\")
