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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from rrn.schema import (
    IGNORE_INDEX,
    Augment,
    CutMix,
    Dataset,
    Discriminator,
    Evaluate,
    Filter,
    Method,
    Model,
    Networks,
    Optimizer,
    Schedule,
    Settings,
    SettingsError,
    Speed,
    nearest,
)

__all__ = [
    "IGNORE_INDEX",
    "Augment",
    "CutMix",
    "Dataset",
    "Discriminator",
    "Evaluate",
    "Filter",
    "Method",
    "Model",
    "Networks",
    "Optimizer",
    "Schedule",
    "Settings",
    "SettingsError",
    "Speed",
    "find_root",
    "fingerprint",
    "in_row",
    "load",
    "merge",
    "read",
    "resolve",
]


def find_root(start: Path | None = None) -> Path:
    """Return the nearest folder at or above `start` (default: the current one) that holds params.yaml and dvc.yaml.

    Raises:
        FileNotFoundError: if there is none.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").exists() and (folder / "dvc.yaml").exists():
            return folder
    raise FileNotFoundError(f"no params.yaml beside a dvc.yaml in {here} or above it: start in the repository")


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
    """Read a YAML 1.2 file as DVC does (1e-3 is a number, `no` a string) into plain Python values."""
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise SettingsError(f"{path.name} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path.name}: expected keys and values, found {type(values).__name__}")
    return values


def resolve(
    params: Mapping[str, Any], method: str | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Merge `overrides` and a row of `methods:` into `params` and validate; every other row is validated too.

    What `overrides` says of `method` is laid on last, over the row.

    Raises:
        SettingsError: see `load`.
    """
    overrides = dict(overrides or {})
    last = {"method": overrides.pop("method")} if "method" in overrides else {}
    merged = merge(params, overrides)
    rows = merged.get("methods") or {}
    if method is not None and method not in rows:
        raise SettingsError(f"params.yaml: methods has no row {method!r}{nearest(method, rows)}")
    _validate(merged, "")
    for row in rows:
        _validate(_with_row(merged, row), f"methods.{row}: ")
    return _validate(merge(_with_row(merged, method), last), "" if method is None else f"methods.{method}: ")


def merge(base: Mapping[str, Any], over: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return `base` with `over` laid on it, section by section; rows of `methods:` may be new, other keys may not.

    Raises:
        SettingsError: if `over` has a key that `base` has not.
    """
    result = copy.deepcopy(dict(base))
    for key, value in over.items():
        name = f"{where}{key}"
        if key not in result and where not in ("methods.",) and not where.startswith("methods."):
            raise SettingsError(f"params.yaml has no setting {name!r}{nearest(str(key), result)}")
        section = result.get(key)
        if isinstance(section, Mapping) and isinstance(value, Mapping):
            value = merge(section, value, f"{name}.")
        elif isinstance(section, Mapping):
            raise SettingsError(f"params.yaml: {name} is a section with keys {sorted(section)}, not {value!r}")
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
        lines = [_explain(problem, params) for problem in error.errors()]
        raise SettingsError("\n".join(f"params.yaml: {prefix}{line}" for line in lines)) from error


def _explain(problem: Any, params: Mapping[str, Any]) -> str:
    """Return one readable line of a pydantic error."""
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        *parents, key = problem["loc"]
        model: Any = Settings
        for parent in parents:
            model = model.model_fields[parent].annotation
        return f"no setting {where!r}{nearest(str(key), model.model_fields)}"
    if problem["type"] == "missing":
        return f"{where} is missing"
    message = re.sub(r"^Value error, ", "", problem["msg"])
    if problem["type"] == "value_error":
        return f"{where}: {message}" if where else message
    return f"{where} is {problem['input']!r}: {message}"
