"""A part of the GPU measurement: how far do two trainings drift apart that should be one and the same?

Row rrn with the settings of params.yaml (tiny ResNet, crop 64, 8 + 8 + 8 rendered images), fp32, from initial weights,
one seed: twice on the GPU (`twice`), and on the GPU and the CPU (`cpu`). TF32 is off; cuDNN picks its convolutions by
trying them out, as in every training, and no deterministic kernels are asked for. After 1, 10 and 100 steps:

    weights    |a - b| / max(|a|, |b|) of a tensor of parameters or running statistics (norms), of all the largest
    terms      the same of a loss term or measure of the last step, of all the largest
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from gpu_part import Part, begin
from gpu_repository import Repository, temporary
from measuring import Row, row
from torch import Tensor
from training import TINY

ROW, SEED = "rrn", 0
AFTER = (1, 10, 100)
"""Steps."""
AFTER_SMALL = (1, 3)
SECONDS = 20.0
"""Of 100 steps, about."""


@dataclass(frozen=True)
class Snapshot:
    """A training after some steps, float64 on the CPU.

    Attributes:
        weights: parameters and running statistics by name.
        terms: loss terms and measures of the last step, scalars by name.
    """

    weights: dict[str, Tensor]
    terms: dict[str, Tensor]


Course = dict[int, Snapshot]
"""By the number of steps."""


def course(repository: Repository, device: torch.device, after: tuple[int, ...]) -> Course:
    """Train from initial weights and return snapshots.

    Raises:
        LossError: a loss or gradient is not finite.
    """
    run = repository.training("train", ROW, SEED, {"device": device.type})
    snapshots: Course = {}
    for step, batch in enumerate(run.batches(0, after[-1])):
        terms = run.learner.step(batch.to(run.device), step)
        if step + 1 in after:
            run.learner.require_finite([terms], step + 1, ROW)
            snapshots[step + 1] = Snapshot(_doubles(run.model.state_dict()), _doubles(terms))
    return snapshots


def _doubles(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of all that are of floating point, float64 on the CPU."""
    return {name: tensor.double().cpu().clone() for name, tensor in tensors.items() if tensor.is_floating_point()}


def largest(found: dict[str, Tensor], others: dict[str, Tensor]) -> float:
    """Return the largest relative difference of two tensors of one name; 0 where both are 0."""
    return max(_difference(found[name], other) for name, other in others.items())


def _difference(found: Tensor, other: Tensor) -> float:
    """Return the relative difference of two tensors, 0 to 2."""
    largest = max(float(found.norm()), float(other.norm()))
    return float((found - other).norm()) / largest if largest else 0.0


def apart(case: str, one: Course, other: Course) -> Iterator[Row]:
    """Yield how far two courses are apart."""
    for steps, snapshot in one.items():
        for what in ("weights", "terms"):
            difference = largest(vars(snapshot)[what], vars(other[steps])[what])
            measure = f"largest relative difference of {what}, step {steps}"
            yield row(case, measure, "ratio", [difference])


def without_tf32() -> None:
    """Let convolutions and products be fp32, whatever the parts before have set, and say so."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    print("fp32, TF32 off, cudnn.benchmark on, deterministic kernels not asked for", flush=True)


def measure(part: Part, repository: Repository) -> None:
    """Run both cases; the first training on the device serves both."""
    after = AFTER_SMALL if part.small else AFTER
    first = cache(lambda: course(repository, part.device, after))
    rivals = {"twice": part.device, "cpu": torch.device("cpu")}

    def case(name: str) -> Callable[[], Iterator[Row]]:
        return lambda: apart(name, first(), course(repository, rivals[name], after))

    for name in rivals:
        part.run(name, case(name), seconds=0 if part.small else 2 * SECONDS)


def changes(small: bool) -> dict[str, Any]:
    """Return the differences to params.yaml."""
    return {"precision": "fp32", **(TINY if small else {})}


def main() -> None:
    """Run the part."""
    part = begin(__doc__)
    without_tf32()
    with temporary((ROW,), changes(part.small), None, part.small) as repository:
        repository.skip_warmup(SEED)
        measure(part, repository)


if __name__ == "__main__":
    main()
