"""An interrupted run: all that its next step depends on, kept until the same command goes on from there.

The folder lies outside the stage's outputs, which DVC deletes before each try. It is named by the run, has a lock, and
each state in it holds the identity (settings, inputs, code) that it belongs to.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import warnings
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from rrn.runtime import atomic_io, locking, places

PATIENCE = 3.0
"""Seconds to wait for a lock: the kernel of a stage that was killed notices it within one."""
DIGITS = 64
"""Of a sha256, hexadecimal, at the end of a file."""


class ResumeError(RuntimeError):
    """A run cannot start here: another one holds the folder, or what lies there belongs to other settings."""


class DamagedError(ValueError):
    """A file is not what was written: cut off, changed, or of another kind."""


class DamagedWarning(UserWarning):
    """The last state of a run is damaged, and an older one is taken."""


class ResumeFolder:
    """The folder in which an interrupted run waits for the same command to be given again.

    `RRN_SCRATCH` names its parent (default: `.scratch` in the repository). The two latest states lie there: where the
    last one is damaged, the one before it is taken. `RRN_RESUME=restart` throws away states of other conditions;
    `RRN_RESUME=accept_code` goes on from one that other code has written.

    Args:
        root: the repository.
        key: name of the run.
        identity: what must be the same for a resume to be exact; nested, JSON values. `code` in it is the code.

    Raises:
        ResumeError: the folder is in use, no state in it can be read, or the identity differs; the message lists what.
        WriteError: the folder cannot be written to.
    """

    def __init__(self, root: Path, key: str, identity: dict[str, Any]) -> None:
        self.path = places.scratch(root / ".scratch") / key
        self.identity, self._last = identity, Path()
        with atomic_io.explain_os_error(self.path, "let RRN_SCRATCH name a folder that has room and may be written"):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.path)
        try:
            self._state = self._accepted()
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> ResumeFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.close()

    def load(self) -> dict[str, Any] | None:
        """Hand over the last whole state, once; None if the run starts anew."""
        found, self._state = self._state, None
        return found

    def save(self, state: dict[str, Any]) -> None:
        """Write a state, of which `step` is the number of steps done, and read it back.

        The one before stays, until a later one is saved; a crash at any moment leaves it whole.

        Raises:
            WriteError: the disk is full, or the folder may not be written to.
        """
        path = self.path / f"step-{state['step']:08d}.pt"
        if path == self._last:
            return
        for other in [*self._states(), *self.path.glob(".*")]:  # and what a process that was killed left half
            if other != self._last:
                other.unlink()
        write_state(path, {"identity": self.identity, "state": state})
        self._last = path

    def remove(self) -> None:
        """Delete the folder: the run is finished and its outputs are written."""
        shutil.rmtree(self.path)

    def _states(self) -> list[Path]:
        return sorted(self.path.glob("step-*"))

    def _accepted(self) -> dict[str, Any] | None:
        """Return the last whole state if the run may go on from it; None if there is none."""
        wish = os.environ.get("RRN_RESUME", "")
        if wish not in ("", "restart", "accept_code"):
            raise ResumeError(f"RRN_RESUME={wish!r} is neither restart nor accept_code")
        found = self._whole()
        changed = differences(found["identity"], self.identity) if found else []
        if not found or not changed:
            return found and found["state"]
        if wish == "restart":
            self._last = Path()
            for path in self._states():
                path.unlink()
            return None
        only_code = all(line.startswith("code.") for line in changed)
        if wish == "accept_code" and only_code:
            return found["state"]
        way = "RRN_RESUME=accept_code to go on with this code" if only_code else "undo the change to go on"
        raise ResumeError(
            f"{self.path.name} was interrupted under other conditions:\n  "
            + "\n  ".join(changed)
            + f"\nset RRN_RESUME=restart to begin anew, or {way}"
        )

    def _whole(self) -> dict[str, Any] | None:
        """Return what the latest whole file holds, with a warning for each that is damaged."""
        problems = []
        for path in reversed(self._states()):
            try:
                found = read_state(path)
            except DamagedError as error:
                problems.append(str(error))
                continue
            for problem in problems:
                warnings.warn(f"{problem}; the run goes on from {path.name} instead", DamagedWarning, stacklevel=2)
            self._last = path
            return found
        if problems:
            raise ResumeError(
                f"{self.path.name} was interrupted, and none of its states can be read:\n  "
                + "\n  ".join(problems)
                + f"\ndelete the folder {self.path} to begin anew"
            )
        return None


def _locked(folder: Path) -> ExitStack:
    """Lock the folder of a run; the kernel frees it when its holder dies, which may take it a moment."""
    lock = ExitStack()
    try:
        lock.enter_context(locking.held(folder / "lock", str(os.getpid()), PATIENCE))
    except locking.LockedError as error:
        holder = error.holder or "unknown"
        raise ResumeError(
            f"another process (pid {holder}) is running {folder.name}; wait for it or end it"
        ) from error
    return lock


def write_state(path: Path, value: dict[str, Any]) -> None:
    """Write a value as `torch.save` does, with its sha256 behind it, and read it back; a failure leaves what was there.

    Args:
        path: of the file.
        value: dictionaries, lists, numbers, strings, None, and tensors of any type and device.

    Raises:
        WriteError: it cannot be written; the message names the path.
        DamagedError: what was read back is not what was written, or is more than numbers, strings and tensors.
    """
    buffer = io.BytesIO()  # torch.save tells a full disk in words of its own
    torch.save(value, buffer)
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest().encode()
    buffer.write(digest)
    with atomic_io.atomic_path(path, lasting=True) as unfinished:
        unfinished.write_bytes(buffer.getbuffer())
        if _checked(unfinished) != digest:
            raise DamagedError(f"{path}: what was read back is not what was written; the disk may be failing")
        _loaded(unfinished)


def read_state(path: Path) -> dict[str, Any]:
    """Return what was written, tensors on the CPU; nothing in a file can execute code.

    Raises:
        DamagedError: names the file and what is wrong with it.
    """
    _checked(path)
    return _loaded(path)


def _loaded(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, torch.serialization.pickle.UnpicklingError) as error:
        raise DamagedError(f"{path} holds more than numbers, strings and tensors, and is not read") from error
    return found


def _checked(path: Path) -> bytes:
    """Return the sha256 of a file, which is right."""
    try:
        contents = memoryview(path.read_bytes())
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {error}") from error
    digest = hashlib.sha256(contents[:-DIGITS]).hexdigest().encode()
    if contents[-DIGITS:] != digest:
        raise DamagedError(f"{path} is damaged: its checksum is not that of what is in it")
    return digest


def differences(before: Any, after: Any, where: str = "") -> list[str]:
    """List the leaves of two nested JSON values that differ, as `key: old -> new`."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted({*before, *after})
        parts = (differences(before.get(k), after.get(k), f"{where}.{k}" if where else k) for k in keys)
        return [line for part in parts for line in part]
    return [] if before == after else [f"{where}: {before!r} -> {after!r}"]
