"""The processes that prepare batches ahead of a training: they end with it, and what goes wrong in one is told here."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing import active_children
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from rrn.data.decoding import DataError
from rrn.runtime import processes

T = TypeVar("T")


class WorkerError(RuntimeError):
    """A process that prepares batches was killed; the message says what to do."""


def prepared(data: Dataset[T], steps: range, workers: int, pinned: bool) -> Iterable[T]:
    """Return `data[step]` of all `steps` in order.

    Args:
        data: gives the batch of a step, or raises DataError.
        steps: which.
        workers: processes that prepare them; 0: this one.
        pinned: whether they come in page-locked memory.

    Raises:
        DataError: at its step, as `data` raises it.
        WorkerError: at a step, if one of these processes was killed.
    """
    loader = DataLoader(
        _Tried(data),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        worker_init_fn=_begin,
        generator=torch.Generator(),  # torch's global one stays as it is
        pin_memory=pinned,
    )
    return _InOrder(loader)


class _Tried(Dataset[T | DataError]):
    """What `data` gives, or the DataError that it raises: torch would put a traceback of the worker into its text."""

    def __init__(self, data: Dataset[T]) -> None:
        self.data = data

    def __getitem__(self, step: int) -> T | DataError:
        try:
            return self.data[step]
        except DataError as error:
            return error


class _InOrder(Iterable[T]):
    """The batches of a loader; a DataError of a worker is raised at its step as it is, a lost worker explained."""

    def __init__(self, loader: DataLoader[T | DataError]) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[T]:
        others = active_children()
        batches = _started(self.loader)
        workers = [process for process in active_children() if process not in others]
        try:
            while (batch := next(batches, None)) is not None:
                if isinstance(batch, DataError):
                    raise batch
                yield batch
        except (RuntimeError, OSError, EOFError) as error:
            if lost := _ended(workers):
                raise WorkerError(
                    f"of {len(workers)} processes that prepare batches {lost}: most likely for lack of memory, or "
                    f"/dev/shm is full; lower loading.workers (now {len(workers)}; with 0 there is no such process), "
                    "then give the same command again, which goes on from the last checkpoint"
                ) from error
            raise
        finally:
            del batches  # which ends the workers; the traceback of an error would keep it


def _started(loader: DataLoader[T]) -> Iterator[T]:
    """Start the workers of a loader, and take back the signal handler with which torch hears that one has ended.

    It would raise an error in whatever line this process then stands, again while that error is being told. Without it
    torch looks at its workers when a batch is late.
    """
    before = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
    return batches


def _ended(workers: Sequence[BaseProcess]) -> str:
    """Say which processes have ended, and how; nothing if none has within a second."""
    closed = wait([worker.sentinel for worker in workers], timeout=1)
    for worker in workers:
        if worker.sentinel in closed:
            worker.join(1)  # its files close a moment before it has ended
    codes = {worker.pid: worker.exitcode for worker in workers if worker.exitcode is not None}
    told = (
        f"pid {pid} was killed by signal {-c}" if c < 0 else f"pid {pid} exited with {c}" for pid, c in codes.items()
    )
    return ", ".join(told)


def _begin(worker: int) -> None:
    """Let a worker end with the process that it prepares batches for, whose locks it would hold on to."""
    processes.die_with_parent()
