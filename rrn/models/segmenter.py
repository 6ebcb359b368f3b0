"""The segmenter, which labels pixels: a network of segmentation_models_pytorch, with any timm encoder.

It is not the paper's idea.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.encoders import encoders
from timm.models import group_parameters
from torch import Tensor, nn

from rrn import config
from rrn.models import pretrained as pretrained_weights

MULTIPLE = 32
"""Of pixels, to which sides of images are padded: all encoders but those of odd patches halve them evenly."""


class Segmenter(nn.Module):
    """A network of segmentation_models_pytorch that takes uint8 images of any size.

    Args:
        settings: architecture, encoder, weights.
        classes: number of classes.
        pretrained: whether to fill the encoder with `weights`; not where trained ones follow. How images are
            normalized is theirs in either case.
    """

    def __init__(self, settings: config.Model, classes: int, pretrained: bool = True) -> None:
        super().__init__()
        self.network = _build(settings, classes)
        encoder = self.network.get_submodule("encoder")
        mean, std = pretrained_weights.normalization(encoder, settings.weights)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        if pretrained and settings.weights is not None:
            pretrained_weights.load_pretrained(encoder, settings.weights)
        self.register_buffer("scale", None)
        self.register_buffer("shift", None)

    mean: Tensor
    std: Tensor
    scale: Tensor | None
    shift: Tensor | None

    def take_images_of(self, other: Segmenter) -> None:
        """Let `forward` take images that `other` has normalized, also where its weights know another mean.

        Padding is then the other one's mean color.
        """
        self.scale, self.shift = other.std / self.std, (other.mean - self.mean) / self.std

    def normalize(self, images: Tensor) -> Tensor:
        """Turn uint8 [B, 3, H, W] into the float input that the encoder's weights were trained with.

        `forward` of a segmenter that takes the images of another one wants that one's.
        """
        return (images.to(self.mean.dtype) / 255 - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, C, H, W] of normalized float images [B, 3, H, W] of any size."""
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % MULTIPLE, 0, -height % MULTIPLE))
        return self.answer(padded)[..., :height, :width]

    def answer(self, padded: Tensor) -> Tensor:
        """Return logits [B, C, H, W] of normalized float images [B, 3, H, W] whose sides are multiples of MULTIPLE."""
        if self.scale is not None and self.shift is not None:
            padded = padded * self.scale + self.shift
        return self.network(padded)


UNFIT = (KeyError, RuntimeError, ValueError, TypeError, AttributeError, AssertionError)
"""What segmentation_models_pytorch and timm raise for an encoder that they do not have, or that does not fit."""
PATCH = 16
"""Pixels of a side of a patch, where an encoder's own do not divide MULTIPLE; weights are resampled [FlexiViT]."""
ANY_SIZE: tuple[dict[str, bool], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False})
"""Options that let timm's encoders of one input size (vision transformers; Swin) take images of any size."""


def _build(settings: config.Model, classes: int) -> nn.Module:
    """Build the network without weights, so that nothing is ever downloaded."""
    known = {architecture.__name__: architecture for architecture in smp.MODEL_ARCHITECTURES_MAPPING.values()}
    if settings.architecture not in known:
        raise config.SettingsError(
            f"model.architecture: segmentation_models_pytorch has no {settings.architecture!r} (DeepLabV3Plus is the "
            f"paper's){config.nearest(settings.architecture, known)}"
        )
    _require_encoder(settings.encoder)
    deeplab = {}
    if settings.architecture.startswith("DeepLabV3"):
        deeplab = {
            "encoder_output_stride": settings.output_stride,
            "decoder_channels": settings.decoder_channels,
            "decoder_atrous_rates": settings.atrous_rates,
        }
    build = partial(known[settings.architecture], settings.encoder, encoder_weights=None, classes=classes, **deeplab)
    try:
        return _of_any_size(build) if _has_one_size(settings.encoder) else build()
    except UNFIT as error:
        reason = str(error) or f"{settings.architecture} does not take it"
        raise config.SettingsError(f"model.encoder: {settings.encoder!r} cannot be built: {reason}") from error


def _of_any_size(build: Callable[..., nn.Module]) -> nn.Module:
    """Build a network whose encoder is made for images of one size so that it takes any, if the encoder has a way.

    Patches that do not fill padded images, such as DINOv2's of 14 pixels, become as many patches of PATCH pixels.
    """
    for options in ANY_SIZE:
        try:
            network = build(**options)
        except TypeError:  # not an option of this encoder
            continue
        patches = getattr(network.get_submodule("encoder.model"), "patch_embed", None)
        if patches is None or MULTIPLE % patches.patch_size[0] == 0:
            return network
        return build(**options, patch_size=PATCH, img_size=tuple(PATCH * side for side in patches.grid_size))
    return build()


def _require_encoder(name: str) -> None:
    """Refuse an encoder that neither segmentation_models_pytorch nor timm has, and say which have such a name."""
    if name in encoders or name.startswith("timm-") or (name.startswith("tu-") and timm.is_model(name[3:])):
        return
    known = [*encoders, *(f"tu-{model}" for model in timm.list_models())]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.7)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "tu-NAME is any of timm's, such as tu-resnet50"
    raise config.SettingsError(f"model.encoder: there is no {name!r}; {hint}")


def _has_one_size(encoder: str) -> bool:
    """Return whether timm says that an encoder takes images of one size."""
    facts = timm.get_pretrained_cfg(encoder[3:], allow_unregistered=True) if encoder.startswith("tu-") else None
    return bool(facts and facts.fixed_input_size)


def layer_scales(encoder: nn.Module, decay: float) -> dict[nn.Parameter, float]:
    """Return the factor on the learning rate of each weight of an encoder: `decay` to the number of layers above it.

    Layers are those that timm knows [BEiT]; above the last one stands what is no encoder.

    Raises:
        SettingsError: it knows none.
    """
    facts: Any = getattr(getattr(encoder, "model", None), "pretrained_cfg", None)
    with torch.device("meta"):
        whole: Any = timm.create_model(facts["architecture"]) if facts else None
    named = {pretrained_weights.bare_name(name): p for name, p in encoder.named_parameters()}
    layers: dict[str, int] = {}
    if hasattr(whole, "group_matcher"):
        known = group_parameters(whole, whole.group_matcher(coarse=False), reverse=True)
        layers = {pretrained_weights.bare_name(name): layer for name, layer in known.items()}
    if not named.keys() <= layers.keys():
        raise config.SettingsError(
            f"optimizer.layer_decay: {decay}, but timm knows no layers of this model.encoder; set layer_decay: 1.0, or "
            "take another of timm's, such as tu-resnet50"
        )
    head = max(layers.values())  # of timm's classifier, and the norm before it
    above = 1 + max(layers[name] for name in named if layers[name] < head)
    return {p: decay ** max(above - layers[name], 0) for name, p in named.items()}


def speed_up(segmenter: nn.Module, speed: config.Speed) -> None:
    """Compile a segmenter's network, or let its encoder compute activations twice instead of keeping them.

    Raises:
        SettingsError: the encoder cannot do that, or torch knows no such compiler.
    """
    network = segmenter.get_submodule("network")
    if speed.checkpointing:
        stages: Any = getattr(network.get_submodule("encoder"), "model", None)
        if not hasattr(stages, "set_grad_checkpointing"):
            raise config.SettingsError("speed.checkpointing: true, but this encoder has no stages to compute again")
        stages.set_grad_checkpointing(True)
    if speed.compile is not None:
        known = torch.compiler.list_backends(exclude_tags=())
        if speed.compile not in known:
            raise config.SettingsError(
                f"speed.compile: torch has no backend {speed.compile!r}{config.nearest(speed.compile, known)}"
            )
        network.compile(backend=speed.compile)
