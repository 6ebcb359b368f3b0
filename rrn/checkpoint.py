"""What a run leaves behind: resume state while it lasts, weights and a description when it is finished.

Resume state lies outside the stage's outputs, which DVC deletes before each try: in a folder named by the run, with a
lock, and with the identity (settings, inputs, code) that it belongs to. Nothing that is read here can execute code.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from rrn import config
from rrn.method import RRN
from rrn.schema import Byte, PositiveInt, Section

NETWORKS = ("segmenters", "discriminators")
DESCRIPTION = "run.json"


class ResumeError(RuntimeError):
    """A run cannot start here: another one holds the folder, or what lies there belongs to other settings."""


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

    @model_validator(mode="after")
    def _complete(self) -> Description:
        if self.colours and len(self.colours) != len(self.classes):
            raise ValueError(f"{len(self.colours)} colours for {len(self.classes)} classes")
        return self


class Scratch:
    """The folder in which an interrupted run waits for the same command to be given again.

    `RRN_SCRATCH` names its parent (default: `.scratch` in the repository). `RRN_RESUME=restart` throws away state of
    other settings; `RRN_RESUME=accept` goes on from it.

    Args:
        root: the repository.
        key: name of the run.
        identity: what must be the same for a resume to be exact; flat, JSON values.

    Raises:
        ResumeError: the folder is in use, or the identity differs; the message lists what.
    """

    def __init__(self, root: Path, key: str, identity: dict[str, Any]) -> None:
        self.folder = Path(os.environ.get("RRN_SCRATCH", root / ".scratch")) / key
        self.folder.mkdir(parents=True, exist_ok=True)
        self.checkpoint, self._identity = (
            self.folder / "checkpoint.pt",
            self.folder / "identity.json",
        )
        self._lock = (self.folder / "lock").open("a+")
        try:
            self._acquire()
            self._compare(identity)
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
        """Return the last saved state, or None if the run starts anew.

        Raises:
            ResumeError: the file is damaged.
        """
        if not self.checkpoint.exists():
            return None
        try:
            return torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise self._damaged(self.checkpoint, error) from error

    def save(self, state: dict[str, Any]) -> None:
        """Write the state; a crash at any moment leaves the former one whole."""
        partial = self.checkpoint.with_suffix(".partial")
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.checkpoint)

    def remove(self) -> None:
        """Delete the folder: the run is finished and its outputs are written."""
        shutil.rmtree(self.folder)

    def _acquire(self) -> None:
        """Take the lock; the kernel frees it when its holder dies."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.seek(0)
            raise ResumeError(
                f"another process (pid {self._lock.read().strip() or 'unknown'}) is running {self.folder.name}; "
                "wait for it or end it"
            ) from error
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    def _before(self) -> dict[str, Any]:
        """Read the identity of the state that lies here."""
        try:
            return json.loads(self._identity.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError) as error:
            raise self._damaged(self._identity, error) from error

    def _damaged(self, path: Path, error: Exception) -> ResumeError:
        """Say which file of an interrupted run cannot be read, and what to do."""
        return ResumeError(
            f"{self.folder.name} was interrupted, and its {path.name} cannot be read ({error}): "
            f"delete the folder {self.folder} to begin anew"
        )

    def _compare(self, identity: dict[str, Any]) -> None:
        """Refuse state of another identity, unless the user has chosen."""
        wish = os.environ.get("RRN_RESUME", "")
        if wish not in ("", "restart", "accept"):
            raise ResumeError(f"RRN_RESUME={wish!r} is neither restart nor accept")
        if self.checkpoint.exists() and wish != "accept":
            changed = differences(self._before(), identity)
            if changed and wish != "restart":
                raise ResumeError(
                    f"{self.folder.name} was interrupted under other conditions:\n  "
                    + "\n  ".join(changed)
                    + "\nset RRN_RESUME=restart to begin anew, or RRN_RESUME=accept to go on all the same"
                )
            if changed:
                self.checkpoint.unlink()
        self._identity.write_text(json.dumps(identity, indent=2, sort_keys=True), encoding="utf-8")


def differences(before: Any, after: Any, where: str = "") -> list[str]:
    """List the leaves of two nested JSON values that differ, as `key: old -> new`."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted({*before, *after})
        parts = (differences(before.get(k), after.get(k), f"{where}.{k}" if where else k) for k in keys)
        return [line for part in parts for line in part]
    return [] if before == after else [f"{where}: {before!r} -> {after!r}"]


def digest(*paths: Path) -> str:
    """Return 12 hexadecimal digits of the contents of files, in the order given."""
    contents = hashlib.sha256()
    for path in paths:
        contents.update(hashlib.sha256(path.read_bytes()).digest())
    return contents.hexdigest()[:12]


def code() -> str:
    """Return 12 hexadecimal digits of the package's source."""
    return digest(*sorted(Path(__file__).parent.rglob("*.py")))


def write_weights(model: RRN, out: Path) -> None:
    """Write segmenters.safetensors, and discriminators.safetensors where the row has them; one of another row goes."""
    for name in NETWORKS:
        networks: nn.ModuleList = getattr(model, name)
        (out / f"{name}.safetensors").unlink(missing_ok=True)
        if len(networks):
            tensors = {key: value.contiguous() for key, value in networks.state_dict().items()}
            save_file(tensors, out / f"{name}.safetensors")


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
    text = json.dumps(description.model_dump(mode="json"), indent=2)
    (out / DESCRIPTION).write_text(text + "\n", encoding="utf-8")


def read_description(folder: Path) -> Description:
    """Read the run.json of a finished run.

    Raises:
        SettingsError: there is no such folder, the run is not finished, or the file is damaged or of another version.
    """
    path = folder / DESCRIPTION
    if not folder.is_dir():
        raise config.SettingsError(
            f"there is no folder {folder}: name that of a finished run, such as runs/shapes/train/1of16-rrn-0"
        )
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
        raise config.SettingsError(f"device: {device!r} is none of auto, cpu, cuda, cuda:0, cuda:1 ...") from error
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
