"""The loop of warmup and training, with no equation of the method in it.

`run` yields one row of history at a time, so that a notebook can watch, stop and plot. With more than one process it
starts itself under torchrun and reads the rows that a process of this machine prints.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.distributed.elastic.multiprocessing.errors import record

from rrn import config
from rrn.data.batches import Batch, Purpose, training_loader
from rrn.data.decoding import DataError
from rrn.data.image_set import ImageSet
from rrn.evaluation.inference import EvaluationShortage, Predictor
from rrn.method import RRN, Losses
from rrn.models.device import resolve_device
from rrn.runs import finished
from rrn.runs.finished import RunCard
from rrn.runs.job import Job, Stage, job
from rrn.runs.resume import ResumeFolder
from rrn.runtime import atomic_io, distributed, processes
from rrn.runtime.signals import Interrupted, StopRequest
from rrn.training import launch, learner, trial
from rrn.training.diagnosis import Diagnosis, Row
from rrn.training.learner import Learner, LossError
from rrn.training.tensorboard import TensorBoard

ADVICE = (
    "lower optimizer.lr, or use precision: fp32; where it begins is found by going on from the last checkpoint under "
    "torch.autograd.set_detect_anomaly(True), as docs/reliability.md shows"
)


def run(
    stage: Stage, partition: str, method: str | None, seed: int, out: Path, overrides: dict[str, Any] | None = None
) -> Iterator[Row]:
    """Warm up or train one run and yield its rows of history.

    Args:
        stage: warmup (labeled images only, from initial weights) or train (a row, from the warmup of the same seed).
        partition: name of the prepared partition, such as 1of16.
        method: row of the ablation table; None for a warmup, but for the own one of a row that has `warmup: own`.
        seed: of this run.
        out: folder for segmenters.safetensors, discriminators.safetensors, run.json, history.csv, reliability.csv, and
            for the folder warmup, where the row has its own.
        overrides: differences to params.yaml, for a quick try.

    Raises:
        SettingsError, DataError, ResumeError, LossError: with a message for the user.
    """
    run_job = job(stage, partition, method, seed, out, overrides)
    if stage == "train" and run_job.settings.method.warmup == "own":
        deque(run("warmup", partition, method, seed, out / "warmup", overrides), maxlen=0)
    if not launch.needed(run_job.settings.nproc):
        yield from Training(run_job).fit()
        return
    options = {"stage": stage, "partition": partition, "method": method, "seed": seed, "out": out}
    yield from launch.rows(run_job.settings.nproc, **options, overrides=json.dumps(overrides))


class Training:
    """One run: its networks, data and history.

    Args:
        job: which run.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.settings = job, job.settings
        torch.set_num_threads(self.settings.threads)
        self.device = resolve_device(self.settings.device)
        distributed.start(self.device)
        if distributed.world() != self.settings.nproc:
            raise config.SettingsError(
                f"nproc: {self.settings.nproc}, but {distributed.world()} processes were started; "
                "set nproc to the number of processes that RRN_LAUNCH starts on all machines"
            )
        if job.start is None:
            trial.require_buildable(self.settings, {})
        self.split = job.split
        self.dataset = ImageSet.open(self.settings, job.root)
        model = RRN(self.settings, len(self.split.classes), job.seed, pretrained=job.start is None)
        if job.start:
            finished.read_segmenters(model, job.start)
        self.model = learner.prepare_for(model, self.device, self.settings.speed).train()
        self.learner = Learner(self.model, self.settings, job.schedule, decay=job.stage == "train")
        self.predictor = Predictor(self.model, self.settings.evaluate, self.settings.loading)
        self.diagnosis = Diagnosis(self.predictor, self.dataset, self.split, self.settings, job.stage == "train")
        self.board: TensorBoard | None = None
        self.done = 0
        self.pending: list[Losses] = []  # of the last steps, which no row holds yet
        self.history: list[Row] = []
        self.reliability: list[Row] = []
        self.signals = StopRequest()

    def fit(self) -> Iterator[Row]:
        """Go from the last checkpoint, or the start, to the end; write the outputs; yield the rows of history.

        Raises:
            Interrupted: the process was asked to stop; the message says how to go on.
            DataError, LossError, MemoryShortage, WriteError: what is computed is kept, and the message says where;
                before the first step nothing is, and discriminators are pretrained again.
        """
        with ExitStack() as stack:
            scratch = stack.enter_context(self._scratch()) if distributed.rank() == 0 else None
            begun = self._resume(scratch)
            if self.settings.log.tensorboard and distributed.rank() == 0:
                self.board = stack.enter_context(TensorBoard(self.job, self.dataset, self.done + 1))
            yield from list(self.history)
            stack.enter_context(self.signals)
            if not begun:
                self._pretrain()
            try:
                yield from self._learn(scratch)
            except LossError as error:
                raise LossError(f"{error}\n{ADVICE}", error.step) from error
            if scratch:
                self._write()
                scratch.remove()

    def _pretrain(self) -> None:
        """Let the discriminators of a row that says so learn before its first step; their losses are not kept.

        Several processes hear of a signal after it.
        """
        row, history = self.settings.method, list[Losses]()
        steps = row.discriminator.pretrain if self.job.stage == "train" and row.uses_discriminators else 0
        for number, batch in enumerate(self.batches(0, steps, "pretrain") if steps else ()):
            if self.signals.asked and distributed.world() == 1:
                raise Interrupted(
                    f"{self._name} was asked to stop and did, while its discriminators were pretrained; nothing of "
                    "that is kept: the same command begins with it again"
                )
            history.append(self.learner.pretrain(batch.to(self.device), number))
            if (number + 1) % self.settings.log.every and number + 1 < steps:
                continue
            try:
                self.learner.require_finite(history, number + 1, f"the pretraining of {self._name}")
            except LossError as error:
                raise LossError(f"{error}; lower method.discriminator.lr", error.step) from error
            history.clear()

    def _learn(self, scratch: ResumeFolder | None) -> Iterator[Row]:
        """Take the steps that are left; where that ends between two steps, keep all that is computed."""
        try:
            yield from self._loop(scratch)
        except (DataError, EvaluationShortage):
            self._save(scratch)
            raise
        except Interrupted as stopped:
            self._save(scratch)
            raise Interrupted(
                f"{self._name} was asked to stop and did, after step {self.done} of {self.job.schedule.steps}; all of "
                "it is kept: the same command goes on from there"
            ) from stopped

    def _loop(self, scratch: ResumeFolder | None) -> Iterator[Row]:
        """Report what is due, save what is due, take a step, until all are done; yield the rows."""
        steps, log = self.job.schedule.steps, self.settings.log
        batches = self.batches(self.done, steps)
        while True:
            if self.pending and self._due(log.every):
                yield self._report()
            if self._due(log.checkpoint):
                self._save(scratch)
            if self.done == steps:
                return
            self._stop_if_asked(reported=not self.pending)
            self.pending.append(self.learner.step(next(batches).to(self.device), self.done))
            self.done += 1

    def _due(self, every: int) -> bool:
        """Return whether something that is done every so many steps is due; at the end everything is."""
        return self.done > 0 and (self.done % every == 0 or self.done == self.job.schedule.steps)

    def _stop_if_asked(self, reported: bool = False) -> None:
        """Raise Interrupted if a signal came; of several processes all do, at the next report, whichever it met."""
        if distributed.world() == 1:
            asked = self.signals.asked
        else:
            asked = reported and any(distributed.all_gather_object(self.signals.asked))
        if asked:
            raise Interrupted

    def batches(self, first: int, steps: int, purpose: Purpose | None = None) -> Iterator[Batch]:
        """Return the batches of steps first..steps-1 of this process, drawn for a purpose: unasked, for its stage."""
        row = self.settings.method
        return iter(
            training_loader(
                self.dataset,
                self.split,
                *(self.settings, self.job.seed, first, steps, purpose or self.job.stage),
                rank=distributed.rank(),
                world=distributed.world(),
                unlabeled=row.consistency,
                all_labels=row.labels == "all",
            )
        )

    def _report(self) -> Row:
        """Read the terms of the last steps, once, and make a row of their means; evaluate where it is time."""
        values = self.learner.require_finite(self.pending, self.done, self._name)
        means = dict(zip(self.pending[0], values.mean(0).tolist(), strict=True))
        row: Row = {"step": self.done, "lr": self.learner.rate(self.done - 1)} | means
        reliability: list[Row] = []
        if self._due(self.settings.log.evaluate):
            scores, reliability = self.diagnosis.measure(self.done, self._stop_if_asked)
            row |= scores
        self.history.append(row)
        self.reliability += reliability
        self.pending = []
        if self.board:
            self.board.add(row, reliability, self.predictor)
        return row

    @property
    def _name(self) -> str:
        """This run, as an error names it."""
        return f"{self.job.stage} {self.job.key} (seed {self.job.seed})"

    def _check_weights(self) -> None:
        """Stop before weights are saved that the last update has spoiled."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        if not all(bool(tensor.isfinite().all()) for tensor in tensors):
            raise LossError(
                f"the update of step {self.done - 1} of {self._name} left weights that are not finite; nothing after "
                "the last checkpoint is kept"
            )

    def _scratch(self) -> ResumeFolder:
        """Open the folder in which an interrupted run waits."""
        name = f"{self.settings.name}-{self.job.stage}-{self.job.key}"
        return ResumeFolder(self.job.root, name, self.job.identity())

    def _save(self, scratch: ResumeFolder | None) -> None:
        """Save everything that the next step depends on; draws depend on the step alone."""
        if self.pending:
            self.learner.require_finite(self.pending, self.done, self._name)
        self._check_weights()
        if scratch:
            tables = {"history": self.history, "reliability": self.reliability}
            scratch.save({"step": self.done, "learner": self.learner.state(), "pending": self.pending, **tables})

    def _resume(self, scratch: ResumeFolder | None) -> bool:
        """Go back to the last checkpoint, on all processes, and return True; False at the start, if there is none."""
        state = distributed.broadcast_object(scratch.load() if scratch else None)
        if state is not None:
            self.done = state["step"]
            self.learner.load(state["learner"])
            self.history, self.reliability = state["history"], state["reliability"]
            self.pending = [{name: value.to(self.device) for name, value in t.items()} for t in state["pending"]]
        return state is not None

    def _write(self) -> None:
        """Write the outputs of a finished run."""
        out = self.job.out
        out.mkdir(parents=True, exist_ok=True)
        finished.write_weights(self.model, out)
        tables = {"history": pd.DataFrame(self.history)}
        if self.reliability:
            table, leading = pd.DataFrame(self.reliability), ["step", "split"]
            tables["reliability"] = table[leading + [c for c in table.columns if c not in leading]]
        for name, table in tables.items():
            atomic_io.write(out / f"{name}.csv", table.to_csv(index=False, float_format="%.6g"), lasting=True)
        finished.write_card(self._card(), out)

    def _card(self) -> RunCard:
        """Say which run this is, and what its networks are; nothing that differs from one machine to the next."""
        return RunCard(
            stage=self.job.stage,
            partition=self.job.partition,
            method=self.job.method,
            seed=self.job.seed,
            step=self.job.schedule.steps,
            settings=config.fingerprint(self.job.identity()["settings"]),
            classes=self.split.classes,
            colours=self.split.colours,
            size=self.settings.dataset.size,
            networks=finished.networks_of(self.settings) if self.job.stage == "train" else None,
            evaluate=self.settings.evaluate,
        )


@record
def main() -> None:
    """Take part in one run under torchrun; the first process of each machine prints the rows as JSON lines."""
    parser = argparse.ArgumentParser(prog="python -m rrn.train", description=run.__doc__)
    parser.add_argument("--stage", choices=["warmup", "train"], required=True)
    parser.add_argument("--partition", required=True)
    parser.add_argument("--method")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--overrides", type=json.loads, default=None)
    options = parser.parse_args()
    processes.die_with_parent()  # with torchrun, also where that is killed
    for row in Training(job(**vars(options))).fit():
        if os.environ.get("LOCAL_RANK", "0") == "0":
            sys.stdout.write(f"{json.dumps(row)}\n")  # in one piece: other processes write, too
    distributed.stop()


if __name__ == "__main__":
    main()
