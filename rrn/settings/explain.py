"""What is wrong with a setting, in one line: its key, what was given, and what would do.

The words come from the types in `rrn.settings.schema`, as JSON schema states them; the right value, where the given one
shows what was meant, is tried on the type before it is named.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import cycle, islice
from typing import Annotated, Any, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from rrn.settings.limits import MOVED, NAME, near, nearest
from rrn.settings.schema import Settings
from rrn.settings.wording import short

WORDS = {True: {"true", "yes", "on", "y"}, False: {"false", "no", "off", "n"}, None: {"null", "none", "nil", "~", ""}}
"""What people write for true, false and null where YAML 1.2 reads a text."""
LONGEST = 2**64
"""Larger numbers are not repeated as a text."""
ROW = "expected what the row changes of method, in braces: {}"


def readable_errors(problems: Iterable[Any]) -> list[str]:
    """Return a readable line for each error that pydantic found in `Settings`; none says what another one does."""
    problems = list(problems)
    old = {dotted(problem["loc"]) for problem in problems if problem["type"] == "extra_forbidden"}
    moved = {new for key, new in MOVED.items() if key in old}
    lines = [_explained(problem) for problem in problems if not _follows(problem, moved)]
    return list(dict.fromkeys(lines))


def _follows(problem: Any, moved: set[str]) -> bool:
    """Return whether a list is too short only without its wrong items, or a key is missing where an old one is left."""
    if problem["type"] == "missing":
        where = dotted(problem["loc"])
        return any(key == where or key.startswith(f"{where}.") for key in moved)
    return problem["type"] == "too_short" and problem["ctx"]["actual_length"] < len(problem["input"])


def _explained(problem: Any) -> str:
    """Return the line of one error."""
    if problem["type"] == "missing" and isinstance(problem["loc"][-1], int):  # an item of a list that is too short
        return _explained({**problem, "type": "too_short", "loc": problem["loc"][:-1]})
    where, given, message = dotted(problem["loc"]), short(problem["input"]), problem["msg"]
    *parents, key = problem["loc"] or ("",)
    if problem["type"] == "invalid_key":
        return f"{dotted(parents) or 'the file'} has the key {short(key)}, which is no text; put it in quotes"
    if problem["type"] == "extra_forbidden":
        if where in MOVED:
            return f"{where} is now {MOVED[where]}"
        return f"no setting {where!r}{nearest(str(key), _section(parents).model_fields)}"
    what = f"{where} is missing" if problem["type"] == "missing" else f"{where} is {given}"
    if problem["type"] == "value_error":
        message = message.removeprefix("Value error, ")
        if isinstance(problem["input"], Mapping):
            return f"{where}: {message}" if where else message
        return f"{what}: {message}"
    if problem["loc"][-1] == "[key]":
        return f"methods has a row {given}: expected {NAME}{_hint(problem['input'], {'description': NAME}, str)}"
    if problem["loc"][0] == "methods" and len(problem["loc"]) > 1:
        return f"{what}: {ROW}"
    return f"{what}: expected {_expected(problem['input'], problem['loc'])}"


def _expected(value: Any, where: tuple[Any, ...]) -> str:
    """Say which values a setting takes and, where the given one shows it, which was meant."""
    kind = _kind(where)
    hint = _hint(value, kind, _annotation(where))
    return f"a list{hint}" if hint.startswith(": [") else f"{_words(kind)}{hint}"


def _kind(where: Iterable[Any]) -> Any:
    """Return the JSON schema of a setting, or of a section."""
    whole = Settings.model_json_schema()
    kind: Any = whole
    for key in where:
        kind = _alternatives(kind)[0]
        if isinstance(key, int):
            kind = kind["prefixItems"][key] if "prefixItems" in kind else kind["items"]
        else:
            kind = kind["properties"][key]
        kind = _with_sections(kind, whole["$defs"])
    return kind


def _with_sections(kind: Any, sections: Mapping[str, Any]) -> Any:
    """Return a JSON schema with the sections that it, or one of its alternatives, names in their place."""
    if "anyOf" in kind:
        return {**kind, "anyOf": [_with_sections(choice, sections) for choice in kind["anyOf"]]}
    return sections[kind["$ref"].rpartition("/")[2]] if "$ref" in kind else kind


def _annotation(where: Iterable[Any]) -> Any:
    """Return the type of a setting, or of an item of a list, with its limits."""
    *parents, key = where
    if isinstance(key, int):
        whole = _annotation(parents)
        lists = [kind for kind in (whole, *get_args(whole)) if get_origin(kind) is tuple]
        return get_args(lists[0])[0]
    field = _section(parents).model_fields[key]
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def _alternatives(kind: Any) -> list[Any]:
    """Return what a setting may be: one kind of value, perhaps null too."""
    inherited = {key: value for key, value in kind.items() if key == "description"}
    return [inherited | choice for choice in kind.get("anyOf", [kind])]


def _words(kind: Any) -> str:
    """Say which values a JSON schema takes."""
    return ", or ".join(_word(choice) for choice in _alternatives(kind))


def _word(kind: Any) -> str:
    """Say which values a JSON schema without alternatives takes."""
    if "properties" in kind:
        return f"a section with keys {sorted(kind['properties'])}"
    if "description" in kind:
        return str(kind["description"])
    if "enum" in kind:
        *most, last = map(str, kind["enum"])
        return f"{', '.join(most)} or {last}"
    if kind["type"] == "array":
        return _list(kind)
    return {"boolean": "true or false", "null": "null"}.get(kind["type"]) or _number(kind)


def _list(kind: Any) -> str:
    """Say what a list holds."""
    if "prefixItems" in kind:
        items = kind["prefixItems"]
        return f"a list of {len(items)}, each {_word(items[0])}"
    least = " of at least one" if kind.get("minItems") else ""
    return f"a list{least}, each {_word(kind['items'])}"


def _number(kind: Any) -> str:
    """Say which numbers lie within the limits."""
    name = "a whole number" if kind["type"] == "integer" else "a number"
    least, above = kind.get("minimum"), kind.get("exclusiveMinimum")
    most, below = kind.get("maximum"), kind.get("exclusiveMaximum")
    low = f"above {above}" if above is not None else f"from {least}"
    if most is None and below is None:
        return f"{name} {low.replace('from', 'of at least')}"
    return f"{name} {low} to {most}" if below is None else f"{name} {low} to below {below}"


def _hint(value: Any, kind: Any, annotation: Any) -> str:
    """Return ': VALUE', the first that was perhaps meant and that would do, as params.yaml holds it; or nothing."""
    for meant in _meant(value, kind):
        try:
            TypeAdapter(annotation).validate_python(meant)
        except ValidationError:
            continue
        return f": {written(meant)}"
    return ""


def _meant(value: Any, kind: Any) -> Iterator[Any]:
    """Yield what a value that does not fit may have been meant to be."""
    for choice in _alternatives(kind):
        if choice.get("type") == "array":
            yield from _lists(value, choice)
        elif choice.get("type") == "boolean":
            yield from (truth for truth in (True, False) if _says(value, truth))
        elif choice.get("type") == "null":
            yield from [None] if _says(value, None) else []
        elif "enum" in choice and not isinstance(value, list | dict):
            yield from (option for option in choice["enum"] if str(option) == near(str(value), choice["enum"]))
        elif choice.get("type") in ("integer", "number"):
            yield from _numbers(value)
        elif choice.get("description") == NAME and isinstance(value, str):
            yield re.sub(r"[^A-Za-z0-9_.]+", "_", value).lstrip("_.")
        elif isinstance(value, int | float) and abs(value) < LONGEST:
            yield written(value)


def _lists(value: Any, kind: Any) -> Iterator[list[Any]]:
    """Yield a value as a list, of the wanted length if there is one."""
    items = value if isinstance(value, list) else [value]
    yield list(islice(cycle(items), kind["minItems"])) if "prefixItems" in kind else items


def _numbers(value: Any) -> Iterator[float]:
    """Yield the number that a text, or a number with a point, is."""
    try:
        number = float(value) if isinstance(value, str | float) else math.nan
    except ValueError:
        return
    if math.isfinite(number):
        yield from [int(number), number] if number.is_integer() else [number]


def _says(value: Any, word: bool | None) -> bool:
    """Return whether a text, or 0 or 1, is another way to write true, false or null."""
    if isinstance(value, str):
        return value.strip().lower() in WORDS[word]
    return word is not None and isinstance(value, int | float) and value == word


def written(value: Any) -> str:
    """Return a value as YAML holds it: texts in quotes where they would be read as something else."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, str):
        other = any(True for _ in _numbers(value)) or any(_says(value, word) for word in WORDS)
        return value if re.fullmatch(r"[\w./-]+", value) and not other else repr(value)
    return short(value)


def _section(where: Iterable[Any]) -> Any:
    """Return the class of the section at the end of a path of keys."""
    section: Any = Settings
    for key in where:
        kind = section.model_fields[key].annotation
        section = next(iter(get_args(kind)), kind)  # of one that may be null, too
    return section


def dotted(keys: Iterable[Any]) -> str:
    """Return keys, one inside the other, as settings are called, train.steps; an odd or long one as `short`."""
    return ".".join(key if key.isprintable() and len(key) <= 80 else short(key) for key in map(str, keys))
