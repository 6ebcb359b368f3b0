"""Which GPU a stage gets where several stages run side by side on one machine. No torch.

`RRN_DEVICES=0,1` names the GPUs that they share out among themselves, as CUDA_VISIBLE_DEVICES would: each stage takes
one that no other has, or waits for it, and sees no other. Unset, a stage sees what it is given.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from rrn.runtime import locking

POLL = 0.5
"""Seconds between two looks for a free device."""


@contextmanager
def reserve() -> Iterator[str | None]:
    """Hold one device of RRN_DEVICES, the only one in CUDA_VISIBLE_DEVICES inside; None where RRN_DEVICES is unset."""
    wanted = [device.strip() for device in os.environ.get("RRN_DEVICES", "").split(",") if device.strip()]
    if not wanted:
        yield None
        return
    with ExitStack() as lock:
        device = _wait(wanted, lock)
        before = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = device
        try:
            yield device
        finally:
            os.environ.pop("CUDA_VISIBLE_DEVICES")
            os.environ.update({} if before is None else {"CUDA_VISIBLE_DEVICES": before})


def _wait(wanted: Sequence[str], lock: ExitStack) -> str:
    """Hold the first device that is or gets free, and return it; the kernel gives it back when this process ends."""
    folder = Path(tempfile.gettempdir(), f"rrn-devices-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    told = False
    while True:
        for device in wanted:
            with suppress(locking.LockedError):
                lock.enter_context(locking.held(folder / quote(device, safe="")))
                return device
        if not told:
            print(f"waiting for a free device of RRN_DEVICES={','.join(wanted)}", file=sys.stderr, flush=True)
        told = True
        time.sleep(POLL)
