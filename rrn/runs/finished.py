"""A finished run: its weights, and run.json, which says what they are.

Both are all that is needed to use its networks. Nothing that is read here can execute code.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rrn import config
from rrn.settings.limits import MOVED, Byte, PositiveInt
from rrn.method import RRN
from rrn.models.device import resolve_device
from rrn.runtime import atomic_io
from rrn.settings.limits import Section

NETWORKS = ("segmenters", "discriminators")
CARD = "run.json"
TRAINING = re.compile(r"(^|/)runs/(?P<name>[^/]+)/train/(?P<key>[^/]+)$")
"""Where the pipeline puts a training."""


class RunCard(Section):
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
    # the key of files, spelled as in the first of them
    colours: tuple[tuple[Byte, Byte, Byte], ...]
    size: tuple[PositiveInt, PositiveInt] | None
    networks: config.Networks | None
    evaluate: config.Evaluate

    @field_validator("evaluate", mode="before")
    @classmethod
    def _without_moved_keys(cls, protocol: Any) -> Any:
        """Leave out what runs of earlier versions say in `evaluate:`, and what changes no answer."""
        if not isinstance(protocol, dict):
            return protocol
        return {key: value for key, value in protocol.items() if f"evaluate.{key}" not in MOVED}

    @model_validator(mode="after")
    def _complete(self) -> RunCard:
        if self.colours and len(self.colours) != len(self.classes):
            raise ValueError(f"{len(self.colours)} colors for {len(self.classes)} classes")
        return self


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
            with atomic_io.atomic_path(out / f"{name}.safetensors", lasting=True) as unfinished:
                _save(tensors, unfinished)


def read_segmenters(model: RRN, folder: Path) -> None:
    """Fill the segmenters with those of a finished run.

    Raises:
        SettingsError: the run is not finished, or was made with another `model:`.
    """
    _fill(model.segmenters, folder / "segmenters.safetensors")


def load_model(folder: Path, settings: config.Settings, classes: int) -> RRN:
    """Read a finished run (segmenters, and discriminators where the row has them).

    Raises:
        SettingsError: as `read_segmenters`.
    """
    return _filled(RRN(settings, classes, seed=0, pretrained=False), folder).to(resolve_device(settings.device))


def load_finished(folder: Path, device: str = "auto") -> tuple[RRN, RunCard]:
    """Rebuild the networks of a finished run from its folder alone: run.json says what they are.

    Args:
        folder: of a training.
        device: auto (a GPU if there is one), cpu, cuda or cuda:N.

    Raises:
        SettingsError: it is no finished run, its run.json is damaged or of another version, its weights are missing,
            damaged or of other networks, or the device is not there.
    """
    card = read_card(folder)
    if card.networks is None:
        raise config.SettingsError(
            f"{folder} is a warmup, which says nothing of the method: name a training, such as "
            "runs/shapes/train/1of16-supervised-0"
        )
    model = RRN(card.networks, len(card.classes), seed=0, pretrained=False)
    return _filled(model, folder).to(resolve_device(device)), card


def networks_of(settings: config.Settings) -> config.Networks:
    """Take what builds the networks out of all settings."""
    return config.Networks(model=settings.model, method=settings.method, region=settings.region)


def write_card(card: RunCard, out: Path) -> None:
    """Write run.json; the same card, the same bytes."""
    text = json.dumps(card.model_dump(mode="json"), indent=2)
    atomic_io.write(out / CARD, text + "\n", lasting=True)


def read_card(folder: Path) -> RunCard:
    """Read the run.json of a finished run.

    Raises:
        SettingsError: there is no such folder, the run is not finished, or the file is damaged or of another version.
    """
    path = folder / CARD
    if not folder.is_dir():
        raise config.SettingsError(f"there is no folder {folder}: {_makes(folder)}")
    if not path.is_file():
        raise config.SettingsError(
            f"{folder} is no finished run: it has no {CARD}; name the folder of one run, "
            "and if that was interrupted, give its command again"
        )
    try:
        return RunCard.model_validate_json(path.read_bytes())
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


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a .safetensors file.

    Raises:
        OSError: as the system says it, which safetensors wraps.
    """
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            number = int(found[1])
            raise OSError(number, os.strerror(number)) from error
        raise
