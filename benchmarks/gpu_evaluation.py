"""Part of gpu.py: how fast images are evaluated, batch norm folded into the convolutions or not, in turns.

Two DeepLabV3+ on ResNet-50 in fp32, random weights and images: whole images of VOC's sizes, one by one, as preset
`voc` evaluates them; and windows of 800 x 800 of an image of 1024 x 2048, as `cityscapes` does. Folded is measured
with weights folded once for all images. Each must say what the plain one says, within a stated tolerance.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from gpu_part import Part, begin, wait
from gpu_step import CLASSES, Rival, peak_of, settings_of
from measuring import Row, ratio, row
from torch import Tensor

from rrn.evaluation.inference import Predictor, windows
from rrn.method import RRN
from rrn.training.learner import prepare_for

SIZES = ((375, 500), (500, 375), (333, 500), (500, 333), (334, 500), (281, 500), (366, 500), (500, 334))
"""Height and width of frequent images of VOC 2012."""
STREET = (1024, 2048)
SMALL_SIZES, SMALL_STREET = ((40, 50), (50, 40)), (64, 96)
SMALL_WINDOW = {"window": [48, 48], "stride": [32, 32]}
ROUNDS, WARMUP = 5, 1
TOLERANCE = 1e-3
"""Largest difference of a probability that folding may make: TF32 rounds to 3 digits."""


def predictors(data: str, part: Part) -> dict[str, Predictor]:
    """Return what evaluates by the protocol of a preset, plain and folded."""
    settings = settings_of(Rival("cps_cutmix", "fp32", data), part.small)
    model = prepare_for(RRN(settings, CLASSES[data], 0), part.device, settings.speed).eval()
    protocol = settings.evaluate
    if part.small and data == "cityscapes":
        protocol = protocol.model_copy(update={key: tuple(value) for key, value in SMALL_WINDOW.items()})
    return {
        name: Predictor(model, protocol.model_copy(update={"folded": folded}), settings.loading)
        for name, folded in (("plain", False), ("folded", True))
    }


def images(sizes: tuple[tuple[int, int], ...], part: Part) -> list[Tensor]:
    """Return a random image of each size, uint8 [1, 3, H, W], on the device."""
    draw = torch.Generator().manual_seed(0)
    drawn = [torch.randint(256, (1, 3, *size), dtype=torch.uint8, generator=draw) for size in sizes]
    return [image.to(part.device) for image in drawn]


def looked(predictor: Predictor, shown: list[Tensor], part: Part) -> float:
    """Return the seconds that a predictor takes for images, one by one."""
    wait(part.device)
    start = time.perf_counter()
    steady = predictor.unchanged()
    for image in shown:
        steady.logits(image)
    wait(part.device)
    return time.perf_counter() - start


def compared(data: str, sizes: tuple[tuple[int, int], ...], part: Part) -> Iterator[Row]:
    """Measure seconds an image, windows a second, peak memory, and the difference that folding makes."""
    rivals, shown = predictors(data, part), images(sizes, part)
    what = "whole image" if data == "voc" else "sliding window"
    found: dict[str, list[float]] = {name: [] for name in rivals}
    for number in range(WARMUP + (2 if part.small else ROUNDS)):
        for name in list(rivals)[:: -1 if number % 2 else 1]:
            seconds = looked(rivals[name], shown, part)
            if number >= WARMUP:
                found[name].append(seconds / len(shown))
    for name, seconds in found.items():
        yield row(f"{what}, {name}", "an image", "s", seconds)
        if data == "cityscapes":
            count = seen_by(rivals[name], sizes[0])
            passed = "windows a second, each through both networks"
            yield row(f"{what}, {name}", passed, "images/s", [count / value for value in seconds])
        if part.device.type == "cuda":
            held = peak_of(part.device, lambda name=name: looked(rivals[name], shown[:1], part))
            yield row(f"{what}, {name}", "peak memory", "MB", [held / 1e6])
    yield ratio(f"{what}, plain / folded", "an image", found["plain"], found["folded"])
    yield row(f"{what}, folded - plain", "largest difference of a probability", "count", [difference(rivals, shown[0])])


def seen_by(predictor: Predictor, size: tuple[int, int]) -> int:
    """Return through how many windows an image of a size is looked at."""
    protocol = predictor.protocol
    assert protocol.window is not None
    return len(windows(size, protocol.window, protocol.stride))


def difference(rivals: dict[str, Predictor], image: Tensor) -> float:
    """Return the largest difference of a probability between plain and folded.

    Raises:
        ValueError: it is more than rounding.
    """
    plain, folded = (rivals[name].logits(image).softmax(2) for name in ("plain", "folded"))
    most = (plain - folded).abs().max().item()
    if not most <= TOLERANCE:
        raise ValueError(f"folded probabilities differ by {most:.2g} from plain ones, more than {TOLERANCE:.2g}")
    return most


def main() -> None:
    """Measure whole images, then windows."""
    part = begin(__doc__)
    if part.small:
        torch.set_num_threads(1)
    part.run("whole", lambda: compared("voc", SMALL_SIZES if part.small else SIZES, part))
    part.run("sliding", lambda: compared("cityscapes", (SMALL_STREET if part.small else STREET,), part))


if __name__ == "__main__":
    main()
