"""Peak memory of a training step, case by case as in rivals.py, each in a process of its own.

What is reported is the peak of the resident memory over three steps less what was resident before the first: gradients,
momentum and activations, not the networks. glibc decides what it gives back to the system; a fixed threshold
(MALLOC_MMAP_THRESHOLD_=65536, MALLOC_TRIM_THRESHOLD_=0, MALLOC_ARENA_MAX=1) makes the peak that of the tensors alive.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from measuring import Row, apart, ratio, row
from rivals import STANDARDS, builders

STEPS = 3
FREED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_ARENA_MAX": "1"}
STATUS = Path("/proc/self/status")
RESET_PEAK = "5"
"""What /proc/self/clear_refs takes for: the peak begins anew."""


def peak(name: str, quick: bool) -> float:
    """Return the MB that the steps of a case need at their peak, in this process."""
    return peak_of(builders(quick)[name](), STEPS)


def peak_of(function: Callable[[], object], calls: int) -> float:
    """Return the MB that calls of a function need at their peak, on top of what is resident before."""
    gc.collect()
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    for _ in range(calls):
        function()
    return _resident("VmHWM") - before


def _resident(kind: str) -> float:
    """Return MB of resident memory: VmRSS now, VmHWM at the peak."""
    found = re.search(rf"^{kind}:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    assert found, f"{STATUS} says nothing of {kind}"
    return int(found[1]) * 1024 / 1e6


def rows(quick: bool) -> list[Row]:
    """Measure MB at the peak, and each case as a multiple of the reference and of cps_cutmix."""
    names = list(STANDARDS) if quick else list(builders(quick))
    with patch.dict(os.environ, FREED_AT_ONCE):
        peaks = {name: [apart(peak, name, quick)] for name in names}
    found = [row(name, "peak", "MB", taken) for name, taken in peaks.items()]
    for standard in STANDARDS:
        found += [ratio(name, f"peak, times {standard}", taken, peaks[standard]) for name, taken in peaks.items()]
    return found
