"""What each of several processes runs in test_distributed.py; process 0 saves what the test compares.

python -m torch.distributed.run --nproc-per-node=2 processes.py OUT

The current folder is a tiny repository with a finished warmup.
"""

import contextlib
import copy
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import tiny
import torch

from rrn import config, train
from rrn.data import splits
from rrn.data.batches import Batch, TrainingData, WholeBatch
from rrn.data.image_set import ImageSet
from rrn.evaluation import metrics, region_tables
from rrn.evaluation.inference import Predictor
from rrn.method import RRN, Losses
from rrn.runs import resume
from rrn.runtime import distributed
from rrn.runtime.signals import Interrupted
from rrn.training import diagnosis
from rrn.training.learner import Learner

EXACT = {"method": {"grid": 4, "teacher_statistics": "running", "discriminator": {"dropout": 0.0}}}
SLIDING = tiny.settings(
    changes={"evaluate": {"mode": "sliding", "window": [24, 20], "stride": [16, 9], "flip": True}}
).evaluate
THREE = tiny.settings(changes={"loading": {"evaluation_batch": 3}}).loading
ROWS = ("supervised", "cps_cutmix", "local_filter", "rrn", "confidence_filter")
PLAIN: dict[str, Any] = {
    "batch": {"labeled": 8, "unlabeled": 8},
    "augment": {"crop": 16},
    "method": {"discriminator": {"dropout": 0.0}},
}
STUDENT = {"networks": "student_teacher", "strong": {"jitter": 0.5, "gray": 0.2, "blur": 0.5, "views": 2}}
ACCURACY = {"objective": "accuracy", "feature_matching": 0.0, "dropout": 0.0}
COURSES: dict[str, tuple[str, dict[str, Any]]] = {row: (row, PLAIN) for row in ROWS} | {
    "local_filter": ("local_filter", PLAIN | {"batch": {"labeled": 16, "unlabeled": 8}}),
    "confidence_filter": ("confidence_filter", PLAIN | {"method": {"discriminator": ACCURACY}}),
    "student": ("rrn", PLAIN | {"method": PLAIN["method"] | STUDENT}),
}
"""Which row learns, and what it changes: adversarial discriminators with feature matching, unless it says otherwise."""


def own(batch: Batch) -> Batch:
    """Return the images rank, rank + world, ... of a batch, as the loader deals them."""
    mine = slice(distributed.rank(), None, distributed.world())
    return replace(
        batch,
        images=batch.images[mine],
        labels=batch.labels[mine],
        unlabeled=tuple(half[mine] for half in batch.unlabeled),
        unlabeled_valid=tuple(half[mine] for half in batch.unlabeled_valid),
        mix=batch.mix[mine],
    )


def losses(row: str) -> dict[str, torch.Tensor]:
    """Return loss terms, measures and gradients of the global batch; nothing depends on the other images of a batch."""
    network: RRN = tiny.still(tiny.model(row, EXACT))
    batch = own(tiny.batch(images=4, unlabeled=4))
    terms, step = tiny.segmenter_losses(network, batch, 0)
    judged = tiny.discriminator_losses(network, step)
    sum(terms.values()).backward()
    if judged:
        sum(judged.values()).backward()
    distributed.reduce_gradients(network.parameters())
    found = {
        name: distributed.all_reduce_sum(value.detach()) for name, value in (terms | judged | step.measures).items()
    }
    return found | {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def matrices() -> torch.Tensor:
    """Return the confusion matrices of 3 batches, dealt over the processes: whole images, then window by window."""
    network = tiny.still(tiny.model("rrn", EXACT))
    batches = [tiny.batch(images=2, seed=seed) for seed in range(3)]
    whole = [WholeBatch(b.images, b.labels, b.labeled_ids) for b in batches]
    mine = whole[distributed.rank() :: distributed.world()]
    models = network, Predictor(network, SLIDING, THREE)
    found = [metrics.evaluate(region_tables.predict_batches(model, mine), ("a", "b", "c")) for model in models]
    return torch.stack([distributed.all_reduce_sum(matrix) for each in found for matrix in each.matrices.values()])


def messages() -> dict[str, object]:
    """Return what the functions of rrn.runtime.distributed answer to values that differ by process."""
    rank = distributed.rank()
    value = torch.tensor(2.0 + rank, requires_grad=True)
    total = distributed.all_reduce_sum(value)
    (3 * total).backward()
    whole = torch.tensor(5.0, requires_grad=True)
    share = distributed.split_value(whole)
    share.backward()
    weight = torch.nn.Parameter(torch.zeros(2, 3))
    unused = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.full((2, 3), 1.0 + rank)
    distributed.reduce_gradients([weight, unused])
    return {
        "world": distributed.world(),
        "total": total.item(),
        "total gradient": value.grad.item(),
        "share": distributed.all_reduce_sum(share.detach()).item(),
        "share gradient": whole.grad.item(),
        "gathered": distributed.all_gather(torch.tensor([rank, 10 + rank])).tolist(),
        "summed": weight.grad.tolist(),
        "unused": unused.grad,
        "undealt": distributed.interleave_shards(["a", "c", "d"] if rank == 0 else ["b"]),
        "object": distributed.broadcast_object({"from": rank}),
    }


def training(out: str) -> train.Training:
    """Return a training of the repository that is the current folder."""
    return train.Training(train.job("train", "1of4", "rrn", 0, Path(out).resolve()))


def statistics() -> dict[str, torch.Tensor]:
    """Return the running statistics [world, N] after one step, and those that each process would have alone."""
    run, batch = training("unused"), own(tiny.batch(images=4, unlabeled=4))
    run.model.train()
    alone = copy.deepcopy(run.model)
    tiny.segmenter_losses(alone, batch, 0)
    run.learner.step(batch, 0)
    found = {"together": running(run.model), "alone": running(alone)}
    return {name: distributed.all_gather(values).view(distributed.world(), -1) for name, values in found.items()}


def running(network: RRN) -> torch.Tensor:
    """Return all running means and variances of the segmenters as one tensor [N]."""
    return torch.cat([b.flatten() for n, b in network.segmenters.named_buffers() if ".running_" in n])


def evaluated(nproc: int) -> dict[str, object]:
    """Evaluate the warmed-up segmenters on all processes together; process 0 writes the outputs of a run.

    Returns:
        row: of history; reliability; tables: all regions, in order, val and unlabeled.
    """
    out = Path(f"evaluated-{nproc}").resolve()
    changes = {"nproc": nproc, "loading": {"evaluation_batch": 1}, "batch": PLAIN["batch"]}
    run = train.Training(train.job("train", "1of4", "rrn", 0, out, changes))
    with mock.patch.object(diagnosis, "summarize", wraps=diagnosis.summarize) as summarize:
        row, run.reliability = run.diagnosis.measure(0, lambda: None)
    run.history.append({"step": 1} | row)
    if distributed.rank() == 0:
        run._write()
    tables = [call.args[0].to_csv(float_format="%.17g") for call in summarize.call_args_list]
    return {"row": row, "reliability": run.reliability, "tables": tables}


def course(row: str, changes: dict[str, Any], steps: int, fixed: bool = False) -> dict[str, Any]:
    """Learn for some steps from the batches of the repository: float64, or float32 with `fixed` pseudo-labels.

    Batch norm is frozen, and there is no dropout.

    Returns:
        steps: loss terms, measures and learning rate of each; gradients: what the optimizers got at the first.
    """
    world, folder = distributed.world(), Path.cwd()
    settings = config.load(row, changes | {"nproc": world, "train": {"steps": 20}}, folder)
    split = splits.read_split(folder / "runs/tiny/prepare/1of4-0")
    share = {"rank": distributed.rank(), "world": world, "unlabeled": settings.method.consistency}
    data = TrainingData(ImageSet.open(settings, folder), split, settings, 0, "train", **share)
    network = tiny.still(RRN(settings, len(split.classes), seed=0))
    network = network if fixed else network.double()
    network.teacher_logits = fixed_teachers if fixed else network.teacher_logits
    learner = Learner(network, settings, settings.train, decay=True)
    gradients: dict[str, torch.Tensor] = {}
    for optimizer in learner.optimizers.values():
        optimizer.register_step_pre_hook(lambda *_: gradients.update(gradients or named_gradients(network)))
    found = [learner.step(data[step], step) | {"lr": torch.tensor(learner.rate(step))} for step in range(steps)]
    return {"steps": found, "gradients": gradients}


def named_gradients(network: RRN) -> dict[str, torch.Tensor]:
    """Return copies of all gradients that there are."""
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def fixed_teachers(images: torch.Tensor) -> torch.Tensor:
    """Return logits [2, N, 3, H, W] that depend on each pixel's color alone, to the last bit; some are alike."""
    return torch.stack([5 * images, 5 * images + 4 * images.roll(1, 1)])


def courses() -> dict[str, Any]:
    """Return the courses of all rows."""
    double = {name: course(row, changes, 20) for name, (row, changes) in COURSES.items()}
    return double | {f"{name}, fp32": course(*COURSES[name], 3, fixed=True) for name in COURSES}


def interrupt() -> int:
    """Train without and with an interruption; write `whole` and `resumed`, return the step of the checkpoint."""
    list(training("whole").fit())
    rows = training("resumed").fit()
    for _ in range(3):
        next(rows)
    rows.close()
    (path,) = Path(".scratch/tiny-train-1of4-rrn-0").glob("step-*")
    step = resume.read_state(path)["state"]["step"]
    list(training("resumed").fit())
    return step


def asked() -> int:
    """Let a signal reach the second process alone: both stop at the next report. Return the steps done by then."""
    stopped = training("asked")
    learn = stopped.learner.step

    def step(batch: Batch, number: int) -> Losses:
        if number == 1 and distributed.rank() == 1:
            signal.raise_signal(signal.SIGTERM)
        return learn(batch, number)

    stopped.learner.step = step
    with contextlib.suppress(Interrupted):
        list(stopped.fit())
    list(training("asked").fit())
    return stopped.done


def everything() -> dict[str, object]:
    """Return all of the above; of more than two processes, what must be the same for any number."""
    found = {"courses": courses(), "evaluated": evaluated(distributed.world())}
    if distributed.world() == 2:
        found |= {"losses": {row: losses(row) for row in ROWS}, "matrices": matrices(), "messages": messages()}
        found |= {"statistics": statistics(), "checkpoint": interrupt(), "asked": asked()}
    return found


if __name__ == "__main__":
    distributed.start(torch.device("cpu"))
    found = everything()
    if distributed.rank() == 0:
        torch.save(found, Path(sys.argv[1]))
    distributed.stop()
