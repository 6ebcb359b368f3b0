"""One of several processes fails, or is lost: the others stop within a minute, and say why.

torchrun ends the other processes of its own machine, and of no other. What processes of several machines know of each
other goes through the store that torchrun holds for them, whatever carries the tensors: each counts up there every few
seconds (a beat), and the first that fails leaves its traceback. A thread hears it even where the main thread waits
for an answer that never comes.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn

import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

BEAT = 2.0
"""Seconds between two signs of life."""
LOST = 25
"""Beats without a sign of life after which a process counts as lost. They are the listener's own, so that a computer
that was asleep loses nobody."""
ABSENT = 150
"""Beats within which every process must have given its first sign."""
HEARD = 5
"""Beats that a failed process waits for the others to hear of it."""

FAILED = "failed"


class ProcessError(RuntimeError):
    """Another process failed or was lost; the message says which one, and holds its traceback if it left one."""


class Guard:
    """What one of several processes knows of the others.

    Args:
        store: of torchrun, shared by all.
        rank: number of this process.
        world: number of processes.
    """

    def __init__(self, store: dist.Store, rank: int, world: int) -> None:
        self.store, self.rank, self.parent = store, rank, os.getppid()
        self.others = [other for other in range(world) if other != rank]
        self._counts, self._silent = dict.fromkeys(self.others, 0), dict.fromkeys(self.others, 0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def start(self) -> None:
        """Begin to beat and to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Beat no more."""
        self._over.set()
        self._thread.join()

    def failed(self, text: str) -> str:
        """Tell the others why this process fails; return the account of the process that failed first."""
        first: str = self.store.compare_set(FAILED, "", text).decode()
        return first

    def heard(self) -> None:
        """Tell the process that failed first that this one knows, and give its torchrun the time to report.

        That of this machine may hold the store, and ends when this process does.
        """
        self.store.set(f"heard/{self.rank}", "")
        time.sleep(BEAT)

    def lost(self) -> list[int]:
        """Wait until the others have heard that this process failed; return those that are no longer there to hear."""
        gone = self.others
        for _ in range(2 * HEARD):
            gone = [other for other in gone if not self.store.check([f"heard/{other}"])]
            if not gone:
                break
            time.sleep(BEAT / 2)
        return gone

    def tell(self, account: str) -> None:
        """Print an account now: of two torchruns that end, the second may have lost the store, and reports nothing."""
        sys.stderr.write("".join(f"[rank{self.rank}]: {line}\n" for line in account.splitlines()))
        sys.stderr.flush()

    def _listen(self) -> None:
        """Beat until something is wrong; then end this process, whose main thread may wait for ever."""
        try:
            while not (wrong := self._wrong()):
                if self._over.wait(BEAT):
                    return
            account = self.failed(wrong)
            if self._over.wait(BEAT):  # the main thread has noticed, too
                return
            self.tell(account)
            self.heard()
        except dist.DistError as error:
            account = (
                f"process {self.rank} lost the store of torchrun ({_first_line(error)}): the torchrun that held it for "
                "all machines has ended; the output of its machine says why"
            )
            self.tell(account)
        _leave(account)

    def _wrong(self) -> str:
        """Give a sign of life; return what is wrong with the others, or nothing."""
        self.store.add(f"beats/{self.rank}", 1)
        if self.store.check([FAILED]):
            return "another process failed"
        if os.getppid() != self.parent:
            return f"the torchrun of process {self.rank} was killed"
        for other in self.others:
            count = self.store.add(f"beats/{other}", 0)
            self._silent[other] = 0 if count != self._counts[other] else self._silent[other] + 1
            self._counts[other] = count
            if self._silent[other] >= (LOST if count else ABSENT):
                known = "gave no sign of life for" if count else "did not come within"
                return (
                    f"process {other} {known} {self._silent[other] * BEAT:.0f} s: it or its machine has stopped, or "
                    "the network is down; the output of its machine may say more"
                )
        return ""


@contextmanager
def guarded() -> Iterator[None]:
    """Watch the other processes that torchrun started for the same training, and let them know of an error in here.

    Raises:
        ProcessError: another one failed first, or was lost.
    """
    guard = _guard()
    if guard is None:
        yield
        return
    guard.start()
    try:
        yield
    except Exception as error:
        first = _first_error(guard, error)
        if first is error:
            raise
        raise first from error
    guard.stop()


def _guard() -> Guard | None:
    """Return a guard where torchrun started several processes and holds a store for them."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(host, port, is_master=False, timeout=timedelta(seconds=LOST * BEAT), wait_for_workers=False)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return Guard(dist.PrefixStore(f"guard/{attempt}", store), int(os.environ["RANK"]), world)


def _first_error(guard: Guard, error: Exception) -> Exception:
    """Return the error that began it: this one, what another process told, or that one is gone."""
    guard.stop()
    own = f"process {guard.rank} failed:\n{traceback.format_exc()}"
    several = os.environ["WORLD_SIZE"] != os.environ["LOCAL_WORLD_SIZE"]
    try:
        first, gone = guard.failed(own), []
        if several:
            guard.tell(first)
            if first == own:
                gone = guard.lost()
            else:
                guard.heard()
    except dist.DistError:
        first, gone = own, guard.others
    if first != own:
        return ProcessError(first)
    if gone:
        names = ", ".join(map(str, gone))
        return ProcessError(
            f"process {names} is gone and left no error of its own, as when it is killed for lack of memory; the "
            f"output of its machine names the signal. Process {guard.rank} noticed it by {_first_line(error)}"
        )
    return error


def _leave(account: str) -> NoReturn:
    """End this process at once, with an error that torchrun reports."""
    try:
        raise ProcessError(account)
    except ProcessError as error:
        get_error_handler().record_exception(error)
    sys.stdout.flush()
    os._exit(1)


def _first_line(error: Exception) -> str:
    """Return what an error says, without the frames that torch adds."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]
