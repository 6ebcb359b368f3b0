"""A tiny repository (settings, data, prepared partitions) and tiny networks, for the tests of method and training."""

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML
from small import partitioned, write_folder
from torch import Tensor

from rrn import config, train
from rrn.config import IGNORE_INDEX
from rrn.data import splits
from rrn.data.batches import Batch
from rrn.data.image_set import ImageSet
from rrn.method import RRN, Denominators, Losses, Step
from rrn.models import regions
from rrn.models.pseudo_label_scores import RATINGS, Candidates
from rrn.training.learner import add

torch.set_num_threads(1)
PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"
CLASSES = 3
CHANGES: dict[str, Any] = {
    "name": "tiny",
    "device": "cpu",
    "threads": 1,
    "dataset": {"path": "data", "size": None},
    "model": {"encoder": "tu-test_efficientnet", "decoder_channels": 8, "atrous_rates": [1, 2, 3], "weights": None},
    "augment": {"crop": 32},
    "batch": {"labeled": 2, "unlabeled": 2},
    "warmup": {"steps": 2, "lr_ramp": 1},
    "train": {"steps": 6, "lr_ramp": 1},
    "log": {"every": 1, "evaluate": 3, "checkpoint": 2, "diagnose": 2},
    "loading": {"evaluation_batch": 2},
    "optimizer": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.0001, "poly": 0.9},
    "method": {
        "labels": "partition",
        "consistency": True,
        "cutmix": True,
        "lambda_u": 1.0,
        "lambda_u_ramp": 0,
        "teacher_statistics": "batch",
        "filter": {"by": "none", "keep": "fraction", "tau": 0.6, "fraction": 0.5, "start": 0},
        "rho": "none",
        "grid": 2,
        "discriminator": {
            "objective": "adversarial",
            "maps": "soft",
            "sees_image": True,
            "channels": [8, 8],
            "input_stride": 2,
            "dropout": 0.5,
            "feature_matching": 0.1,
        },
    },
}
"""What is laid on params.yaml to make it tiny, and to hold what the repository may tune."""

ROWS: dict[str, Any] = {
    "supervised": {"consistency": False},
    "supervised_all": {"consistency": False, "labels": "all"},
    "cps": {"cutmix": False},
    "cps_cutmix": {},
    "local_filter": {"filter": {"by": "region_score"}},
    "rrn": {"filter": {"by": "region_score"}, "rho": "agreement"},
    "confidence_filter": {"filter": {"by": "confidence"}},
    "random_filter": {"filter": {"by": "random"}},
}


def params(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the values of params.yaml, made tiny, with rows of our own, and with `changes` laid on them."""
    values = config.merge(config.read(PARAMS), CHANGES) | {"methods": copy.deepcopy(ROWS)}
    values["ablation"] |= {"methods": list(ROWS)}
    return config.merge(values, changes or {})


def settings(row: str | None = None, changes: dict[str, Any] | None = None) -> config.Settings:
    """Return tiny settings of one row; `changes` are laid on last, over the row."""
    return config.resolve(params(), row, changes)


def model(row: str, changes: dict[str, Any] | None = None, seed: int = 0) -> RRN:
    """Return the tiny networks of one row, in train mode."""
    return RRN(settings(row, changes), CLASSES, seed).train()


def batch(size: int = 32, images: int = 2, unlabeled: int = 2, seed: int = 0) -> Batch:
    """Return a random batch with void, padding and boxes in it."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (images, size, size), generator=draw)
    labels[:, :3, :5] = IGNORE_INDEX
    halves = tuple(_images(unlabeled, size, draw) for _ in range(2))
    valid = torch.ones(unlabeled, 1, size, size, dtype=torch.bool)
    valid[:, :, -4:] = False
    boxes = torch.zeros_like(valid)
    boxes[:, :, 5:20, 9:27] = True
    names = tuple(str(i) for i in range(max(images, unlabeled)))
    return Batch(
        _images(images, size, draw),
        labels,
        (halves[0], halves[1]),
        (valid, valid.clone().roll(2, 2)),
        boxes,
        names[:images],
        (names[:unlabeled], names[:unlabeled]),
    )


def _images(count: int, size: int, draw: torch.Generator) -> Tensor:
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=draw)


def segmenter_losses(network: RRN, batch: Batch, number: int, merged: bool = False) -> tuple[Losses, Step]:
    """Return all losses of the segmenters at once, and the step."""
    step = network.begin_step(batch, number)
    return summed(network.segmenter_losses(step, merged)), step


def discriminator_losses(network: RRN, step: Step) -> Losses:
    """Return all losses of the discriminators at once."""
    return summed(network.discriminator_losses(step))


def teaching_step(network: RRN, teacher_logits: Tensor, images: Tensor, valid: Tensor, number: int = 0) -> Step:
    """Return a step that knows of normalized unlabeled images what the teachers say of them."""
    pixels, judged = valid.sum().clamp(min=1), regions.any_valid(valid, network.region).sum().clamp(min=1)
    step = Step(batch(), number, Denominators(pixels, pixels, pixels, judged, judged), torch.zeros(0))
    step.unlabeled, step.valid, step.teacher_logits = images, valid, teacher_logits
    step.labels = teacher_logits.argmax(2, keepdim=True)
    step.agreement = (step.labels[0] == step.labels[1]).float()
    return step


def rate(network: RRN, step: Step, rho: str, scores: Tensor) -> Tensor:
    """Return how a candidate of rho rates the regions of a `teaching_step`, given logits of the discriminators."""
    said = (step.teacher_logits, step.labels, step.valid, step.agreement, scores)
    return RATINGS[rho](Candidates(network.region, network.seed, network.row.filter.tau, step.number, *said))


def weigh(network: RRN, teachers: Tensor, images: Tensor, valid: Tensor, number: int = 0) -> tuple[Tensor, Losses]:
    """Return the weights of pseudo-labels, and the measures, of normalized images and the teachers' logits."""
    step = teaching_step(network, teachers, images, valid, number)
    return network.region_weights(step), step.measures


def summed(losses: Iterable[Losses]) -> Losses:
    """Return losses by name, those of one name added."""
    terms: Losses = {}
    for found in losses:
        add(terms, found)
    return terms


def still(network: RRN) -> RRN:
    """Switch off dropout and the statistics of the batch: what is left depends on weights and images alone."""
    return network.eval()


def threshold_in_a_gap(scores: Tensor, lowest: float = 0.5, highest: float = 0.7) -> float:
    """Return the middle of the widest gap between the scores of two quantiles: rounding moves none across it."""
    ordered = scores.flatten().sort().values
    near = ordered[int(lowest * len(ordered)) : int(highest * len(ordered))]
    widest = int(near.diff().argmax())
    return float(near[widest : widest + 2].mean())


SEEDS = (0, 1, 2)
"""Seeds for which `repository` prepares; all with the same images labeled."""


def repository(folder: Path, changes: dict[str, Any] | None = None, partition: str = "1of4") -> Path:
    """Write params.yaml, dvc.yaml, data and a prepared partition into `folder`."""
    values = params(changes)
    values["ablation"] = {**values["ablation"], "partitions": [partition]}
    folder.mkdir(parents=True, exist_ok=True)
    write_params(folder, values)
    (folder / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    write_folder(folder / "data")
    resolved = config.load(root=folder)
    split = partitioned(ImageSet.open(resolved, folder), resolved, partition)
    for seed in SEEDS:
        splits.write_split(split, folder / "runs" / resolved.name / "prepare" / f"{partition}-{seed}")
    return folder


def write_params(folder: Path, values: dict[str, Any]) -> None:
    """Write params.yaml."""
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(copy.deepcopy(values), file)


def warm_up(folder: Path, partition: str = "1of4", seed: int = 0, **changes: Any) -> Path:
    """Warm up in the repository that is the current folder, and return the folder of the run."""
    out = folder / "runs" / "tiny" / "warmup" / f"{partition}-{seed}"
    list(train.run("warmup", partition, None, seed, out, changes or None))
    return out


def state(network):
    """Return a copy of what a network holds."""
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(before, after):
    """Whether two states are the same bits."""
    return all(torch.equal(before[name], after[name]) for name in before)
