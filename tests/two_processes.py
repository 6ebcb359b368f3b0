"""What each of two processes runs in test_distributed.py; process 0 saves what the test compares.

python -m torch.distributed.run --nproc-per-node=2 two_processes.py OUT

The current folder is a tiny repository with a finished warmup.
"""

import copy
import os
import sys
from dataclasses import replace
from pathlib import Path

import tiny
import torch

from rrn import distributed, evaluate, regional, train
from rrn.data.loaders import Batch, WholeBatch
from rrn.inference import Predictor
from rrn.method import RRN

EXACT = {"method": {"grid": 4, "teacher_statistics": "running", "discriminator": {"dropout": 0.0}}}
SLIDING = tiny.settings(
    changes={"evaluate": {"batch": 3, "mode": "sliding", "window": [24, 20], "stride": [16, 9], "flip": True}}
).evaluate
ROWS = ("supervised", "cps_cutmix", "local_filter", "rrn", "confidence_filter")


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
    terms, evidence = network.segmenter_losses(batch, 0)
    judged = network.discriminator_losses(evidence, 0)
    sum(terms.values()).backward()
    if judged:
        sum(judged.values()).backward()
    distributed.sum_gradients(network.parameters())
    found = {name: distributed.total(value.detach()) for name, value in (terms | judged).items()}
    return found | evidence.measures | {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def matrices() -> torch.Tensor:
    """Return the confusion matrices of 3 batches, dealt over the processes: whole images, then window by window."""
    network = tiny.still(tiny.model("rrn", EXACT))
    batches = [tiny.batch(images=2, seed=seed) for seed in range(3)]
    whole = [WholeBatch(b.images, b.labels, b.labeled_ids) for b in batches]
    mine = whole[distributed.rank() :: distributed.world()]
    models = network, Predictor(network, SLIDING)
    found = [evaluate.evaluate(regional.look(model, mine), ("a", "b", "c")) for model in models]
    return torch.stack([distributed.total(matrix) for each in found for matrix in each.matrices.values()])


def messages() -> dict[str, object]:
    """Return what the functions of rrn.distributed answer to values that differ by process."""
    rank = distributed.rank()
    value = torch.tensor(2.0 + rank, requires_grad=True)
    total = distributed.total(value)
    (3 * total).backward()
    whole = torch.tensor(5.0, requires_grad=True)
    share = distributed.share(whole)
    share.backward()
    weight = torch.nn.Parameter(torch.zeros(2, 3))
    unused = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.full((2, 3), 1.0 + rank)
    distributed.sum_gradients([weight, unused])
    return {
        "world": distributed.world(),
        "total": total.item(),
        "total gradient": value.grad.item(),
        "share": distributed.total(share.detach()).item(),
        "share gradient": whole.grad.item(),
        "gathered": distributed.gathered(torch.tensor([rank, 10 + rank])).tolist(),
        "summed": weight.grad.tolist(),
        "unused": unused.grad,
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
    alone.segmenter_losses(batch, 0)
    run.step(batch, 0)
    found = {"together": running(run.model), "alone": running(alone)}
    return {name: distributed.gathered(values).view(distributed.world(), -1) for name, values in found.items()}


def running(network: RRN) -> torch.Tensor:
    """Return all running means and variances of the segmenters as one tensor [N]."""
    return torch.cat([b.flatten() for n, b in network.segmenters.named_buffers() if ".running_" in n])


def reliability() -> list[dict[str, object]]:
    """Return how reliable the pseudo-labels of the warmed-up segmenters are, measured by all processes together."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    run = train.Training(
        train.job("train", "1of4", "rrn", 0, Path("unused"), {"nproc": world, "evaluate": {"batch": 1}})
    )
    run._evaluate(1)
    return run.reliability


def interrupt() -> int:
    """Train without and with an interruption; write `whole` and `resumed`, return the step of the checkpoint."""
    list(training("whole").fit())
    rows = training("resumed").fit()
    for _ in range(3):
        next(rows)
    rows.close()
    state = torch.load(Path(".scratch/tiny-train-1of4-rrn-0/checkpoint.pt"), weights_only=True)
    list(training("resumed").fit())
    return state["step"]


def everything() -> dict[str, object]:
    """Return all of the above."""
    found = {"losses": {row: losses(row) for row in ROWS}, "matrices": matrices(), "messages": messages()}
    return found | {"statistics": statistics(), "reliability": reliability(), "checkpoint": interrupt()}


if __name__ == "__main__":
    distributed.start(torch.device("cpu"))
    found = everything()
    if distributed.rank() == 0:
        torch.save(found, Path(sys.argv[1]))
    distributed.stop()
