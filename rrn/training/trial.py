"""Can the networks of these settings be built, and do they take images of the sizes that they will meet?

They are built on torch's meta device, which has shapes and no values: nothing is computed, fetched or allocated.
`python -m rrn.training.trial` reads settings as JSON from its input and answers as JSON;
`rrn.pipeline.buildable` asks it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from rrn import config
from rrn.evaluation.inference import Size, scaled
from rrn.models import pretrained
from rrn.models.discriminator import build_discriminator
from rrn.models.segmenter import UNFIT, Segmenter, layer_scales, speed_up
from rrn.runtime import memory

CLASSES = 2
"""Of the trial: their number is known from the data alone, and fits any network."""
MORE = (32, 64)
"""Pixels, down and to the right, that an image of unknown size is larger than a crop."""


def require_buildable(settings: config.Settings, rows: Mapping[str, config.Method]) -> None:
    """Build the segmenters of `settings` and the region discriminators of `rows`, by name, and show them images.

    Raises:
        SettingsError: a network cannot be built, has no such weights, or does not take images of a size it will meet.
        RuntimeError: there is not enough memory for the trial, which says nothing of the settings.
    """
    first, second = settings.model.both
    _try_segmenter(first, settings)
    if second != first:
        try:
            _try_segmenter(second, settings)
        except config.SettingsError as error:
            where = "model.second, read as model: " if str(error).startswith("model.") else ""
            raise config.SettingsError(f"{where}{error}") from error
    for name, row in rows.items():
        if row.uses_discriminators:
            _try_discriminator(name, row, settings.augment.crop)


def _try_segmenter(model: config.Model, settings: config.Settings) -> None:
    """Refuse a segmenter that cannot be built, or does not take images of the sizes that it will meet."""
    segmenter = _segmenter(model)
    encoder = segmenter.network.get_submodule("encoder")
    pretrained.require_fitting(encoder, model.weights)
    crop = settings.augment.crop
    if settings.optimizer.layer_decay != 1:
        layer_scales(encoder, settings.optimizer.layer_decay)
    _require_taken(segmenter.train(), model, (crop, crop), f"augment.crop: {crop}", images=2)
    for size, name in _looked_at(settings):
        _require_taken(segmenter.eval(), model, size, name)
    speed_up(segmenter, settings.speed)


def _segmenter(settings: config.Model) -> Segmenter:
    """Build a segmenter without values; where an encoder computes with some while it is built, with them at first."""
    try:
        with torch.device("meta"):
            return Segmenter(settings, CLASSES, pretrained=False)
    except config.SettingsError as error:
        if "meta tensor" not in str(error):
            raise
    except (RuntimeError, NotImplementedError) as error:
        if "meta" not in str(error):
            raise
    try:
        return Segmenter(settings, CLASSES, pretrained=False).to("meta")
    except config.SettingsError as error:
        if memory.ON_THE_CPU in str(error):
            raise RuntimeError(str(error)) from error
        raise


def _looked_at(settings: config.Settings) -> Iterator[tuple[Size, str]]:
    """Yield (height, width) of what goes through a segmenter in evaluation, and which setting says so."""
    protocol, crop = settings.evaluate, settings.augment.crop
    if protocol.window is not None:
        yield protocol.window, f"evaluate.window: {list(protocol.window)}"
    elif settings.dataset.size is not None:
        for scale in protocol.scales:
            name = f"dataset.size: {list(settings.dataset.size)}"
            yield scaled(settings.dataset.size, scale), name if scale == 1 else f"{name} at evaluate.scales: {scale}"
    else:
        name = "evaluate.mode: whole, which looks at images of any size"
        yield (crop + MORE[0], crop + MORE[1]), name


def _require_taken(segmenter: Segmenter, model: config.Model, size: Size, name: str, images: int = 1) -> None:
    """Refuse a segmenter that does not take images of a size."""
    reason = _refusal(segmenter, size, images)
    if reason is None:
        return
    raise config.SettingsError(
        f"model.encoder: {model.encoder!r} in {model.architecture} does not go with {name} ({reason}); "
        f"{_cure(segmenter)}"
    )


def _refusal(segmenter: Segmenter, size: Size, images: int = 1) -> str | None:
    """Return why a segmenter does not take images of a size; None if it does."""
    try:
        segmenter(torch.zeros(images, 3, *size, device="meta"))
    except UNFIT as error:
        if isinstance(error, RuntimeError) and memory.is_shortage(error):
            raise
        return (str(error).strip() or type(error).__name__).partition("\n")[0][:200]
    return None


def _cure(segmenter: Segmenter) -> str:
    """Say what would do: the one size that an encoder is made for, or another encoder."""
    facts = getattr(getattr(segmenter.network.get_submodule("encoder"), "model", None), "pretrained_cfg", None) or {}
    side = int((facts.get("input_size") or (0, 0, 0))[-1])
    if side and _refusal(segmenter.eval(), (side, side)) is None:
        return (
            f"it takes {side} x {side} pixels: set augment.crop: {side} and evaluate.mode: sliding with window and "
            f"stride [{side}, {side}], or dataset.size: [{side}, {side}]; or take another encoder"
        )
    return "take another encoder, another architecture, or larger images"


def _try_discriminator(name: str, row: config.Method, crop: int) -> None:
    """Refuse the region discriminator of a row if it does not take crops."""
    judge = row.discriminator
    try:
        with torch.device("meta"):
            _judge(build_discriminator(judge, CLASSES), row, crop)
    except UNFIT as error:
        raise config.SettingsError(
            f"methods.{name}: method.discriminator does not go with augment.crop: {crop} ({error}); lower its "
            "input_stride or the number of its channels"
        ) from error


def _judge(discriminator: nn.Module, row: config.Method, crop: int) -> tuple[Tensor, Tensor]:
    """Show a discriminator two crops."""
    maps = torch.zeros(2, CLASSES * (1 + row.discriminator.sees_both), crop, crop)
    judged: tuple[Tensor, Tensor] = discriminator(
        maps, torch.zeros(2, 3, crop, crop), torch.ones(2, 1, crop, crop), crop // row.grid
    )
    return judged


def main() -> int:
    """Read {"params": settings, "rows": names}, try them, and answer {"refused": null or why}."""
    asked = json.load(sys.stdin)
    settings, refused = config.resolve(asked["params"]), None
    try:
        require_buildable(settings, {row: config.in_row(settings, row) for row in asked["rows"]})
    except config.SettingsError as error:
        refused = str(error)
    print(json.dumps({"refused": refused}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
