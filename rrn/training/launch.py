"""One training in several processes: torchrun starts them, and the rows of history are read from what they print.

With `RRN_LAUNCH` set, that command starts them instead, for instance on several machines:

RRN_LAUNCH="srun torchrun --nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d --rdzv-endpoint=$HOST"
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any

from rrn.runtime import processes

TAIL = 40
"""Lines of output that a failure repeats."""
KEPT = 400
"""Lines that are kept to find torchrun's summary in: what each process that failed said, the first one last."""

PATIENCE = 60
"""Seconds for the processes to end a step and save; torchrun kills its own after half of it."""

ADVICE = (
    "What failed first stands above, or in the output of the other machines. Mend it; the same command then "
    "goes on from the last checkpoint. Where nothing failed and a process only waited too long, "
    "set RRN_TIMEOUT to more seconds."
)


class LaunchError(RuntimeError):
    """A started process failed; the message holds its last lines, or what torchrun says of each that failed."""


def needed(nproc: int) -> bool:
    """Return whether a training of `nproc` processes is started here rather than run in place."""
    return nproc > 1 or "RRN_LAUNCH" in os.environ


def rows(nproc: int, **options: Any) -> Iterator[dict[str, Any]]:
    """Run `python -m rrn.train` in `nproc` processes, yield its rows of history and print its other lines.

    Args:
        nproc: number of processes.
        options: of the command line, by name; those that are None are left out.

    Raises:
        LaunchError: the training failed.
    """
    arguments = [f"--{name}={value}" for name, value in options.items() if value is not None]
    shown = 0
    for line in lines("rrn.train", *arguments, nproc=nproc):
        row = json.loads(line) if line.startswith("{") else None
        if row is None:
            print(line, flush=True)
        elif row["step"] > shown:  # every machine says the same
            shown = row["step"]
            yield row


def lines(module: str, *args: str, nproc: int = 1) -> Iterator[str]:
    """Run `python -m module args` in `nproc` processes and yield the lines of their output.

    If the consumer stops early, or this process dies, the started ones are stopped too.

    Raises:
        LaunchError: the exit status is not 0.
    """
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    environment.setdefault("OMP_NUM_THREADS", "1")
    process = subprocess.Popen(
        command(module, *args, nproc=nproc),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
        env=environment,
        start_new_session=True,
        preexec_fn=partial(processes.die_with_parent, signal.SIGTERM),
    )
    kept: deque[str] = deque(maxlen=KEPT)
    try:
        for line in process.stdout or ():
            kept.append(line)
            yield line.rstrip("\n")
        if status := process.wait():
            told = _failure(list(kept), module)
            raise LaunchError(f"{module} exited with status {status}; its last lines:\n{told}\n{ADVICE}")
    finally:
        _stop(process)


def command(module: str, *args: str, nproc: int = 1) -> list[str]:
    """Return the command line that runs `python -m module args` in `nproc` processes."""
    launcher = os.environ.get("RRN_LAUNCH")
    start = [sys.executable]
    if launcher:
        start = shlex.split(launcher)
    elif nproc > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={nproc}"]
    return [*start, "-m", module, *args]


def _failure(output: list[str], module: str) -> str:
    """Return what a failure repeats: torchrun's summary, or tracebacks of its processes, and the last lines."""
    summary = f"{module} FAILED\n"
    if summary in output:
        return "".join(output[output.index(summary) :])
    tracebacks = [line for line in output[:-TAIL] if line.startswith("[rank")]
    return "".join([*tracebacks[-TAIL:], *output[-TAIL:]])


def _stop(process: subprocess.Popen[str]) -> None:
    """End a process that still runs, gently first."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.stdout:
        process.stdout.close()
