"""Start a module in one or several processes and yield its lines; torchrun does the work.

With `RRN_LAUNCH` set, that command starts the module instead, for instance on several machines:

RRN_LAUNCH="srun torchrun --nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d --rdzv-endpoint=$HOST"
"""

from __future__ import annotations

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

STORE_GONE = "the torchrun that held the store for all machines has ended; the output of its machine says why\n"


class LaunchError(RuntimeError):
    """A started process failed; the message ends with its last lines, or what torchrun says of each that failed."""


def wanted(nproc: int) -> bool:
    """Return whether a training of `nproc` processes is started here rather than run in place."""
    return nproc > 1 or "RRN_LAUNCH" in os.environ


def command(module: str, *args: Any, nproc: int = 1) -> list[str]:
    """Return the command line that runs `python -m module args` in `nproc` processes."""
    launcher = os.environ.get("RRN_LAUNCH")
    start = [sys.executable]
    if launcher:
        start = shlex.split(launcher)
    elif nproc > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={nproc}"]
    return [*start, "-m", module, *map(str, args)]


def launch(module: str, *args: Any, nproc: int = 1) -> Iterator[str]:
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
        preexec_fn=partial(processes.end_together, signal.SIGTERM),
    )
    kept: deque[str] = deque(maxlen=KEPT)
    try:
        for line in process.stdout or ():
            kept.append(line)
            yield line.rstrip("\n")
        if status := process.wait():
            raise LaunchError(f"{module} exited with status {status}; its last lines:\n{_last(list(kept), module)}")
    finally:
        _stop(process)


def _last(lines: list[str], module: str) -> str:
    """Return what a failure repeats: torchrun's summary, or tracebacks of its processes, and the last lines."""
    summary = f"{module} FAILED\n"
    if summary in lines:
        return "".join(lines[lines.index(summary) :])
    told = [line for line in lines[:-TAIL] if line.startswith("[rank")]
    hint = STORE_GONE if any("RendezvousConnectionError" in line for line in lines[-TAIL:]) else ""
    return "".join([*told[-TAIL:], *lines[-TAIL:], hint])


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


if __name__ == "__main__":
    for text in launch(sys.argv[2], *sys.argv[3:], nproc=int(sys.argv[1])):
        print(text, flush=True)
