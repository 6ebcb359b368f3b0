"""Some classes of a data set, or several as one: `dataset.classes`. What it does not name is void. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from rrn.config import IGNORE_INDEX
from rrn.data.decoding import DataError
from rrn.data.formats import class_list
from rrn.data.formats.base import Color, Layout
from rrn.settings.limits import nearest

REST = "*"
"""In place of a name: all classes that no other line names."""
Choice = Mapping[str, tuple[int | str, ...]]
"""Name of a class -> names, or label values, of the data set that are this class."""


def choose(layout: Layout, choice: Choice) -> Layout:
    """Return a data set with other classes, in the order of their smallest label values, and the rest void.

    Args:
        layout: as the data set has it.
        choice: `dataset.classes`.

    Raises:
        DataError: a name or value is none of the data set, or is in two classes, or a class cannot be called so.
    """
    for name in choice:
        if problem := class_list.name_problem(name):
            raise _refused(problem)
    named = _named(layout, choice)
    smallest = {name: min((value for value, owner in named.items() if owner == name), default=-1) for name in choice}
    if empty := [name for name, value in smallest.items() if value < 0]:
        raise _refused(f"{empty[0]!r} has nothing: the other lines name every class of the data set")
    names = tuple(sorted(choice, key=smallest.__getitem__))
    meaning = {value: names.index(named[value]) if value in named else IGNORE_INDEX for value in layout.meaning}
    drawn = [_color(layout, sorted(value for value, owner in named.items() if owner == name)) for name in names]
    colors = tuple(color for color in drawn if color is not None)
    return replace(layout, classes=names, meaning=meaning, colors=colors if len(colors) == len(names) else ())


def _color(layout: Layout, values: list[int]) -> Color | None:
    """Return the color of the first of some label values that has one: what was void has none."""
    indices = [layout.meaning[value] for value in values]
    return next((layout.colors[index] for index in indices if layout.colors and index != IGNORE_INDEX), None)


def described(layout: Layout, choice: Choice) -> str:
    """Return, a line each, what a class is made of, and what became void.

    Args:
        layout: as the data set has it, before `choose`.
        choice: `dataset.classes`.
    """
    named = _named(layout, choice)
    parts: dict[str, list[str]] = {name: [] for name in (*choose(layout, choice).classes, "void")}
    for value, index in sorted(layout.meaning.items()):
        called = str(value) if index == IGNORE_INDEX else layout.classes[index]
        held = parts[named.get(value, "void")]
        if called not in held and (index != IGNORE_INDEX or value in named):  # what was void before goes without saying
            held.append(called)
    return "\n".join(f"{name}: {', '.join(held)}" for name, held in parts.items() if held)


def _named(layout: Layout, choice: Choice) -> dict[int, str]:
    """Return label value -> the class that it is now; void is not in it."""
    named: dict[int, str] = {}
    for name, members in choice.items():
        for value in (value for member in members if member != REST for value in _values(layout, member)):
            if named.setdefault(value, name) != name:
                raise _refused(f"{_called(layout, value)} is in {named[value]!r} and in {name!r}; keep one of them")
    rest = next((name for name, members in choice.items() if REST in members), None)
    left = [value for value, index in layout.meaning.items() if index != IGNORE_INDEX and value not in named]
    return named | dict.fromkeys(left, rest) if rest is not None else named


def _values(layout: Layout, member: int | str) -> Iterator[int]:
    """Yield the label values of a class, or the value itself."""
    if isinstance(member, int):
        if member not in layout.meaning:
            known = ", ".join(map(str, sorted(layout.meaning)))
            raise _refused(f"no label file of the data set may hold the value {member}; there are {known}")
        yield member
        return
    if member not in layout.classes:
        raise _refused(f"the data set has no class {member!r}{nearest(member, layout.classes)}")
    index = layout.classes.index(member)
    yield from (value for value, of in layout.meaning.items() if of == index)


def _called(layout: Layout, value: int) -> str:
    index = layout.meaning[value]
    return f"the value {value}" if index == IGNORE_INDEX else repr(layout.classes[index])


def _refused(problem: str) -> DataError:
    return DataError(f"dataset.classes: {problem}")
