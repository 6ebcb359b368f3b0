"""What benchmarks have in common: how rivals take turns, what a row of the results says, and of which machine.

A benchmark is a module of this folder with a function `rows(quick: bool) -> list[Row]`; `run.py` finds it by that.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import torch

Result = TypeVar("Result")


@dataclass(frozen=True)
class Row:
    """One measured quantity; the last five are over rounds."""

    case: str  # what was measured, such as "rrn, bf16"
    measure: str  # what of it, such as "seconds a step", or of which rival it is a multiple: "a step, to reference"
    unit: str  # s, images/s, MB, ratio, share or count
    median: float
    lower: float  # quartile
    upper: float  # quartile
    minimum: float
    rounds: int


def row(case: str, measure: str, unit: str, values: Sequence[float]) -> Row:
    """Return the row of a quantity that was measured once a round."""
    lower, median, upper = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return Row(case, measure, unit, median, lower, upper, float(min(values)), len(values))


def ratio(case: str, measure: str, values: Sequence[float], rivals: Sequence[float]) -> Row:
    """Return the row of a quantity as a multiple of a rival's, round by round."""
    return row(case, measure, "ratio", [value / rival for value, rival in zip(values, rivals, strict=True)])


def alternating(cases: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Let rivals take turns in this process, and return the seconds of each by round.

    Every other round goes backwards, so that nobody always follows the same rival.

    Args:
        cases: what to call, by name.
        rounds: that are kept.
        warmup: rounds before these, which are not.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(warmup + rounds):
        for name in list(cases)[:: -1 if turn % 2 else 1]:
            start = time.perf_counter()
            cases[name]()
            taken = time.perf_counter() - start
            if turn >= warmup:
                seconds[name].append(taken)
    return seconds


def apart(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function of a module in a fresh process, and return what it returns."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def machine() -> dict[str, str | int | float]:
    """Say what the numbers were measured on: processor, cores, GB of memory, kernels, versions and the date."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }


def _processor() -> str:
    """Return the name of the processor, and whether it computes in bfloat16."""
    known = [line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line]
    facts = {key.strip(): value.strip() for key, value in known}
    special = [name for name in ("avx512_bf16", "amx_bf16") if name in facts.get("flags", "").split()]
    return " ".join([facts.get("model name", platform.machine()), *special])
