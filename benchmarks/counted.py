"""What a step of the GPU presets costs, counted on torch's meta device, which has no values: operations and memory.

    python benchmarks/counted.py

Prints multiply-adds of a step, and what autograd holds at most at one time in fp32: the larger part of a training's
memory, on top of weights, gradients and work space; and hours of a training in bf16, estimated from both. docs/gpu.md
and docs/performance.md quote them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from rrn import config
from rrn.data.batches import Batch
from rrn.method import RRN
from rrn.training.learner import Learner, prepare_for

ROOT = Path(__file__).resolve().parents[1]
META = torch.device("meta")
SMALL = {"method": {"discriminator": {"input_stride": 4, "channels": [32, 64], "sees_image": False, "dropout": 0.0}}}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "supervised": ("supervised", {}),
    "cps_cutmix": ("cps_cutmix", {}),
    "rrn": ("rrn", {}),
    "rrn, small discriminators": ("rrn", SMALL),
    "rrn, merged": ("rrn", {"speed": {"merged": True}}),
}
"""Name, row, and difference to the settings of a preset."""
GPUS = {"A100": (312e12, 1.55e12), "H100": (989e12, 3.35e12)}
"""Operations a second in bf16 and bytes of memory a second, as their data sheets say."""
OF_PEAK = 0.4
"""Share of the operations that kernels are taken to reach; a guess."""
TRAFFIC = 14
"""Bytes moved in a step for each byte held in fp32: written once, read twice, its gradient written and read, in four
passes; twice as much written and read once in two teacher passes; and half of it all in bf16."""


def settings_of(presets: tuple[str, ...], row: str, difference: dict[str, Any]) -> config.Settings:
    """Return the settings of presets, on the meta device, in fp32 and without weights."""
    values = config.read(ROOT / "params.yaml")
    for name in presets:
        values = config.merge(values, config.read(ROOT / "presets" / f"{name}.yaml"))
    return config.resolve(values, row, difference | {"device": "meta", "precision": "fp32", "model": {"weights": None}})


def batch_of(settings: config.Settings) -> Batch:
    """Return a batch without values."""
    crop, labeled, unlabeled = settings.augment.crop, settings.batch.labeled, settings.batch.unlabeled

    def images(count: int) -> Tensor:
        return torch.empty(count, 3, crop, crop, dtype=torch.uint8, device=META)

    labels = torch.empty(labeled, crop, crop, dtype=torch.int64, device=META)
    valid = torch.empty(unlabeled, 1, crop, crop, dtype=torch.bool, device=META)
    halves = images(unlabeled), images(unlabeled)
    return Batch(images(labeled), labels, halves, (valid, valid), valid, ("",) * labeled, (("",) * unlabeled,) * 2)


class Held:
    """The bytes of the tensors that autograd holds, now and at most; `free` ones, the weights, count as 0."""

    def __init__(self, free: Iterable[Tensor]) -> None:
        self.now, self.most = 0, 0
        self.free = {storage(tensor) for tensor in free}
        self.holders: Counter[int] = Counter()

    def take(self, tensor: Tensor) -> Kept:
        """Note a tensor that is saved for the backward pass."""
        self.count(tensor, 1)
        return Kept(self, tensor)

    def count(self, tensor: Tensor, holders: int) -> None:
        """One more holds the memory of a tensor, or one less."""
        key, before = storage(tensor), self.holders[storage(tensor)]
        self.holders[key] += holders
        if key not in self.free and 0 in (before, before + holders):
            self.now += holders * tensor.untyped_storage().nbytes()
            self.most = max(self.most, self.now)


@dataclass(frozen=True)
class Kept:
    """A tensor for as long as autograd holds it."""

    held: Held
    tensor: Tensor

    def __del__(self) -> None:
        self.held.count(self.tensor, -1)


def storage(tensor: Tensor) -> int:
    """Return what tells the memory of one tensor from that of another."""
    return tensor.untyped_storage()._cdata


def count(presets: tuple[str, ...], classes: int, row: str, difference: dict[str, Any]) -> tuple[float, float]:
    """Return the multiply-adds of one step, and the most bytes that autograd holds."""
    settings = settings_of(presets, row, difference)
    model = prepare_for(RRN(settings, classes, 0), META, settings.speed).train()
    learner, batch = Learner(model, settings, settings.train, decay=True), batch_of(settings)
    held = Held(model.parameters())
    with FlopCounterMode(display=False) as operations, torch.autograd.graph.saved_tensors_hooks(held.take, unpack):
        learner.step(batch, 0)
    return operations.get_total_flops() / 2, held.most


def hours(multiply_adds: float, held: float, steps: int, gpu: str) -> float:
    """Estimate the hours of a training in bf16, of so many steps, from multiply-adds and bytes held in fp32 of one."""
    operations, memory = GPUS[gpu]
    return steps * (2 * multiply_adds / (OF_PEAK * operations) + TRAFFIC * held / memory) / 3600


def unpack(kept: Kept) -> Tensor:
    """Return the tensor that was kept."""
    return kept.tensor


def main() -> None:
    """Print a table for each preset."""
    for data, classes in (("voc", 21), ("cityscapes", 19)):
        for network in ("resnet50", "resnet101"):
            lines = []
            for name, (row, difference) in CASES.items():
                operations, most = count((data, network), classes, row, difference)
                line = {"row": name, "T multiply-adds": operations / 1e12, "GiB held, fp32": most / 2**30}
                steps = settings_of((data, network), row, difference).train.steps
                plain = "speed" not in difference
                lines.append(line | {f"hours, {gpu}": hours(operations, most, steps, gpu) for gpu in GPUS if plain})
            print(f"{data} {network}\n{pd.DataFrame(lines).round(1).to_string(index=False)}\n")


if __name__ == "__main__":
    main()
