"""One output, one process that writes it: a second one is refused at once and told who holds the lock. No torch."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from rrn.runtime import atomic_io, places

ELSEWHERE = "let RRN_SCRATCH name a folder that has room and may be written"


class BusyError(RuntimeError):
    """Another process is writing the same output; the message says which one, and what to do."""


@contextmanager
def writing(output: Path) -> Iterator[None]:
    """Be the only process that writes `output`; the kernel of the system lets the next one in when this process ends.

    The lock lies in RRN_SCRATCH, or in `.scratch` of the repository of `output` (outside one, beside it), and goes
    when the run is over. Its name is a digest of the whole path: other outputs, and the copies of a repository that
    `dvc exp run --temp` and the queue make, have other ones.

    Raises:
        BusyError: another process holds it.
        atomic_io.WriteError: there is no place for it.
    """
    path = _scratch(output) / f"{hashlib.sha256(os.fsencode(output.resolve())).hexdigest()[:16]}.lock"
    with atomic_io.explained(path, ELSEWHERE):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _locked(path, output)
    with lock:
        command = shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]])
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        with atomic_io.explained(path, ELSEWHERE):
            lock.truncate(0)
            lock.write(f"pid {os.getpid()} on {platform.node()} since {since} ({command})")
            lock.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _scratch(output: Path) -> Path:
    """Return the folder of the locks."""
    repositories = (folder for folder in output.resolve().parents if (folder / "dvc.yaml").exists())
    root = next(repositories, None)
    return places.scratch(root / ".scratch" if root else output.parent)


def _locked(path: Path, output: Path) -> IO[str]:
    """Take the lock, in the file that has this name now: a run that ends takes the name away before it lets go."""
    while True:
        lock = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            with lock:
                lock.seek(0)
                raise BusyError(_busy(output, lock.read())) from error
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(lock.fileno())):
                return lock
        lock.close()


def _busy(output: Path, holder: str) -> str:
    """Say who writes an output, and what to do."""
    return (
        f"{output} is being written by another process, {holder or 'which has just begun'}: wait until it is ready, "
        "or end it and give this command again; it goes on from the last checkpoint"
    )
