"""A part of the GPU measurement: does rrn do better than cps_cutmix on real images, seed by seed?

Both rows train on EfficientNet-Lite0 (preset lite0) from one warmup a seed, on the folder data set that --data names
(`gpu_pack.py` makes one) or on the embedded one, rendered: learning rate 0.01, 8 + 8 + 8 crops of 160 (64 of the
embedded images), 250 + 1,000 steps, one image in 16 labeled (more where that are fewer than 8). Whole images of test
(val, where there is no test) are looked at once, at the last step. Precision is fp32, as in params.yaml: so small a
network waits for its kernels to be started, and autocast would start more of them.

Each seed is a process of its own, 1, 2 or 4 at a time. The case `NAME throughput` measures which is best, on row rrn;
what it found is a finished case, too, since --resume knows nothing else of it. A seed is begun if it will end in time,
and counts when both rows are complete: only then are they reported, one line each,

    {"study": {"data": "voc_animals", "seed": 0, "row": "rrn", "miou_1": ..., "steps": 1000, "seconds": ...}}
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import Any

from gpu_part import Part, begin, say
from gpu_part import wait as synchronize
from gpu_repository import PARAMS, Repository, temporary
from measuring import Row, ratio, row
from training import TINY

from rrn import config
from rrn.runtime.signals import Interrupted

ROWS = ("cps_cutmix", "rrn")
"""The control, and the method of the paper: what is trained from each warmup."""
METRICS = ("miou_1", "miou_2", "miou_mean", "miou_ensemble")
LITE0 = PARAMS.parent / "presets" / "lite0.yaml"
CROP, CROP_EMBEDDED = 160, 64
NEVER = 1_000_000
"""Steps: evaluation and checkpoints come at the last step alone."""
CHANGES: dict[str, Any] = {
    "precision": "fp32",
    "batch": {"labeled": 8, "unlabeled": 8},
    "warmup": {"steps": 250, "lr_ramp": 10},
    "train": {"steps": 1000, "lr_ramp": 10},
    "optimizer": {"lr": 0.01},
    "log": {"every": 50, "evaluate": NEVER, "checkpoint": NEVER, "diagnose": 0},
}
STEPS_SMALL: dict[str, Any] = {"warmup": {"steps": 2, "lr_ramp": 1}, "train": {"steps": 3, "lr_ramp": 1}}
LOADERS = 12
"""Processes that prepare batches, of all trainings together; a core each for the trainings is left of 16."""

THROUGHPUT = 1_000_000
"""First seed of the trainings that throughput is measured with: none that the study comes to."""
FAILURES = 3
"""Seeds that may fail before no other is begun."""
GRACE = 10.0
"""Seconds before the deadline at which what is not complete is ended."""
PATIENCE = 5.0
"""Seconds that an ended process has to stop between two steps."""
START = 25.0
"""Seconds, about, that a seed takes beside its steps: importing, reading the images, looking at those of test."""
UNKNOWN = 300.0
"""Seconds of a seed where nothing has been measured."""


@dataclass(frozen=True)
class Size:
    """How much is done.

    Attributes:
        sides: numbers of trainings side by side that are tried.
        before: steps before throughput is measured.
        steps: of each round of it.
        rounds: of it.
        seeds: that are trained while time lasts.
        seconds: that throughput takes, about.
        unknown: seconds of a seed where nothing has been measured.
    """

    sides: tuple[int, ...]
    before: int
    steps: int
    rounds: int
    seeds: range
    seconds: float
    unknown: float


FULL = Size((1, 2, 4), 10, 20, 2, range(THROUGHPUT), 60.0, UNKNOWN)
SMALL = Size((1, 2), 1, 1, 1, range(2), 0.0, 0.0)


class TrainingError(RuntimeError):
    """A training in another process failed; its traceback is in the log."""


@dataclass
class Pace:
    """How many trainings go side by side, and how long a seed takes then.

    Attributes:
        most: trainings at once.
        seconds: of one seed.
    """

    most: int
    seconds: float

    def case(self, data: str) -> str:
        """Return it as the name of a finished case."""
        return f"{data}: {self.most} side by side, {self.seconds:.0f} s a seed"

    @classmethod
    def known(cls, data: str, finished: Iterable[str]) -> Pace | None:
        """Return what an earlier run has found for a data set."""
        pattern = re.compile(rf"{re.escape(data)}: (\d+) side by side, (\d+) s a seed")
        found = [match for case in sorted(finished) if (match := pattern.fullmatch(case))]
        return cls(int(found[-1][1]), float(found[-1][2])) if found else None


# ---- in processes of their own


def become_training() -> None:
    """Let this process end when the one that runs the study does, and start its loaders as any training does.

    Processes hand on the way in which they were started, and a loader ends at once where the process that it knows as
    its parent is not its parent.
    """
    multiprocessing.set_start_method("fork", force=True)

    def wait_for_it() -> None:
        study = multiprocessing.parent_process()
        if study is not None:
            study.join()
            os._exit(1)

    threading.Thread(target=wait_for_it, daemon=True).start()


def train_seed(repository: Repository, seed: int, pipe: Connection) -> None:
    """Warm up, train all rows, and send the lines to report; or why that failed, as a text."""
    become_training()
    try:
        list(repository.training("warmup", None, seed).fit())
        pipe.send([_trained(repository, name, seed) for name in ROWS])
    except Interrupted:
        sys.exit(1)
    except Exception as error:  # the others go on
        traceback.print_exc()
        pipe.send(f"{type(error).__name__}: {error}".partition("\n")[0])


def _trained(repository: Repository, name: str, seed: int) -> dict[str, Any]:
    """Train a row and return the line to report."""
    start = time.monotonic()
    run = repository.training("train", name, seed)
    *_, last = run.fit()
    metrics = {metric: round(last[metric], 4) for metric in METRICS}
    taken = {"steps": last["step"], "seconds": round(time.monotonic() - start, 1)}
    return {"data": repository.data, "seed": seed, "row": name, **metrics, **taken}


def train_in_rounds(repository: Repository, seed: int, size: Size, pipe: Connection) -> None:
    """Take some steps of the last row, then a round of steps each time that `pipe` asks for one, until it says no."""
    become_training()
    repository.skip_warmup(seed)
    run = repository.training("train", ROWS[-1], seed)
    batches = enumerate(run.batches(0, size.before + size.steps * size.rounds * len(size.sides)))

    def learn(steps: int) -> None:
        for step, batch in itertools.islice(batches, steps):
            run.learner.step(batch.to(run.device), step)
        synchronize(run.device)
        pipe.send(None)

    learn(size.before)
    while pipe.recv():
        learn(size.steps)


# ---- in this process


@dataclass
class Children:
    """Processes that this one has started, each with the pipe to it; none of them outlives the `with`."""

    running: dict[Connection, ForkServerProcess] = field(default_factory=dict)

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running.values():
            process.terminate()
        end = time.monotonic() + PATIENCE
        for process in self.running.values():
            process.join(max(0.0, end - time.monotonic()))
            process.kill()
            process.join()

    def start(self, target: Callable[..., None], *arguments: object) -> Connection:
        """Start a function of a module; the other end of the pipe that is returned is its last argument."""
        context = multiprocessing.get_context("forkserver")  # CUDA does not survive a fork of this process
        context.set_forkserver_preload(["rrn.train"])  # seconds of imports, once
        ours, theirs = context.Pipe()
        process = context.Process(target=target, args=(*arguments, theirs))
        process.start()
        theirs.close()
        self.running[ours] = process
        return ours

    def answer(self, pipe: Connection) -> Any:
        """Return what a process sends next.

        Raises:
            TrainingError: it has ended instead.
        """
        try:
            return pipe.recv()
        except EOFError as error:
            process = self.running[pipe]
            process.join()
            raise TrainingError(f"a training ended with exit code {process.exitcode}, see the log") from error

    def end(self, pipe: Connection) -> None:
        """Let a process that has sent all of it end."""
        self.running.pop(pipe).join()


@dataclass
class Study:
    """The study while it runs.

    Attributes:
        part: options and time.
        repository: where all trainings happen.
        size: how much is done.
        pace: what throughput has found, once it is known.
        failures: seeds that have failed.
    """

    part: Part
    repository: Repository
    size: Size
    pace: Pace | None = None
    failures: int = 0

    def run(self) -> None:
        """Find the best number of trainings side by side, then train seed by seed."""
        data = self.repository.data
        self.pace = Pace.known(data, self.part.finished)
        if self.pace is None:
            self.part.run(f"{data} throughput", self.throughput, self.size.seconds)
        self.seeds(train_seed)

    def throughput(self) -> Iterator[Row]:
        """Measure images a second of all trainings side by side, and keep what is best."""
        settings = config.load(ROWS[-1], root=self.repository.root)
        images = settings.batch.labeled + 2 * settings.batch.unlabeled
        steps = settings.train.steps * len(ROWS) + settings.warmup.steps
        rates: dict[int, list[float]] = {}
        with Children() as children:
            seeds = [THROUGHPUT + place for place in range(max(self.size.sides))]
            pipes = [children.start(train_in_rounds, self.repository, seed, self.size) for seed in seeds]
            self._heard(children, pipes)
            for many in self.size.sides:  # the others wait, and keep no more than memory
                seconds = [self._round(children, pipes[:many]) for _ in range(self.size.rounds)]
                rates[many] = [many * self.size.steps * images / each for each in seconds]
                case = f"{self.repository.data}, {many} side by side"
                yield row(case, "images a second of all", "images/s", rates[many])
                yield ratio(case, "images a second of all, to one", rates[many], rates[self.size.sides[0]])
            for pipe in pipes:
                pipe.send(False)
                children.end(pipe)
        best = max(rates, key=lambda many: sum(rates[many]))
        rate = sum(rates[best]) / len(rates[best])
        self.pace = Pace(best, steps * images * best / rate + START)
        say(finished=self.pace.case(self.repository.data), seconds=0.0)

    def _round(self, children: Children, pipes: Sequence[Connection]) -> float:
        """Let trainings take a round of steps together, and return the seconds until the last has done so."""
        start = time.perf_counter()
        for pipe in pipes:
            pipe.send(True)
        self._heard(children, pipes)
        return time.perf_counter() - start

    def _heard(self, children: Children, pipes: Sequence[Connection]) -> None:
        """Wait for an answer of each process.

        Raises:
            TrainingError: one has ended.
            TimeoutError: the time is up.
        """
        for pipe in pipes:
            if not pipe.poll(max(0.0, self.part.left() - GRACE)):
                raise TimeoutError("the time was up before throughput was measured")
            children.answer(pipe)

    def seeds(self, target: Callable[..., None]) -> None:
        """Train seeds side by side and report each that is complete.

        Args:
            target: `train_seed`, a function of a module.
        """
        pace = self.pace or Pace(1, self.size.unknown)
        todo, begun = self._todo(pace), dict[Connection, tuple[int, float]]()
        with Children() as children:
            while True:
                while len(begun) < pace.most and (seed := next(todo, None)) is not None:
                    begun[children.start(target, self.repository, seed)] = seed, time.monotonic()
                ready = wait(list(begun), max(0.0, self.part.left() - GRACE)) if begun else []
                if not ready:
                    break
                for pipe in [pipe for pipe in begun if pipe in ready]:
                    seed, start = begun.pop(pipe)
                    seconds = time.monotonic() - start
                    if self._reported(children, pipe, seed, seconds):
                        pace.seconds = seconds
            for seed, _ in begun.values():
                say(skipped=self._case(seed), why="out of time")

    def _todo(self, pace: Pace) -> Iterator[int]:
        """Yield the seeds that are missing, while there is time for one and few have failed."""
        for seed in self.size.seeds:
            if self._case(seed) in self.part.finished:
                continue
            if self.failures == FAILURES:
                return
            if self.part.left() - GRACE <= pace.seconds:
                say(skipped=self._case(seed), why=f"out of time: a seed takes {pace.seconds:.0f} s")
                return
            yield seed

    def _reported(self, children: Children, pipe: Connection, seed: int, seconds: float) -> bool:
        """Report a seed whose process has something to say, and return whether it is complete."""
        try:
            lines = children.answer(pipe)
        except TrainingError as error:
            lines = str(error)
        children.end(pipe)
        if isinstance(lines, str):
            say(failed=self._case(seed), why=lines)
            self.failures += 1
            return False
        for line in lines:
            say(study=line)
        say(finished=self._case(seed), seconds=round(seconds, 1))
        return True

    def _case(self, seed: int) -> str:
        """Return the name of a seed."""
        return f"{self.repository.data} seed {seed}"


def changes(part: Part, size: Size) -> dict[str, Any]:
    """Return the differences to params.yaml."""
    if part.small:
        return {**CHANGES, "device": "cpu", "loading": {"workers": 1}, **TINY, **STEPS_SMALL}
    values = {"device": part.device.type, "loading": {"workers": LOADERS // max(size.sides)}}
    crop = {"augment": {"crop": CROP if part.data else CROP_EMBEDDED}}
    return {**CHANGES, **values, **crop, "model": config.read(LITE0)["model"]}


def main() -> None:
    """Run the part."""
    part = begin(__doc__)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # through the `with`s, which end the processes
    size = SMALL if part.small else FULL
    with temporary(ROWS, changes(part, size), part.data, part.small) as repository:
        Study(part, repository, size).run()


if __name__ == "__main__":
    main()
