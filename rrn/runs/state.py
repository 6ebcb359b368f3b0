"""State of a run as one file: tensors as safetensors, everything else as JSON beside them, and a checksum of both.

Nothing that is read here can execute code, and a file of which a byte has changed is not read at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rrn.runtime import atomic_io

TENSOR = "tensor"
"""Key of the JSON object that stands for a tensor, and names it."""


class DamagedError(ValueError):
    """A file is not what was written: cut off, changed, or of another kind."""


def write(path: Path, value: dict[str, Any]) -> None:
    """Write a value and read it back; a failure leaves the former file, or none.

    Args:
        path: of the file.
        value: dictionaries with strings as keys, lists, numbers, strings, None, and tensors of any type and device.

    Raises:
        WriteError: it cannot be written; the message names the path.
        DamagedError: what was read back is not what was written.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_without_tensors(value, "", tensors))
    digest = _digest(text, tensors, tensors.__getitem__)

    with atomic_io.file(path, lasting=True) as unfinished:
        save_tensors(tensors, unfinished, {"state": text, "digest": digest})
        if _checked(unfinished)[1] != digest:
            raise DamagedError(f"{path}: what was read back is not what was written; the disk may be failing")


def save_tensors(tensors: dict[str, Tensor], path: Path, about: dict[str, str] | None = None) -> None:
    """Write a .safetensors file.

    Raises:
        OSError: as the system says it, which safetensors wraps.
    """
    try:
        save_file(tensors, path, about)
    except SafetensorError as error:
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            number = int(found[1])
            raise OSError(number, os.strerror(number)) from error
        raise


def read(path: Path) -> dict[str, Any]:
    """Return what was written, tensors on the CPU.

    Raises:
        DamagedError: names the file and what is wrong with it.
    """
    text, _ = _checked(path)
    with safe_open(path, "pt") as file:
        found: dict[str, Any] = _with_tensors(json.loads(text), file.get_tensor)
    return found


def _checked(path: Path) -> tuple[str, str]:
    """Return the JSON of a file and its checksum, which is right."""
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            text, digest = about.get("state"), about.get("digest")
            if text is None or digest is None:
                raise DamagedError(f"{path} is no state of a run")
            found = _digest(text, file.keys(), file.get_tensor)
    except (SafetensorError, OSError) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from error
    if found != digest:
        raise DamagedError(f"{path} is damaged: its checksum is not that of what is in it")
    return text, digest


def _digest(text: str, names: Iterable[str], tensor: Callable[[str], Tensor]) -> str:
    """Return the checksum of JSON and tensors: names, types, shapes and values."""
    found = hashlib.sha256(text.encode())
    for name in sorted(names):
        values = tensor(name)
        found.update(f"{name} {values.dtype} {list(values.shape)}".encode())
        found.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _without_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return a value with names in the place of tensors, which are put into `tensors`."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        return {TENSOR: name}
    if isinstance(value, Mapping):
        return {key: _without_tensors(part, f"{name}/{key}", tensors) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_tensors(part, f"{name}/{index}", tensors) for index, part in enumerate(value)]
    return value


def _with_tensors(value: Any, tensor: Callable[[str], Tensor]) -> Any:
    """Return a value with tensors in the place of their names."""
    if isinstance(value, dict):
        if value.keys() == {TENSOR}:
            return tensor(value[TENSOR])
        return {key: _with_tensors(part, tensor) for key, part in value.items()}
    return [_with_tensors(part, tensor) for part in value] if isinstance(value, list) else value
