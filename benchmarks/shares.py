"""What the discriminators cost, and where the time of a step goes.

    python benchmarks/run.py shares

At the size of rivals.py, and for the networks, crop and batch of params.yaml. `of the step, paired` is 1 - 1 / ratio of
a row to cps_cutmix, in turns on one batch. The other shares come from clocks around the parts of one step of `rrn`: a
part inside another is counted for the inner one; what no part claims is `losses and mixing`.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch
from measuring import Row, alternating, ratio, row
from torch import nn
from training import FULL, THREADS, TINY, random_batch, settings, without_data

from rrn.method import Losses
from rrn.training.learner import Learner

STANDARD = "cps_cutmix"
FILTERING = ("local_filter", "rrn")
ROUNDS = {"full": 9, "embedded": 60}
SIZES: dict[str, tuple[dict[str, Any], int]] = {
    "full": (FULL, 21),
    "embedded": ({"threads": THREADS}, 8),
}
"""Changes to params.yaml, and the number of classes."""
SEGMENTERS, JUDGES, REST = "segmenters", "discriminators", "losses and mixing"


class Clock:
    """Seconds by part; a part inside another interrupts it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._parts: list[str] = []
        self._since = 0.0

    def enter(self, part: str) -> None:
        """Go on for a part."""
        self._charge()
        self._parts.append(part)

    def leave(self) -> None:
        """Go back to the part around it."""
        self._charge()
        self._parts.pop()

    def _charge(self) -> None:
        """Charge the time since the last change to the part that is on."""
        now = time.perf_counter()
        if self._parts:
            self.seconds[self._parts[-1]] += now - self._since
        self._since = now

    def around(self, part: Callable[[], str], function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that is charged to a part, which is asked for at each call."""

        @wraps(function)
        def timed(*arguments: Any, **keywords: Any) -> Any:
            self.enter(part())
            try:
                return function(*arguments, **keywords)
            finally:
                self.leave()

        return timed


@contextmanager
def clocks(run: Learner) -> Iterator[Clock]:
    """Put clocks around the parts of a step, in which the segmenters learn before the discriminators."""
    clock, model = Clock(), run.model
    turn = [SEGMENTERS]
    functions: list[tuple[Any, str, Callable[[], str]]] = [
        (model, "region_weights", lambda: "weight maps"),
        (torch.autograd, "backward", lambda: f"{turn[-1]}, backward"),
        *((optimizer, "step", lambda: "optimizers") for optimizer in run.optimizers.values()),
    ]
    with ExitStack() as stack:
        for segmenter in model.segmenters:
            _watch(stack, clock, segmenter, lambda: SEGMENTERS if torch.is_grad_enabled() else "teachers")
        for discriminator in model.discriminators:
            _watch(stack, clock, discriminator, lambda: JUDGES)
        for owner, name, part in functions:
            stack.enter_context(patch.object(owner, name, clock.around(part, getattr(owner, name))))
        judged = _judging(clock, model.discriminator_losses, turn)
        stack.enter_context(patch.object(model, "discriminator_losses", judged))
        yield clock


def _judging(clock: Clock, losses: Callable[..., Iterator[Losses]], turn: list[str]) -> Callable[..., Iterator[Losses]]:
    """Return the discriminators' losses, each charged to them while it is computed; from then on it is their turn."""

    def timed(*arguments: Any) -> Iterator[Losses]:
        turn.append(JUDGES)
        found, following = losses(*arguments), clock.around(lambda: JUDGES, next)
        while (terms := following(found, None)) is not None:
            yield terms

    return timed


def _watch(stack: ExitStack, clock: Clock, network: nn.Module, part: Callable[[], str]) -> None:
    """Charge the forward passes of a network to a part."""
    for hook in (
        network.register_forward_pre_hook(lambda *_: clock.enter(part())),
        network.register_forward_hook(lambda *_: clock.leave()),
    ):
        stack.callback(hook.remove)


def profile(run: Learner, step: Callable[[], object], rounds: int) -> list[dict[str, float]]:
    """Return the share of each part of the step, by round; the first step is not counted."""
    shares = []
    step()
    for _ in range(rounds):
        with clocks(run) as clock:
            clock.around(lambda: REST, step)()
        total = sum(clock.seconds.values())
        shares.append({part: seconds / total for part, seconds in clock.seconds.items()})
    return shares


def at(size: str, changes: dict[str, Any], classes: int, rounds: int) -> list[Row]:
    """Measure at one size."""
    runs = {name: without_data(settings(name, changes), classes) for name in (STANDARD, *FILTERING)}
    batch = random_batch(runs[STANDARD].settings, classes)
    steps = {name: lambda run=run: run.step(batch, 0) for name, run in runs.items()}
    seconds = alternating(steps, rounds)
    found = []
    for name in FILTERING:
        taken, rivals = seconds[name], seconds[STANDARD]
        costs = [1 - rival / own for own, rival in zip(taken, rivals, strict=True)]
        found.append(ratio(f"{size}: {name}", f"times {STANDARD}", taken, rivals))
        found.append(row(f"{size}: {name}", "of the step, paired", "share", costs))
    shares = profile(runs["rrn"], steps["rrn"], rounds)
    parts = sorted(shares[0], key=lambda part: -shares[0][part])
    return found + [row(f"{size}: rrn", part, "share", [share[part] for share in shares]) for part in parts]


def rows(quick: bool) -> list[Row]:
    """Measure multiples of cps_cutmix and shares of the step."""
    if quick:
        return at("tiny", TINY, 3, 2)
    return [row for size, (changes, classes) in SIZES.items() for row in at(size, changes, classes, ROUNDS[size])]
