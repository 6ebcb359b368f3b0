"""The two kinds of network: a segmenter that labels pixels, and a region discriminator that judges its labels.

The segmenter is not the paper's idea and comes from segmentation_models_pytorch, with any timm encoder. The trunk of
the discriminator is that of the released code; that it answers region by region is the paper's idea [abstract], its
head ours: the released one pools a fixed window and never sees part of a 512 pixel crop.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.encoders import encoders
from torch import Tensor, nn

from rrn import config
from rrn.models import pretrained as pretrained_weights
from rrn.models import regions

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

    mean: Tensor
    std: Tensor

    def normalize(self, images: Tensor) -> Tensor:
        """Turn uint8 [B, 3, H, W] into the float input that the encoder's weights were trained with."""
        return (images.to(self.mean.dtype) / 255 - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, C, H, W] of normalized float images [B, 3, H, W] of any size."""
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % MULTIPLE, 0, -height % MULTIPLE))
        return self.network(padded)[..., :height, :width]


UNFIT = (KeyError, RuntimeError, ValueError, TypeError, AttributeError, AssertionError)
"""What segmentation_models_pytorch and timm raise for an encoder that they do not have, or that does not fit."""
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
    architecture = known[settings.architecture]
    try:
        for options in ANY_SIZE if _has_one_size(settings.encoder) else ():
            with suppress(TypeError):  # not an option of this encoder
                return architecture(settings.encoder, encoder_weights=None, classes=classes, **deeplab, **options)
        return architecture(settings.encoder, encoder_weights=None, classes=classes, **deeplab)
    except UNFIT as error:
        reason = str(error) or f"{settings.architecture} does not take it"
        raise config.SettingsError(f"model.encoder: {settings.encoder!r} cannot be built: {reason}") from error


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


class RegionDiscriminator(nn.Module):
    """Judge a class map region by region: one logit a region, high where the labels look right.

    Convolutions of kernel 4 and stride 2, LeakyReLU 0.2, Dropout2d after all but the last [released]; the features of a
    region are averaged over its valid cells and scored by one linear layer [ours]. Cells and regions need not line up;
    a region whose valid pixels all lie in cells of its neighbours is scored by all of its own cells.

    Args:
        settings: channels, input stride, whether it sees the image, and both segmenters' class maps.
        classes: number of classes.
    """

    def __init__(self, settings: config.Discriminator, classes: int) -> None:
        super().__init__()
        self.sees_image, self.input_stride = settings.sees_image, settings.input_stride
        layers: list[nn.Module] = []
        inputs = classes * (1 + settings.sees_both) + 3 * settings.sees_image
        for depth, outputs in enumerate(settings.channels, start=1):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.LeakyReLU(0.2)]
            layers += [nn.Dropout2d(settings.dropout)] if depth < len(settings.channels) else []
            inputs = outputs
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Conv2d(inputs, 1, 1)

    def forward(self, maps: Tensor, images: Tensor, valid: Tensor, grid: regions.Grid) -> tuple[Tensor, Tensor]:
        """Score the regions of class maps.

        Args:
            maps: class maps, float [B, C (or 2C), H, W], those of a segmenter sum to 1 at every pixel.
            images: the images they label, normalized float [B, 3, H, W].
            valid: float [B, 1, H, W], 0 where maps and images are padding or void: those pixels change nothing.
            grid: rows and columns of regions that fill H x W.

        Returns:
            Logits [B, rows, columns] and features [B, K, rows, columns] of the regions.
        """
        seen = torch.cat([maps, images], dim=1) if self.sees_image else maps
        seen = seen * valid
        if self.input_stride > 1:
            seen = F.avg_pool2d(seen, self.input_stride, ceil_mode=True)
        features = self.trunk(seen)
        cells = F.adaptive_max_pool2d(valid, features.shape[-2:])
        missed = (regions.region_sum(cells, grid) == 0) & (regions.region_sum(valid, grid) > 0)
        cells = torch.where(regions.spread(missed, *cells.shape[-2:]), 1.0, cells)
        features = regions.region_mean(features, cells, grid)
        with regions.full_precision(features.device):
            return self.head(features.to(self.head.weight.dtype)).squeeze(1), features


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


@contextmanager
def teaching(segmenter: nn.Module, statistics: str) -> Iterator[None]:
    """Dropout off; batch norm with the batch's statistics, its running ones untouched, or with the running ones."""
    with evaluating(segmenter):
        if statistics == "running":
            yield
            return
        for norm in _norms(segmenter):
            norm.train()
        with statistics_kept(segmenter):
            yield


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Batch norm that trains uses the batch's statistics as ever, but its running ones stay as they are."""
    norms = _norms(module)
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@contextmanager
def recomputing(module: nn.Module) -> Iterator[None]:
    """Batch norm computes once more what it has computed; its running statistics count it once."""
    norms = _norms(module)
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    spare = next((counter.clone() for _, counter in before if counter is not None), None)  # one serves them all
    for norm, (_, counter) in zip(norms, before, strict=True):
        norm.momentum = 0.0
        norm.num_batches_tracked = spare if counter is not None else None
    try:
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counter


def counted(module: nn.Module) -> list[Tensor]:
    """Return what a step changes of a network beside its weights: the buffers of all batch norms, [channels] or []."""
    return [buffer for norm in _norms(module) for buffer in norm.buffers(recurse=False)]


def _norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return all batch norms of a network."""
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every submodule's own mode back afterwards."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for submodule, training in modes:
            submodule.training = training


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Parameters take no gradient inside; what flows through them does."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
