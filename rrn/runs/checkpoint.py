"""What a run leaves behind: resume state while it lasts, weights and a description when it is finished.

Resume state lies outside the stage's outputs, which DVC deletes before each try: in a folder named by the run, with a
lock, and with the identity (settings, inputs, code) that it belongs to. Nothing that is read here can execute code.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import torch
from pydantic import Field, ValidationError, field_validator, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from rrn import config
from rrn.runtime import places, source
from rrn.runtime import atomic_io
from rrn.limits import Byte, PositiveInt
from rrn.method import RRN
from rrn.schema import Section
from rrn.runs.state import (DamagedError, read, save_tensors, write)

PACKAGE = Path(__file__).parents[1]
NETWORKS = ("segmenters", "discriminators")
DESCRIPTION = "run.json"
TRAINING = re.compile(r"(^|/)runs/(?P<name>[^/]+)/train/(?P<key>[^/]+)$")
"""Where the pipeline puts a training."""
KNOWN = ("cpu", "cuda", "meta")
"""Kinds of devices that runs are tested on; meta computes nothing."""
NO_DEVICE = "device: {!r} is none of auto, cpu, cuda, cuda:0, cuda:1 ..."
NO_MATTER = {"batch": 1, "evidence": 0, "pixels": 1}
"""Of `evaluate:`, what changes no answer of a finished run, as run.json holds it."""
PATIENCE = 3.0
"""Seconds to wait for a lock: the kernel of a stage that was killed notices it within one."""


class ResumeError(RuntimeError):
    """A run cannot start here: another one holds the folder, or what lies there belongs to other settings."""


class DamagedWarning(UserWarning):
    """The last state of a run is damaged, and an older one is taken."""


class Description(Section):
    """What run.json says of a finished run: which one it is, and all that is needed to use its networks.

    Attributes:
        stage: warmup or train.
        partition: who was labeled.
        method: row of the ablation table; None for a warmup.
        seed: of the run.
        step: how many it took.
        settings: fingerprint of all settings that it was trained with.
        classes: names; the index of a name is its class.
        colours: of the classes, as the authors of the data set draw them; empty: none of its own.
        size: height and width that images were resized to when read; None: as they are.
        networks: what they are built from; None for a warmup, which does not depend on the method.
        evaluate: how they were asked about whole images.
    """

    stage: Literal["warmup", "train"]
    partition: str
    method: str | None
    seed: int
    step: int
    settings: str
    classes: tuple[str, ...] = Field(min_length=1, max_length=config.IGNORE_INDEX)
    colours: tuple[tuple[Byte, Byte, Byte], ...]
    size: tuple[PositiveInt, PositiveInt] | None
    networks: config.Networks | None
    evaluate: config.Evaluate

    @field_validator("evaluate", mode="before")
    @classmethod
    def _one_at_a_time(cls, protocol: Any) -> Any:
        """Add what run.json does not say: how many pixels are looked at together."""
        return {"pixels": NO_MATTER["pixels"]} | protocol if isinstance(protocol, dict) else protocol

    @model_validator(mode="after")
    def _complete(self) -> Description:
        if self.colours and len(self.colours) != len(self.classes):
            raise ValueError(f"{len(self.colours)} colours for {len(self.classes)} classes")
        return self


class Scratch:
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
        self.folder = places.scratch(root / ".scratch") / key
        self.identity, self._last = identity, Path()
        with atomic_io.explained(self.folder, "let RRN_SCRATCH name a folder that has room and may be written"):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / "lock").open("a+")
        try:
            self._acquire()
            self._state = self._accepted()
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> Scratch:
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
        path = self.folder / f"step-{state['step']:08d}.safetensors"
        if path == self._last:
            return
        for other in [*self._states(), *self.folder.glob(".*")]:  # and what a process that was killed left half
            if other != self._last:
                other.unlink()
        write(path, {"identity": self.identity, "state": state})
        self._last = path

    def remove(self) -> None:
        """Delete the folder: the run is finished and its outputs are written."""
        shutil.rmtree(self.folder)

    def _states(self) -> list[Path]:
        """Return the files of states, the latest last."""
        return sorted(self.folder.glob("step-*.safetensors"))

    def _acquire(self) -> None:
        """Take the lock; the kernel frees it when its holder dies, which may take it a moment."""
        end = time.monotonic() + PATIENCE
        while not _locked(self._lock):
            if time.monotonic() > end:
                self._lock.seek(0)
                raise ResumeError(
                    f"another process (pid {self._lock.read().strip() or 'unknown'}) is running {self.folder.name}; "
                    "wait for it or end it"
                )
            time.sleep(0.1)
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

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
            f"{self.folder.name} was interrupted under other conditions:\n  "
            + "\n  ".join(changed)
            + f"\nset RRN_RESUME=restart to begin anew, or {way}"
        )

    def _whole(self) -> dict[str, Any] | None:
        """Return what the latest whole file holds, with a warning for each that is damaged."""
        problems = []
        for path in reversed(self._states()):
            try:
                found = read(path)
            except DamagedError as error:
                problems.append(str(error))
                continue
            for problem in problems:
                warnings.warn(f"{problem}; the run goes on from {path.name} instead", DamagedWarning, stacklevel=2)
            self._last = path
            return found
        if problems:
            raise ResumeError(
                f"{self.folder.name} was interrupted, and none of its states can be read:\n  "
                + "\n  ".join(problems)
                + f"\ndelete the folder {self.folder} to begin anew"
            )
        return None


def _locked(lock: IO[str]) -> bool:
    """Take a lock if it is free; return whether it was."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def differences(before: Any, after: Any, where: str = "") -> list[str]:
    """List the leaves of two nested JSON values that differ, as `key: old -> new`."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted({*before, *after})
        parts = (differences(before.get(k), after.get(k), f"{where}.{k}" if where else k) for k in keys)
        return [line for part in parts for line in part]
    return [] if before == after else [f"{where}: {before!r} -> {after!r}"]


def digest(*paths: Path) -> str:
    """Return 12 hexadecimal digits of the contents of files, in the order given."""
    return _digest(path.read_bytes() for path in paths)


def code() -> dict[str, str]:
    """Return what may change a bit: 12 hexadecimal digits of all code, not of its remarks, and the version of torch."""
    return {"rrn": _digest(map(source.contents, sorted(PACKAGE.rglob("*.py")))), "torch": torch.__version__}


def _digest(files: Iterable[bytes]) -> str:
    """Return 12 hexadecimal digits of what files hold."""
    contents = hashlib.sha256()
    for held in files:
        contents.update(hashlib.sha256(held).digest())
    return contents.hexdigest()[:12]


def write_weights(model: RRN, out: Path) -> None:
    """Write segmenters.safetensors, and discriminators.safetensors where the row has them; one of another row goes.

    Raises:
        WriteError: names the file that cannot be written.
    """
    for name in NETWORKS:
        networks: nn.ModuleList = getattr(model, name)
        (out / f"{name}.safetensors").unlink(missing_ok=True)
        if len(networks):
            tensors = {key: value.contiguous() for key, value in networks.state_dict().items()}
            with atomic_io.file(out / f"{name}.safetensors", lasting=True) as unfinished:
                save_tensors(tensors, unfinished)


def read_segmenters(model: RRN, folder: Path) -> None:
    """Fill the segmenters with those of a finished run.

    Raises:
        SettingsError: the run is not finished, or was made with another `model:`.
    """
    _fill(model.segmenters, folder / "segmenters.safetensors")


def load(folder: Path, settings: config.Settings, classes: int) -> RRN:
    """Read a finished run (segmenters, and discriminators where the row has them).

    Raises:
        SettingsError: as `read_segmenters`.
    """
    return _filled(RRN(settings, classes, seed=0, pretrained=False), folder).to(device_of(settings.device))


def load_finished(folder: Path, device: str = "auto") -> tuple[RRN, Description]:
    """Rebuild the networks of a finished run from its folder alone: run.json says what they are.

    Args:
        folder: of a training.
        device: auto (a GPU if there is one), cpu, cuda or cuda:N.

    Raises:
        SettingsError: it is no finished run, its run.json is damaged or of another version, its weights are missing,
            damaged or of other networks, or the device is not there.
    """
    description = read_description(folder)
    if description.networks is None:
        raise config.SettingsError(
            f"{folder} is a warmup, which says nothing of the method: name a training, such as "
            "runs/shapes/train/1of16-supervised-0"
        )
    model = RRN(description.networks, len(description.classes), seed=0, pretrained=False)
    return _filled(model, folder).to(device_of(device)), description


def networks_of(settings: config.Settings) -> config.Networks:
    """Take what builds the networks out of all settings."""
    return config.Networks(model=settings.model, method=settings.method, region=settings.region)


def write_description(description: Description, out: Path) -> None:
    """Write run.json; the same description, the same bytes."""
    text = json.dumps(description.model_dump(mode="json", exclude={"evaluate": {"pixels"}}), indent=2)
    atomic_io.write(out / DESCRIPTION, text + "\n", lasting=True)


def read_description(folder: Path) -> Description:
    """Read the run.json of a finished run.

    Raises:
        SettingsError: there is no such folder, the run is not finished, or the file is damaged or of another version.
    """
    path = folder / DESCRIPTION
    if not folder.is_dir():
        raise config.SettingsError(f"there is no folder {folder}: {_makes(folder)}")
    if not path.is_file():
        raise config.SettingsError(
            f"{folder} is no finished run: it has no {DESCRIPTION}; name the folder of one run, "
            "and if that was interrupted, give its command again"
        )
    try:
        return Description.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors()]
        raise config.SettingsError(
            f"{path} is damaged or was written by another version; repeat the run that made it:\n  "
            + "\n  ".join(problems)
        ) from error


def _makes(folder: Path) -> str:
    """Say which command makes the folder of a run, if it is called as one."""
    run = TRAINING.search(folder.as_posix())
    if run is None:
        return "name that of a finished run, such as runs/shapes/train/1of16-rrn-0"
    return (
        f"`make repro` makes all runs of params.yaml, `python -m rrn.repro train@{run['key']}` this one, where "
        f"params.yaml says name: {run['name']}"
    )


def device_of(device: str) -> torch.device:
    """Resolve a device: auto (a GPU if there is one), or what torch calls it.

    Raises:
        SettingsError: there is no device of that name, or a GPU is asked for and there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise config.SettingsError(NO_DEVICE.format(device)) from error
    if wanted.type not in KNOWN:
        raise config.SettingsError(NO_DEVICE.format(device))
    known = torch.cuda.device_count()
    if wanted.type == "cuda" and known and (wanted.index or 0) >= known:
        raise config.SettingsError(f"device: {device}, but torch sees {known} GPUs here, the first is cuda:0")
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise config.SettingsError(
            f"device: {device}, but torch sees no GPU here; set device: auto or cpu, "
            "or install a driver and a CUDA build of torch"
        )
    return wanted


def _filled(model: RRN, folder: Path) -> RRN:
    """Fill all networks that the row has with those of a finished run."""
    for name in NETWORKS:
        if len(getattr(model, name)):
            _fill(getattr(model, name), folder / f"{name}.safetensors")
    return model


def _fill(networks: nn.Module, path: Path) -> None:
    """Load weights from a .safetensors file, all or none."""
    if not path.is_file():
        raise config.SettingsError(f"{path.parent.name} has no {path.name}: run `dvc repro` for that stage first")
    try:
        networks.load_state_dict(load_file(path))
    except SafetensorError as error:
        raise config.SettingsError(
            f"{path.parent.name}/{path.name} is damaged ({error}): delete it and repeat the run that made it"
        ) from error
    except RuntimeError as error:
        raise config.SettingsError(
            f"{path.parent.name}/{path.name} holds other networks than these settings build; "
            f"repeat the run that made it: {error}"
        ) from error
