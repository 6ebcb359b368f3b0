"""The loop of warmup and training, with no equation of the method in it.

`run` yields one row of history at a time, so that a notebook can watch, stop and plot. With more than one process it
starts itself under torchrun and reads the rows of process 0.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.distributed.elastic.multiprocessing.errors import record

from rrn import checkpoint, config, distributed, evaluate, launch, regional
from rrn.data import loaders, splits
from rrn.data.sets import ImageSet
from rrn.data.splits import Split
from rrn.inference import Predictor, require_fit
from rrn.jobs import Job, Stage, job
from rrn.method import RRN, Terms, ramp
from rrn.reliability import summarise

Row = dict[str, float]

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class LossError(FloatingPointError):
    """A loss term is not finite."""


def run(
    stage: Stage, partition: str, method: str | None, seed: int, out: Path, overrides: dict[str, Any] | None = None
) -> Iterator[Row]:
    """Warm up or train one run and yield its rows of history.

    Args:
        stage: warmup (labeled images only, from initial weights) or train (a row, from the warmup of the same seed).
        partition: name of the prepared partition, such as 1of16.
        method: row of the ablation table; None for a warmup.
        seed: of this run.
        out: folder for segmenters.safetensors, discriminators.safetensors, run.json, history.csv, reliability.csv.
        overrides: differences to params.yaml, for a quick try.

    Raises:
        SettingsError, DataError, ResumeError, LossError: with a message for the user.
    """
    settings = job(stage, partition, method, seed, out, overrides).settings
    if not launch.wanted(settings.nproc):
        yield from Training(job(stage, partition, method, seed, out, overrides)).fit()
        return
    options = {"stage": stage, "partition": partition, "seed": seed, "out": out, "overrides": json.dumps(overrides)}
    options |= {} if method is None else {"method": method}
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    for line in launch.launch("rrn.train", *arguments, nproc=settings.nproc):
        if line.startswith("{"):
            yield json.loads(line)
        else:
            print(line, flush=True)


class Training:
    """One run: networks, optimizers and history.

    Args:
        job: which run.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.settings = job, job.settings
        torch.set_num_threads(self.settings.threads)
        self.device = checkpoint.device_of(self.settings.device)
        distributed.start(self.device)
        if distributed.world() != self.settings.nproc:
            raise config.SettingsError(
                f"nproc: {self.settings.nproc}, but {distributed.world()} processes were started; "
                "set nproc to the number of processes that RRN_LAUNCH starts on all machines"
            )
        self.split: Split = splits.read(job.runs / "prepare" / job.partition)
        self.dataset = ImageSet.open(self.settings, job.root)
        self.model = RRN(self.settings, len(self.split.classes), job.seed, pretrained=job.start is None)
        if job.start:
            checkpoint.read_segmenters(self.model, job.start)
        self.model = prepare_for(self.model, self.device)
        self.predictor = Predictor(self.model, self.settings.evaluate)
        self.optimizers = optimizers(self.model, self.settings)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.settings.precision == "fp16")
        names = self.settings.dataset
        self.val = self._whole(names.val, self.split.val)
        known = loaders.diagnosis_ids(self.dataset, self.split, self.settings.log.diagnose)
        self.unlabeled = self._whole(names.train, known) if known else None
        self.history: list[Row] = []
        self.reliability: list[dict[str, Any]] = []

    def fit(self) -> Iterator[Row]:
        """Go from the last checkpoint, or the start, to the end; write the outputs; yield the rows of history."""
        with ExitStack() as stack:
            scratch = stack.enter_context(self._scratch()) if distributed.rank() == 0 else None
            first = self._resume(scratch)
            yield from self.history
            steps, log = self.job.schedule.steps, self.settings.log
            pending: list[Terms] = []
            self.model.train()
            for step, batch in enumerate(self._batches(first, steps), start=first):
                pending.append(self.step(batch.to(self.device), step))
                done = step + 1
                if done % log.every == 0 or done == steps:
                    yield self._report(done, pending, evaluate_now=done % log.evaluate == 0 or done == steps)
                    pending = []
                if done % log.checkpoint == 0 or done == steps:
                    self._check_weights(done)
                if scratch and done % log.checkpoint == 0 and done < steps:
                    scratch.save(self._state(done))
            if scratch:
                self._write()
                scratch.remove()

    def step(self, batch: loaders.Batch, step: int) -> Terms:
        """Learn from one batch, segmenters first; return the loss terms and measures, still on the device."""
        optimizer, schedule = self.settings.optimizer, self.job.schedule
        for group in self.optimizers["segmenters"].param_groups:
            group["lr"] = learning_rate(step, optimizer, schedule, decay=self.job.stage == "train")
        with self._precision():
            terms, evidence = self.model.segmenter_losses(batch, step)
        self._descend("segmenters", terms)
        with self._precision():
            judged = self.model.discriminator_losses(evidence, step)
        if judged:
            self._descend("discriminators", judged)
        self.scaler.update()
        distributed.average(b for name, b in self.model.segmenters.named_buffers() if "running_" in name)
        shares = {name: distributed.total(value.detach()) for name, value in (terms | judged).items()}
        return shares | evidence.measures

    def _precision(self) -> AbstractContextManager[None]:
        """Return the context of mixed precision; none in fp32."""
        wanted = PRECISIONS[self.settings.precision]
        return nullcontext() if wanted == torch.float32 else torch.autocast(self.device.type, dtype=wanted)

    def _descend(self, networks: str, terms: Terms) -> None:
        """Take one optimizer step on the sum of the terms."""
        optimizer = self.optimizers[networks]
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(torch.stack(list(terms.values())).sum()).backward()
        distributed.sum_gradients(getattr(self.model, networks).parameters())
        self.scaler.step(optimizer)

    def _batches(self, first: int, steps: int) -> Iterator[loaders.Batch]:
        """Return the batches of steps first..steps-1 of this process."""
        row = self.settings.method
        return iter(
            loaders.training_loader(
                self.dataset,
                self.split,
                *(self.settings, self.job.seed, first, steps, self.job.stage),
                rank=distributed.rank(),
                world=distributed.world(),
                unlabeled=row.consistency,
                all_labels=row.labels == "all",
            )
        )

    def _report(self, done: int, pending: list[Terms], evaluate_now: bool) -> Row:
        """Read the terms of the last steps, once, and make a row of their means; evaluate where it is time."""
        values = torch.stack([torch.stack(list(terms.values())) for terms in pending]).double().cpu()
        names = list(pending[0])
        self._check_finite(values, names, done)
        lr = self.optimizers["segmenters"].param_groups[0]["lr"]
        row: Row = {"step": done, "lr": lr} | dict(zip(names, values.mean(0).tolist(), strict=True))
        if evaluate_now:
            row |= self._evaluate(done)
        self.history.append(row)
        return row

    def _check_finite(self, values: Tensor, names: list[str], done: int) -> None:
        """Stop before anything is saved that a bad loss has touched."""
        bad = (~values.isfinite()).nonzero()
        if len(bad):
            index, term = bad[0].tolist()
            raise LossError(
                f"loss {names[term]!r} is {values[index, term].item()} at step {done - len(values) + index} of "
                f"{self.job.stage} {self.job.key} (seed {self.job.seed}); nothing after the last checkpoint is kept; "
                "lower optimizer.lr, or use precision: fp32"
            )

    def _check_weights(self, done: int) -> None:
        """Stop before weights are saved that the last update has spoiled."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        if not all(bool(tensor.isfinite().all()) for tensor in tensors):
            raise LossError(
                f"the update of step {done - 1} of {self.job.stage} {self.job.key} (seed {self.job.seed}) left weights "
                "that are not finite; nothing after the last checkpoint is kept; lower optimizer.lr, or use "
                "precision: fp32"
            )

    def _evaluate(self, done: int) -> Row:
        """Evaluate both segmenters on val; in training also measure the reliability of their pseudo-labels."""
        classes, tables = self.split.classes, list[pd.DataFrame]()
        evaluation = evaluate.evaluate(self._look(self.val, tables), classes)
        matrices = {n: distributed.total(m.to(self.device)).cpu() for n, m in evaluation.matrices.items()}
        if self.job.stage == "train":
            self._diagnose(done, "val", regional.joined(tables, classes))
            if self.unlabeled is not None:
                self._diagnose(done, "unlabeled", regional.region_table(self.predictor, self.unlabeled, classes))
        metrics = replace(evaluation, matrices=matrices).metrics()
        return {name: value for name, value in metrics.items() if name.startswith("miou")}

    def _look(self, batches: loaders.WholeImages, tables: list[pd.DataFrame]) -> Iterator[regional.Seen]:
        """Look at whole images once; in training also append the region table of each batch."""
        for seen in regional.look(self.predictor, batches):
            if self.job.stage == "train":
                tables.append(regional.describe(self.predictor, seen, self.split.classes))
            yield seen

    def _diagnose(self, done: int, split: str, table: pd.DataFrame) -> None:
        """Measure, with labels that training never sees, which score tells right pseudo-labels from wrong ones."""
        regions = regional.joined(distributed.everyone(table), self.split.classes)
        summary = summarise(regions, *evaluate.cut(self.settings.method.filter)).assign(step=done, split=split)
        self.reliability += [{str(k): v for k, v in row.items()} for row in summary.to_dict("records")]

    def _whole(self, folder: str, ids: tuple[str, ...]) -> loaders.WholeImages:
        """Return this process's share of the whole images of a split, decoded once if `dataset.cache` allows."""
        size, keep = self.settings.evaluate.batch, self.settings.dataset.cache
        share = distributed.rank(), distributed.world()
        images = loaders.whole_images(self.dataset, folder, ids, size, *share, keep)
        require_fit(self.settings.evaluate, images.sizes)
        return images

    def _scratch(self) -> checkpoint.Scratch:
        """Open the folder in which an interrupted run waits."""
        name = f"{self.settings.name}-{self.job.stage}-{self.job.key}"
        return checkpoint.Scratch(self.job.root, name, self.job.identity())

    def _state(self, done: int) -> dict[str, Any]:
        """Return everything that the next step depends on; draws depend on the step alone."""
        return {
            "step": done,
            "model": self.model.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "scaler": self.scaler.state_dict(),
            "history": self.history,
            "reliability": self.reliability,
        }

    def _resume(self, scratch: checkpoint.Scratch | None) -> int:
        """Restore the last checkpoint, on all processes, and return the step to go on with."""
        state = distributed.broadcast_object(scratch.load() if scratch else None)
        if state is None:
            return 0
        self.model.load_state_dict(state["model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.scaler.load_state_dict(state["scaler"])
        self.history, self.reliability = state["history"], state["reliability"]
        return state["step"]

    def _write(self) -> None:
        """Write the outputs of a finished run."""
        out = self.job.out
        out.mkdir(parents=True, exist_ok=True)
        checkpoint.write_weights(self.model, out)
        pd.DataFrame(self.history).to_csv(out / "history.csv", index=False, float_format="%.6g")
        if self.reliability:
            table = pd.DataFrame(self.reliability)
            leading = ["step", "split"]
            table = table[leading + [c for c in table.columns if c not in leading]]
            table.to_csv(out / "reliability.csv", index=False, float_format="%.6g")
        checkpoint.write_description(self._description(), out)

    def _description(self) -> checkpoint.Description:
        """Say which run this is, and what its networks are; nothing that differs from one machine to the next."""
        return checkpoint.Description(
            stage=self.job.stage,
            partition=self.job.partition,
            method=self.job.method,
            seed=self.job.seed,
            step=self.job.schedule.steps,
            settings=config.fingerprint(self.job.identity()["settings"]),
            classes=self.split.classes,
            colours=self.split.colours,
            size=self.settings.dataset.size,
            networks=checkpoint.networks_of(self.settings) if self.job.stage == "train" else None,
            evaluate=self.settings.evaluate.model_copy(update={"batch": 1, "evidence": 0}),  # no matter to its answers
        )


def prepare_for(model: RRN, device: torch.device) -> RRN:
    """Move the networks to a device, channels last; batch norm is synchronized over processes on CUDA."""
    if device.type == "cuda" and distributed.world() > 1:
        model.segmenters = nn.SyncBatchNorm.convert_sync_batchnorm(model.segmenters)
    return model.to(device).to(memory_format=torch.channels_last)


def optimizers(model: RRN, settings: config.Settings) -> dict[str, torch.optim.Optimizer]:
    """Build SGD for the segmenters, without weight decay on norms and biases, and Adam for the discriminators."""
    options, judge = settings.optimizer, settings.method.discriminator
    weights = [p for p in model.segmenters.parameters() if p.ndim > 1]
    others = [p for p in model.segmenters.parameters() if p.ndim <= 1]
    built: dict[str, torch.optim.Optimizer] = {
        "segmenters": torch.optim.SGD(
            [
                {"params": weights, "weight_decay": options.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=options.lr,
            momentum=options.momentum,
        )
    }
    if model.discriminators:
        fused = model.device.type != "meta"  # its square roots are exact; the others' depend on the processor
        parameters = model.discriminators.parameters()
        built["discriminators"] = torch.optim.Adam(parameters, lr=judge.lr, betas=judge.betas, fused=fused)
    return built


def learning_rate(step: int, optimizer: config.Optimizer, schedule: config.Schedule, decay: bool) -> float:
    """Return the learning rate of a step: a linear ramp, then constant, or poly decay to 0 over the stage."""
    rate = optimizer.lr * ramp(step, schedule.lr_ramp)
    return rate * (1 - step / schedule.steps) ** optimizer.poly if decay else rate


@record
def main() -> None:
    """Take part in one run under torchrun; process 0 prints the rows as JSON lines."""
    parser = argparse.ArgumentParser(prog="python -m rrn.train", description=run.__doc__)
    parser.add_argument("--stage", choices=["warmup", "train"], required=True)
    parser.add_argument("--partition", required=True)
    parser.add_argument("--method")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--overrides", type=json.loads, default=None)
    options = parser.parse_args()
    training = Training(job(**vars(options)))
    for row in training.fit():
        if distributed.rank() == 0:
            print(json.dumps(row), flush=True)
    distributed.stop()


if __name__ == "__main__":
    main()
