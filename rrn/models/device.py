"""The device of `device:` in params.yaml, as torch knows it."""

from __future__ import annotations

import torch

from rrn.config import SettingsError

KNOWN = ("cpu", "cuda", "meta")
"""Kinds of devices that runs are tested on; meta computes nothing."""
NO_DEVICE = "device: {!r} is none of auto, cpu, cuda, cuda:0, cuda:1 ..."


def resolve_device(device: str) -> torch.device:
    """Resolve a device: auto (a GPU if there is one), or what torch calls it.

    Raises:
        SettingsError: there is no device of that name, or a GPU is asked for and there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise SettingsError(NO_DEVICE.format(device)) from error
    if wanted.type not in KNOWN:
        raise SettingsError(NO_DEVICE.format(device))
    known = torch.cuda.device_count()
    if wanted.type == "cuda" and known and (wanted.index or 0) >= known:
        raise SettingsError(f"device: {device}, but torch sees {known} GPUs here, the first is cuda:0")
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise SettingsError(
            f"device: {device}, but torch sees no GPU here; set device: auto or cpu, "
            "or install a driver and a CUDA build of torch"
        )
    return wanted
