"""One lock for all that several processes could do at once: who writes an output, decodes images, has a GPU. No torch.

The locks are those of filelock: the kernel of the system frees one when its holder ends, however it does.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from rrn.runtime import atomic_io, places

ELSEWHERE = "let RRN_SCRATCH name a folder that has room and may be written"
MOMENT = 0.1
"""Seconds for a second look: a run that ends takes its lock file away, perhaps while the next one opens it."""


class LockedError(RuntimeError):
    """Another process holds a lock: `holder` says which one, "" if it has just begun."""

    def __init__(self, message: str, holder: str) -> None:
        super().__init__(message)
        self.holder = holder


@contextmanager
def held(path: Path, holder: str = "", patience: float = 0.0) -> Iterator[None]:
    """Hold a lock file, in which a line says who does; the file stays.

    Args:
        path: of the file; its folder exists.
        holder: the line.
        patience: seconds to wait for it, -1: as long as it takes.

    Raises:
        LockedError: another process holds it.
        OSError: there is no place for it, or the file system knows no locks.
    """
    try:
        lock = FileLock(path, patience, fallback_to_soft=False).acquire()
    except Timeout as error:
        other = ""
        with suppress(FileNotFoundError):
            other = path.read_text(encoding="utf-8").strip()
        raise LockedError(f"{path} is held by {other or 'another process'}", other) from error
    with lock:
        path.write_text(holder, encoding="utf-8")
        yield


@contextmanager
def exclusive(output: Path, patience: float = MOMENT) -> Iterator[None]:
    """Be the only process that writes `output`; a second one is refused at once, or waits, and is told who does.

    The lock lies in RRN_SCRATCH, or in `.scratch` of the repository of `output` (outside one, beside it), and goes
    when the run is over. Its name is a digest of the whole path: other outputs, and the copies of a repository that
    `dvc exp run --temp` and the queue make, have other ones.

    Args:
        output: a file, or the main one of a folder.
        patience: seconds that a second one waits, -1: as long as it takes.

    Raises:
        LockedError: another process holds it; says what to do.
        atomic_io.WriteError: there is no place for it.
    """
    path = _scratch(output) / f"{hashlib.sha256(os.fsencode(output.resolve())).hexdigest()[:16]}.lock"
    with ExitStack() as stack:
        with atomic_io.explain_os_error(path, ELSEWHERE):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(held(path, _this_process(), patience))
            except LockedError as error:
                raise LockedError(_busy(output, error.holder), error.holder) from error
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _this_process() -> str:
    command = shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]])
    since = datetime.now().astimezone().isoformat(" ", "seconds")
    return f"pid {os.getpid()} on {platform.node()} since {since} ({command})"


def _scratch(output: Path) -> Path:
    """Return the folder of the locks."""
    repositories = (folder for folder in output.resolve().parents if (folder / "dvc.yaml").exists())
    root = next(repositories, None)
    return places.scratch(root / ".scratch" if root else output.parent)


def _busy(output: Path, holder: str) -> str:
    """Say who writes an output, and what to do."""
    return (
        f"{output} is being written by another process, {holder or 'which has just begun'}: wait until it is ready, "
        "or end it and give this command again; it goes on from the last checkpoint"
    )
