"""Part of gpu.py: what the GPU is, what drives it, and how fast it multiplies matrices and copies memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import torch
from gpu_part import Part, begin, say, wait
from measuring import Row, machine, row

SIDE = {False: 8192, True: 256}
"""Of the square matrices; in the small form."""
TURNS, WARMUP = 10, 3
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
COPIED = {False: 2**31, True: 2**20}
"""Bytes that are copied; in the small form."""


@contextmanager
def tensor_cores_in_fp32(wanted: bool) -> Iterator[None]:
    """Let fp32 products, in matrices and in convolutions, be rounded to TF32 inside, or not."""
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = wanted
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


def operations(precision: str, device: torch.device, small: bool, tf32: bool = False) -> list[float]:
    """Return how many operations a second a large matrix product does, 10**12, turn by turn."""
    side = SIDE[small]
    first, second = (torch.randn(side, side, device=device, dtype=PRECISIONS[precision]) for _ in range(2))
    found = []
    with tensor_cores_in_fp32(tf32):
        for turn in range(WARMUP + TURNS):
            wait(device)
            start = time.perf_counter()
            first @ second
            wait(device)
            if turn >= WARMUP:
                found.append(2 * side**3 / (time.perf_counter() - start) / 1e12)
    return found


def copied(device: torch.device, small: bool) -> list[float]:
    """Return how many MB a second are copied within the memory of the device, bytes read and bytes written."""
    source = torch.zeros(COPIED[small], dtype=torch.uint8, device=device)
    target, found = torch.empty_like(source), []
    for turn in range(WARMUP + TURNS):
        wait(device)
        start = time.perf_counter()
        target.copy_(source)
        wait(device)
        if turn >= WARMUP:
            found.append(2 * COPIED[small] / (time.perf_counter() - start) / 1e6)
    return found


def facts(part: Part) -> dict[str, object]:
    """Return what the numbers are of: GPU, driver, libraries, clocks, and the computer around it."""
    known: dict[str, object] = {"gpu": "none", **driver()}
    if part.device.type == "cuda":
        about = torch.cuda.get_device_properties(part.device)
        known |= {"gpu": about.name, "gpu memory GiB": round(about.total_memory / 2**30)}
        known |= {"compute capability": f"{about.major}.{about.minor}", "GPUs": torch.cuda.device_count()}
    known |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    known |= {"architectures of torch": " ".join(torch.cuda.get_arch_list())}
    return known | machine() | {"cores": os.cpu_count(), "date": datetime.now(UTC).date().isoformat()}


def driver() -> dict[str, str]:
    """Return what the driver says of itself and of the clocks; nothing where there is none."""
    command, names = shutil.which("nvidia-smi"), ("driver_version", "clocks.sm", "clocks.max.sm", "clocks.max.mem")
    if command is None:
        return {}
    asked = [command, f"--query-gpu={','.join(names)}", "--format=csv,noheader"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.partition("\n")[0]
    return dict(zip(names, said.split(", "), strict=False))


def main() -> None:
    """Report the facts, and the rates."""
    part = begin(__doc__)
    say(facts=facts(part))

    def rates() -> Iterator[Row]:
        for precision in PRECISIONS:
            yield row(f"matrix product, {precision}", "rate", "T/s", operations(precision, part.device, part.small))
        found = operations("fp32", part.device, part.small, tf32=True)
        yield row("matrix product, TF32", "rate", "T/s", found)
        yield row("copy within the device", "rate", "MB/s", copied(part.device, part.small))

    part.run("rates", rates)


if __name__ == "__main__":
    main()
