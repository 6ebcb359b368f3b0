"""Evaluation of an image of 1024 x 2048 pixels, whole and in windows of 800 x 800, beside one window at a time.

    python benchmarks/run.py sliding

Two segmenters of DeepLabV3+ on ResNet-50 (decoder 256, rates 6 12 18), 19 classes, fp32, 2 threads, random weights,
statistics of batch norm of one random batch. The rival is the loop that everybody writes: contiguous networks, a window
at a time, probabilities added up, then divided by how many windows see a pixel. Ours is `Predictor`, one change at a
time; no probability may differ from the rival's by more than 1e-5.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from measuring import Row, alternating, ratio, row
from torch import Tensor, nn

from rrn import config
from rrn.evaluation.inference import Predictor
from rrn.method import RRN

THREADS, ROUNDS, TOLERANCE = 2, 3, 1e-5
RIVALS = {"sliding": "one window at a time", "whole": "whole image, plain"}


@dataclass(frozen=True)
class Size:
    """How large everything is: sides of image, window and stride in pixels, number of classes, and the segmenter."""

    image: tuple[int, int]
    window: int
    stride: int
    classes: int
    model: dict[str, Any]


FULL = Size(
    image=(1024, 2048),
    window=800,
    stride=534,
    classes=19,
    model={"encoder": "tu-resnet50", "output_stride": 16, "decoder_channels": 256, "atrous_rates": [6, 12, 18]},
)
TINY = Size(
    image=(64, 128),
    window=50,
    stride=34,
    classes=3,
    model={"encoder": "tu-test_efficientnet", "decoder_channels": 8, "atrous_rates": [1, 2, 3]},
)


@dataclass(frozen=True)
class Case:
    """One way to use `Predictor`: how images are looked at, layout of the weights, folded or not, windows in a pass."""

    mode: str
    layout: torch.memory_format
    folded: bool
    batch: int


CASES = {
    "sliding, contiguous": Case("sliding", torch.contiguous_format, False, 1),
    "sliding, channels last": Case("sliding", torch.channels_last, False, 1),
    "sliding, channels last, folded": Case("sliding", torch.channels_last, True, 1),
    "sliding, channels last, folded, 2 windows in a pass": Case("sliding", torch.channels_last, True, 2),
    "whole, channels last": Case("whole", torch.channels_last, False, 1),
    "whole, channels last, folded": Case("whole", torch.channels_last, True, 1),
}


def rows(quick: bool) -> list[Row]:
    """Measure seconds an image and images/s, ratios to the rivals, and the largest difference."""
    torch.set_num_threads(THREADS)
    looks, seen = lookers(TINY if quick else FULL), dict[str, Tensor]()
    keeping = {name: lambda name=name: seen.update({name: looks[name]()}) for name in looks}
    seconds = alternating(keeping, 2 if quick else ROUNDS, warmup=0)
    found = []
    for name, taken in seconds.items():
        found.append(row(name, "seconds an image", "s", taken))
        found.append(row(name, "images a second", "images/s", [1 / value for value in taken]))
    for name, case in CASES.items():
        rival = RIVALS[case.mode]
        found.append(ratio(name, f"speed, times that of {rival}", seconds[rival], seconds[name]))
        difference = (seen[name].softmax(1) - seen[rival]).abs().max().item()
        assert difference <= TOLERANCE, f"{name}: a probability differs by {difference:.2g} from that of {rival}"
        found.append(row(name, f"largest difference of a probability to {rival}", "count", [difference]))
    return found


def lookers(size: Size) -> dict[str, Callable[[], Tensor]]:
    """Return, by name, what looks at the one random image: probabilities [2, C, H, W], of `Predictor` their logs."""
    draw = torch.Generator().manual_seed(0)
    image = torch.randint(256, (3, *size.image), dtype=torch.uint8, generator=draw)
    base = model(size)
    looks: dict[str, Callable[[], Tensor]] = {
        RIVALS["sliding"]: lambda: one_window_at_a_time(list(base.segmenters), image, size.window, size.stride),
        RIVALS["whole"]: lambda: one_window_at_a_time(list(base.segmenters), image, max(size.image), size.stride),
    }
    for name, case in CASES.items():
        laid = copy.deepcopy(base).to(memory_format=case.layout)
        loading = config.load(None, {"loading": {"evaluation_batch": case.batch}}).loading
        predictor = Predictor(laid, protocol(size, case), loading)
        looks[name] = lambda predictor=predictor: predictor.logits(image[None])[:, 0]
    return looks


def model(size: Size) -> RRN:
    """Return two segmenters in evaluation mode, statistics of batch norm those of a random batch."""
    settings = config.load("cps", {"device": "cpu", "model": {**size.model, "weights": None}})
    built = RRN(settings, size.classes, seed=0)
    draw = torch.Generator().manual_seed(1)
    images = torch.randint(256, (2, 3, 128, 128), dtype=torch.uint8, generator=draw)
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        for segmenter in built.segmenters:
            segmenter(built.normalize(images))
    return built.eval()


def protocol(size: Size, case: Case) -> config.Evaluate:
    """Return `settings.evaluate` of a case."""
    sides = {"window": [size.window] * 2, "stride": [size.stride] * 2} if case.mode == "sliding" else {}
    values = {"mode": case.mode, "folded": case.folded, **sides}
    return config.load(None, {"evaluate": values}).evaluate


@torch.no_grad()
def one_window_at_a_time(networks: list[nn.Module], image: Tensor, window: int, stride: int) -> Tensor:
    """Return probabilities [2, C, H, W] of uint8 [3, H, W], as everybody computes them; the rival, never improved."""
    height, width = image.shape[1:]
    totals: list[Tensor] = []
    count = torch.zeros(height, width)
    tops, lefts = ([*range(0, max(side - window, 0), stride), max(side - window, 0)] for side in (height, width))
    for top in tops:
        for left in lefts:
            here = (..., slice(top, top + window), slice(left, left + window))
            cut = networks[0].normalize(image[None][here])
            count[here] += 1
            for k, network in enumerate(networks):
                seen = network(cut).softmax(1)[0]
                if k == len(totals):
                    totals.append(torch.zeros(len(seen), height, width))
                totals[k][here] += seen
    return torch.stack(totals) / count
