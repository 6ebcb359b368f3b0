"""Lay presets on params.yaml, comments kept: `python -m rrn.preset NAME... [key=value ...]`.

A preset is a small file `presets/NAME.yaml` with the settings that differ; `python -m rrn.preset camvid
dataset.path=DIR` lays one on and sets a key more. Nothing is written unless the outcome is valid. What an earlier one
has left stays: `git diff params.yaml` shows it, `git checkout params.yaml` begins anew.
"""

from __future__ import annotations

import copy
import difflib
import io
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.representer import RoundTripRepresenter, SafeRepresenter

from rrn import config
from rrn.pipeline import buildable
from rrn.runtime import atomic_io, places

PLACEHOLDER = "DIR"
"""A value in a preset that only the user can know."""


def names(root: Path) -> list[str]:
    """Return the names of the presets."""
    return sorted(path.stem for path in (root / "presets").glob("*.yaml"))


def read_preset(root: Path, name: str) -> Any:
    """Read one preset.

    Raises:
        config.SettingsError: there is no such preset, or it is no mapping.
    """
    known = names(root)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise config.SettingsError(f"no preset {name!r}; {hint}there are {', '.join(known)}")
    path = root / "presets" / f"{name}.yaml"
    config.read(path)
    return _yaml().load(path.read_text(encoding="utf-8"))


def assignment(item: str) -> dict[str, Any]:
    """Turn `a.b=1` into {"a": {"b": 1}}.

    Raises:
        config.SettingsError: it is no `key=value`, or as `config.parse`.
    """
    key, equals, text = item.partition("=")
    if not equals or not key:
        raise config.SettingsError(f"expected key=value, got {config.short(item)}")
    config.parse(text, f"{key if key.isprintable() else config.short(key)}: {config.short(text)}")
    value = _yaml().load(text)
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def lay(values: MutableMapping[str, Any], over: Mapping[str, Any], where: str = "") -> None:
    """Lay `over` on `values` in place, so that the comments of `values` stay; `where` is their section, and a dot."""
    for key, value in over.items():
        old = values.get(key) if f"{where}{key}" not in config.ONE_VALUE else None
        if isinstance(old, MutableMapping) and isinstance(value, Mapping):
            lay(old, value, f"{where}{key}.")
        elif isinstance(old, CommentedSeq) and isinstance(value, CommentedSeq):
            old.clear()
            old.extend(value)
            if value.fa.flow_style():
                old.fa.set_flow_style()
        else:
            values[key] = copy.deepcopy(value)


def apply(root: Path, items: list[str]) -> str:
    """Return the text of params.yaml with presets and assignments laid on it, one after the other.

    Raises:
        config.SettingsError: unknown preset or key, or the outcome is not valid.
    """
    text = (root / "params.yaml").read_text(encoding="utf-8")
    values, plain = _yaml().load(text), config.read(root / "params.yaml")
    for item in items:
        source = "command line" if "=" in item else f"presets/{item}.yaml"
        over = assignment(item) if "=" in item else read_preset(root, item)
        _expand(over)
        try:
            plain = config.merge(plain, over)
        except config.SettingsError as error:
            raise config.SettingsError(f"{source}: {error}") from error
        lay(values, over)
    stream = io.StringIO()
    _yaml().dump(values, stream)
    settings = config.resolve(config.parse(stream.getvalue(), "params.yaml"))
    if settings.dataset.path == PLACEHOLDER:
        raise config.SettingsError(
            f"dataset.path: say where the data set lies, python -m rrn.preset {' '.join(items)} dataset.path=DIR"
        )
    return stream.getvalue()


def _expand(over: Any) -> None:
    """Write out the paths of a preset or an assignment: a shell leaves dataset.path=~/data as it is, DVC too."""
    for section, key in (("dataset", "path"), ("model", "weights")):
        values = over.get(section)
        if isinstance(values, MutableMapping) and isinstance(values.get(key), str):
            values[key] = places.expanded(values[key])


def require_buildable_rows(root: Path, text: str) -> None:
    """Refuse the text of params.yaml if it changes the networks to some that cannot be built.

    Raises:
        config.SettingsError, atomic_io.WriteError: see `buildable.require`.
    """
    settings = config.resolve(config.parse(text, "params.yaml"))
    try:
        before = buildable.identity(config.load(root=root))
    except config.SettingsError:  # what is mended here
        before = {}
    if buildable.identity(settings) != before:
        buildable.require_or_note(root, settings)


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    items = sys.argv[1:] if argv is None else argv
    try:
        root = config.find_root()
        if not items or items[0].startswith("-"):
            print(f"{__doc__}\npresets: {', '.join(names(root))}", file=sys.stderr)
            return 2
        text = apply(root, items)
        require_buildable_rows(root, text)
        atomic_io.write(root / "params.yaml", text)
    except (config.SettingsError, FileNotFoundError, atomic_io.WriteError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


class _Representer(RoundTripRepresenter):
    """Writes None as `null` rather than as nothing."""


_Representer.add_representer(type(None), SafeRepresenter.represent_none)


def _yaml() -> YAML:
    """Return a round-trip reader and writer that leaves long lines, quotes and null alone."""
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.width, yaml.preserve_quotes = 1000, True
    return yaml


if __name__ == "__main__":
    raise SystemExit(main())
