"""A training step of each row, of the settings that make it faster, and of the reference, in turns on one batch.

Two segmenters of DeepLabV3+ on ResNet-50, 2 labeled and 2 + 2 unlabeled images, crop 256, 21 classes, 2 threads. The
region discriminators are those of params.yaml, but where a case says `released trunk`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from measuring import Row, alternating, ratio, row
from training import FULL, TINY, ours, reference, settings

ROUNDS = 9
RELEASED: dict[str, Any] = {
    "channels": [64, 128, 256, 512],
    "input_stride": 1,
    "sees_image": True,
    "dropout": 0.5,
}
"""The discriminators' trunk at full width."""
ADVERSARIAL = RELEASED | {"objective": "adversarial", "feature_matching": 0.1}

Case = tuple[str, dict[str, Any]]
OURS: dict[str, Case] = {
    "supervised": ("supervised", {}),
    "cps_cutmix": ("cps_cutmix", {}),
    "local_filter": ("local_filter", {}),
    "rrn": ("rrn", {}),
    "rrn, bf16": ("rrn", {"precision": "bf16"}),
    "rrn, merged": ("rrn", {"speed": {"merged": True}}),
    "rrn, merged, bf16": ("rrn", {"speed": {"merged": True}, "precision": "bf16"}),
    "rrn, checkpointing": ("rrn", {"speed": {"checkpointing": True}}),
    "rrn, released trunk": ("rrn", {"method": {"discriminator": RELEASED}}),
    "rrn, released trunk, adversarial": ("rrn", {"method": {"discriminator": ADVERSARIAL}}),
    "rrn, compiled": ("rrn", {"speed": {"compile": "inductor"}}),
}
"""Row of params.yaml and changes; the first three are fp32, as all that say nothing else."""
REFERENCES = {"reference": 0.6, "reference, every image accepted": 0.0}
"""Score above which an image teaches itself. At the start of a training hardly any does, which costs least."""
SLOW_TO_START = {"rrn, compiled"}
"""Left out of the quick form."""
STANDARDS = ("reference", "cps_cutmix")
"""What every case is a multiple of."""


def builders(quick: bool) -> dict[str, Callable[[], Callable[[], object]]]:
    """Return what builds the step of each case."""
    size = TINY if quick else FULL

    def built(name: str) -> Callable[[], object]:
        if name in REFERENCES:
            return reference(settings("rrn", size), threshold=REFERENCES[name])
        kind, changes = OURS[name]
        return ours(settings(kind, size, changes))

    names = [name for name in (*REFERENCES, *OURS) if not (quick and name in SLOW_TO_START)]
    return {name: lambda name=name: built(name) for name in names}


def rows(quick: bool) -> list[Row]:
    """Measure seconds a step, and each case as a multiple of the reference and of cps_cutmix."""
    cases = {name: build() for name, build in builders(quick).items()}
    seconds = alternating(cases, rounds=1 if quick else ROUNDS, warmup=1)
    found = [row(name, "a step", "s", taken) for name, taken in seconds.items()]
    for standard in STANDARDS:
        found += [ratio(name, f"times {standard}", taken, seconds[standard]) for name, taken in seconds.items()]
    return found
