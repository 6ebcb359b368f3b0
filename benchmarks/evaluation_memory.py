"""Peak memory of a look at one image of 1024 x 2048, whole and in windows, as in sliding.py; a process for each case.

    python benchmarks/run.py evaluation_memory

On top of the networks of all cases; measured as in memory.py.
"""

from __future__ import annotations

import torch
from measuring import Row, apart, row
from memory import FREED_AT_ONCE, environment, peak_of
from sliding import CASES, FULL, RIVALS, THREADS, TINY, lookers


def peak(name: str, quick: bool) -> float:
    """Return the MB that a look at the image needs at its peak, in this process."""
    torch.set_num_threads(THREADS)
    return peak_of(lookers(TINY if quick else FULL)[name], 1)


def rows(quick: bool) -> list[Row]:
    """Measure MB at the peak."""
    names = [*RIVALS.values(), *CASES][: 1 if quick else None]
    with environment(FREED_AT_ONCE):
        return [row(name, "peak", "MB", [apart(peak, name, quick)]) for name in names]
