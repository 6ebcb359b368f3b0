"""The settings that a run was made with, so far as they matter to its numbers, and how two of them differ. No torch.

Left out is what moves numbers by rounding alone, or not at all: where and how fast a run was computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from rrn import config
from rrn.config import Settings

ANYWHERE = (
    *("name", "ablation", "methods", "device", "threads", "nproc", "loading"),
    *("dataset.path", "speed.compile", "speed.checkpointing", "log.checkpoint", "log.evidence"),
    "log.tensorboard",
)
"""Settings that a piece says nothing of: sections, or keys of one."""
ABSENT = object()


def made_with(settings: Settings) -> dict[str, Any]:
    """Return what a run was made with, as JSON holds it, the same on every machine.

    Args:
        settings: with the row of the run laid on `method`.

    Returns:
        sections without what is in `ANYWHERE`; `model` as `without_folders` returns it.
    """
    values = settings.model_dump(mode="json")
    values["model"] = without_folders(values["model"])
    return _without(values)


def without_folders(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section `model` with weights called without the folder of their file: timm@DIR/a.pth -> timm@a.pth."""
    named = {**model, "weights": _without_folder(model["weights"])}
    if second := model["second"]:
        named["second"] = {**second, "weights": _without_folder(second["weights"])}
    return named


def _without_folder(weights: str | None) -> str | None:
    source, at, file = (weights or "").rpartition("@")
    if at or file.endswith((".safetensors", ".pth")):
        return f"{source}{at}{Path(file).name}"
    return weights


def of_row(settings: Settings, method: str) -> Settings:
    """Return settings with a row of `methods:` laid on `method`."""
    return settings.model_copy(update={"method": config.in_row(settings, method)})


def first_difference(held: Mapping[str, Any], settings: Settings) -> str:
    """Say in which key a run that was made with `held` differs from one of `settings`: the first, or nothing.

    Args:
        held: of `made_with`, perhaps of an earlier version: a key that it lacks counts as its default.
        settings: with the row of the run laid on `method`.
    """
    theirs = _without(with_defaults(config.up_to_date(held), type(settings)))
    return next(_differences(theirs, made_with(settings)), "")


def with_defaults(held: Mapping[str, Any], section: type[BaseModel]) -> dict[str, Any]:
    """Return settings that an earlier version has written, with the defaults of keys that are new since, at any depth.

    Args:
        held: as JSON holds them.
        section: what they are of; a key without a default stays away.
    """
    full = dict(held)
    for key, field in section.model_fields.items():
        if key not in full and not field.is_required():
            full[key] = to_jsonable_python(field.get_default(call_default_factory=True))
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel) and key in full:
            full[key] = with_defaults(full[key], field.annotation)
    return full


def _without(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return nested settings without what is in `ANYWHERE`."""
    return {
        key: _without(value, f"{key}.") if isinstance(value, Mapping) and not where else value
        for key, value in values.items()
        if f"{where}{key}" not in ANYWHERE
    }


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Yield `key: value there, here value` for each key in which nested settings differ."""
    for key in dict.fromkeys([*ours, *theirs]):
        there, here = theirs.get(key, ABSENT), ours.get(key, ABSENT)
        if isinstance(there, Mapping) and isinstance(here, Mapping):
            yield from _differences(there, here, f"{where}{key}.")
        elif there != here:
            said = ["absent" if value is ABSENT else config.short(value) for value in (there, here)]
            yield f"{where}{key}: {said[0]}, here {said[1]}"
