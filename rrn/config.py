"""Settings: params.yaml and a row of its ablation table -> one frozen, validated object.

params.yaml is the one source of every setting. A row of `methods:` is a difference to `method:`; `load("rrn")` merges
the two, so that nothing else in the package knows rows by name. A key that does not exist, a wrong type, or a switch
that needs another is a `SettingsError` that names the key and says what to do.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from rrn.runtime.errors import SettingsError
from rrn.settings.explain import readable_errors
from rrn.settings.limits import MOVED, ONE_VALUE, PositiveInt, Section, nearest, up_to_date
from rrn.settings.rows import JUDGED, Discriminator, Filter, Method, Negative, Strong
from rrn.settings.schema import (
    IGNORE_INDEX,
    Augment,
    CutMix,
    Dataset,
    Evaluate,
    Loading,
    Model,
    Optimizer,
    Schedule,
    Settings,
    Speed,
)
from rrn.settings.wording import short

__all__ = [
    "IGNORE_INDEX",
    "JUDGED",
    "ONE_VALUE",
    "Augment",
    "CutMix",
    "Dataset",
    "Discriminator",
    "Evaluate",
    "Filter",
    "Loading",
    "Method",
    "Model",
    "Negative",
    "Networks",
    "Optimizer",
    "Schedule",
    "Settings",
    "SettingsError",
    "Speed",
    "Strong",
    "find_root",
    "fingerprint",
    "in_row",
    "load",
    "merge",
    "parse",
    "read",
    "resolve",
    "short",
    "up_to_date",
]

MOST_PROBLEMS = 20
"""Of one message."""


class Networks(Section):
    """What the networks of a run are built from: the part of the settings that a finished run keeps."""

    model: Model
    method: Method
    region: PositiveInt


def find_root(start: Path | None = None) -> Path:
    """Return the nearest folder at or above `start` (default: the current one) that holds params.yaml and dvc.yaml.

    Raises:
        FileNotFoundError: if there is none.
        SettingsError: it was found from the current folder and has code of its own, which is not what runs.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").exists() and (folder / "dvc.yaml").exists():
            if start is None:
                _require_own_code(folder)
            return folder
    raise FileNotFoundError(f"no params.yaml beside a dvc.yaml in {here} or above it: start in the repository")


def _require_own_code(root: Path) -> None:
    """Refuse the settings of one clone for the code of another, or of an installed copy."""
    own, running = root / "rrn", Path(__file__).resolve().parent
    if (own / "__init__.py").is_file() and not own.samefile(running):
        raise SettingsError(
            f"the code that runs is {running}, and the settings are those of {root}, which has code of its own: "
            f"run `pip install -e '{root}'` with this Python, {sys.executable}, and restart; "
            f"or start in the repository of {running}"
        )


def load(method: str | None = None, overrides: Mapping[str, Any] | None = None, root: Path | None = None) -> Settings:
    """Read params.yaml and resolve one row of the ablation table.

    Args:
        method: name of a row of `methods:`; None leaves the defaults of `method:`.
        overrides: nested differences applied last, for a quick interactive try.
        root: folder of params.yaml; default `find_root()`.

    Raises:
        SettingsError: names the key, what was expected, and the nearest existing name.
    """
    path = (root or find_root()) / "params.yaml"
    return resolve(read(path), method, overrides)


def read(path: Path) -> dict[str, Any]:
    """Read a file of settings, as `parse` does.

    Raises:
        SettingsError: it cannot be read, is no UTF-8 text, holds no keys and values, or as `parse`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path.name} is no UTF-8 text ({error}): save it as UTF-8") from error
    except (IsADirectoryError, PermissionError) as error:
        raise SettingsError(f"{path.name} cannot be read: {error}") from error
    values = parse(text, path.name)
    if not isinstance(values, dict):
        raise SettingsError(f"{path.name}: expected keys and values, found {short(values) if values else 'none'}")
    return values


def parse(text: str, source: str) -> Any:
    """Read YAML 1.2 as DVC does (1e-3 is a number, `no` a string) into plain Python values.

    Args:
        text: keys and values, or a value.
        source: what the text is of, for messages.

    Raises:
        SettingsError: it is not valid YAML; says where.
    """
    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = where + ", ".join(filter(None, (error.context, error.problem)))
        problem += "; write '*' in quotes" if "alias" in problem else ""
    except RecursionError:
        problem = "nested too deeply"
    except (YAMLError, ValueError, LookupError) as error:  # such as the date 2001-99-99
        problem = f"a value is none of its kind: {error}".partition("\n")[0]
    raise SettingsError(f"{source} is not valid YAML: {problem}")


def resolve(
    params: Mapping[str, Any], method: str | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Merge `overrides` and a row of `methods:` into `params` and validate; every other row is validated too.

    A row that nothing asks for may be one that `model.second` does not go with.

    What `overrides` says of `method` is laid on last, over the row.

    Raises:
        SettingsError: see `load`.
    """
    overrides = dict(overrides or {})
    last = {"method": overrides.pop("method")} if "method" in overrides else {}
    merged = merge(params, overrides)
    rows = _validate(merged, "").methods
    if method is not None and method not in rows:
        raise SettingsError(f"params.yaml: methods has no row {short(method)}{nearest(method, rows)}")
    lists = merged["ablation"]
    asked = {*lists["methods"], lists["explore"], method}
    for row in rows:
        laid = _with_row(merged, row)
        if row not in asked:  # it needs no second segmenter that it could learn with
            laid = merge(laid, {"model": {"second": None}}) if "second" in laid["model"] else laid
        _validate(laid, f"methods.{row}: ")
    return _validate(merge(_with_row(merged, method), last), "" if method is None else f"methods.{method}: ")


def merge(base: Mapping[str, Any], over: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return `base` with `over` laid on it, section by section; rows of `methods:` may be new, other keys may not.

    null takes the place of a section, and a section that of null; whether it may be null, the schema says.

    Raises:
        SettingsError: if `over` has a key that `base` has not.
    """
    result = copy.deepcopy(dict(base))
    for key, value in over.items():
        name = f"{where}{key}"
        if key not in result and where not in ("methods.",) and not where.startswith("methods."):
            if name in MOVED:
                raise SettingsError(f"params.yaml: {name} is now {MOVED[name]}")
            raise SettingsError(f"params.yaml has no setting {short(name)}{nearest(str(key), result)}")
        section = result.get(key) if name not in ONE_VALUE else None
        if isinstance(section, Mapping) and isinstance(value, Mapping):
            value = merge(section, value, f"{name}.")
        elif isinstance(section, Mapping) and value is not None:
            raise SettingsError(f"params.yaml: {name} is a section with keys {sorted(section)}, not {short(value)}")
        result[key] = value
    return result


def in_row(settings: Settings, row: str) -> Method:
    """Return the section `method` of settings with one row of `methods:` laid on it."""
    return Method.model_validate(merge(settings.method.model_dump(), settings.methods[row], "method."))


def fingerprint(values: Any) -> str:
    """Return 12 hexadecimal digits that identify settings, or anything JSON can hold."""
    if isinstance(values, BaseModel):
        values = values.model_dump(mode="json")
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _with_row(params: dict[str, Any], method: str | None) -> dict[str, Any]:
    """Return `params` with one row laid on `method:`."""
    row = {} if method is None else params["methods"][method]
    try:
        return {**params, "method": merge(params["method"], row, "method.")}
    except SettingsError as error:
        raise SettingsError(re.sub(r"\bmethod\.", f"methods.{method}.", str(error), count=1)) from error


def _validate(params: Mapping[str, Any], prefix: str) -> Settings:
    """Check all values; every problem stands in one message."""
    try:
        return Settings.model_validate(params)
    except ValidationError as error:
        lines = readable_errors(error.errors())
        lines[MOST_PROBLEMS:] = [f"and {len(lines) - MOST_PROBLEMS} more"] if len(lines) > MOST_PROBLEMS else []
        raise SettingsError("\n".join(f"params.yaml: {prefix}{line}" for line in lines)) from error
