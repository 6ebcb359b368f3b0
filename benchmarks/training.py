"""Learners that have read no file, and random batches for them: what the benchmarks of the step share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from reference_step import ReferenceStep
from torch import Tensor

from rrn import config
from rrn.config import IGNORE_INDEX
from rrn.data.batches import Batch
from rrn.method import RRN
from rrn.training.learner import Learner, prepare_for

THREADS = 2
RESNET50 = {
    "encoder": "tu-resnet50",
    "weights": None,
    "output_stride": 16,
    "decoder_channels": 256,
    "atrous_rates": [6, 12, 18],
}
"""The segmenter of the released code, but for the stem."""
FULL: dict[str, Any] = {
    "threads": THREADS,
    "model": RESNET50,
    "augment": {"crop": 256},
    "batch": {"labeled": 2, "unlabeled": 2},
}
CLASSES = 21
TINY: dict[str, Any] = {
    "threads": 1,
    "model": {"encoder": "tu-test_efficientnet", "decoder_channels": 8, "atrous_rates": [1, 2, 3]},
    "augment": {"crop": 32},
    "batch": {"labeled": 2, "unlabeled": 2},
    "method": {"grid": 2},
}
"""For the quick form."""
COMMON: dict[str, Any] = {"device": "cpu", "optimizer": {"lr": 0.001}}
"""A low rate: random labels teach nothing, and no weight may grow until it is no number."""


def settings(row: str, *changes: dict[str, Any]) -> config.Settings:
    """Return the settings of a row of params.yaml, with changes laid on params.yaml below it, one over the other."""
    values = config.read(config.find_root() / "params.yaml")
    values["methods"] = {row: values["methods"][row]}
    values["ablation"] |= {"methods": [row], "explore": None}
    for change in (COMMON, *changes):
        values = config.merge(values, change)
    return config.resolve(values, row)


def random_batch(known: config.Settings, classes: int = CLASSES) -> Batch:
    """Return a batch of noise: blocks of labels, a void border, CutMix boxes of a quarter."""
    draw = torch.Generator().manual_seed(0)
    crop, labeled, unlabeled = known.augment.crop, known.batch.labeled, known.batch.unlabeled

    def images(count: int) -> Tensor:
        return torch.randint(256, (count, 3, crop, crop), dtype=torch.uint8, generator=draw)

    labels = torch.randint(classes, (labeled, crop // 16, crop // 16), generator=draw)
    labels = labels.repeat_interleave(16, 1).repeat_interleave(16, 2)
    labels[:, :4] = IGNORE_INDEX
    valid = torch.ones(unlabeled, 1, crop, crop, dtype=torch.bool)
    boxes = torch.zeros_like(valid)
    boxes[..., crop // 4 : 3 * crop // 4, crop // 4 : 3 * crop // 4] = True
    return Batch(images(labeled), labels, (images(unlabeled), images(unlabeled)), (valid, valid), boxes, (), ((), ()))


def without_data(known: config.Settings, classes: int = CLASSES) -> Learner:
    """Return what learns from initial weights and has opened no data set."""
    torch.set_num_threads(known.threads)
    model = prepare_for(RRN(known, classes, 0), torch.device("cpu"), known.speed).train()
    return Learner(model, known, known.train, decay=True)


def ours(known: config.Settings, classes: int = CLASSES) -> Callable[[], object]:
    """Return our step on a random batch, to be called again and again."""
    run, batch = without_data(known, classes), random_batch(known, classes)
    return lambda: run.step(batch, 0)


def reference(known: config.Settings, classes: int = CLASSES, threshold: float = 0.6) -> Callable[[], object]:
    """Return the reference step on the same batch."""
    torch.set_num_threads(known.threads)
    rival, batch = ReferenceStep(known, classes, 0, threshold), random_batch(known, classes)
    return lambda: rival.step(batch)
