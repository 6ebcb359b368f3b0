"""Torchrun agents that meet at a free port of this machine, as those of several machines would."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from conftest import until

PYTHON = [sys.executable, "-m", "torch.distributed.run"]


def agent(count: int) -> list[str]:
    """Return the command of one of `count` agents, each with one process, that meet at a port that is free now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=test"]
    return [*PYTHON, f"--nnodes={count}", "--nproc-per-node=1", *meeting]


def by_hand(command: list[str], folder: Path, **environment: str) -> subprocess.Popen[str]:
    """Start an agent as on a second machine, in a group of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    environment.pop("RRN_LAUNCH", None)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **pipes)


def alive(process: int) -> bool:
    """Return whether a process runs."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(processes: list[int]) -> bool:
    """Wait until none of the processes runs."""
    return bool(until(lambda: not any(map(alive, processes))))
