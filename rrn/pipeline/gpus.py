"""Which GPU a stage gets where several stages run side by side on one machine. No torch.

`RRN_DEVICES=0,1` names the GPUs that they share out among themselves, as CUDA_VISIBLE_DEVICES would: each stage takes
one that no other has, or waits for it, and sees no other. Unset, a stage sees what it is given.
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import quote

POLL = 0.5
"""Seconds between two looks for a free device."""


@contextmanager
def taken() -> Iterator[str | None]:
    """Hold one device of RRN_DEVICES, the only one in CUDA_VISIBLE_DEVICES inside; None where RRN_DEVICES is unset."""
    wanted = [device.strip() for device in os.environ.get("RRN_DEVICES", "").split(",") if device.strip()]
    if not wanted:
        yield None
        return
    device, lock = _wait(wanted)
    with lock:
        before = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = device
        try:
            yield device
        finally:
            os.environ.pop("CUDA_VISIBLE_DEVICES")
            os.environ.update({} if before is None else {"CUDA_VISIBLE_DEVICES": before})


def _wait(wanted: Sequence[str]) -> tuple[str, IO[str]]:
    """Return a device that no other process holds, and its open lock."""
    told = False
    while not (free := _free(wanted)):
        if not told:
            print(f"waiting for a free device of RRN_DEVICES={','.join(wanted)}", file=sys.stderr, flush=True)
        told = True
        time.sleep(POLL)
    return free


def _free(wanted: Sequence[str]) -> tuple[str, IO[str]] | None:
    """Take the first device that is free; the kernel gives it back when this process ends, however it does."""
    folder = Path(tempfile.gettempdir(), f"rrn-devices-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    for device in wanted:
        lock = (folder / quote(device, safe="")).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
        else:
            return device, lock
    return None
