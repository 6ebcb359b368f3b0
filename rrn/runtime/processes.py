"""Processes that end with the one that started them: `python -m rrn.runtime.processes MODULE [ARGUMENTS]`. No torch.

A runner that is killed has no moment to stop what it started; the kernel of the system stops it (Linux).
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(how: signal.Signals = signal.SIGKILL) -> None:
    """Let this process get a signal when the thread that started it ends, also after an exec (Linux).

    A process of multiprocessing whose parent has ended before gets it at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, how)
        starter = multiprocessing.parent_process()
        if starter is not None and starter.pid != os.getppid():
            signal.raise_signal(how)


def main(argv: list[str]) -> None:
    """Become `python -m argv`, which ends with the parent of this process."""
    die_with_parent()
    os.execv(sys.executable, [sys.executable, "-m", *argv])


if __name__ == "__main__":
    main(sys.argv[1:])
