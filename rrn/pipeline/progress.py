"""How far the work is: step of all steps, seconds a step, time left, and which of how many stages.

Notebooks print a row of history as `step 425, lr 0.018, ...`. In a terminal the rows are one line that renews itself,
elsewhere a line each. runs/<name>/log.txt keeps them with the time of day. It is no output of a stage, and no time
reaches a notebook, so that two runs leave the same bytes.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from rrn import config

ROW = re.compile(r"step (?P<step>\d+)(?P<values>, .*)")
"""A row as notebooks print it."""
STAGE = re.compile(r"(?P<runs>.*/runs/[^/]+)/(?P<kind>[^/]+)/((?P<key>[^/]+)/)?[^/]+$")
"""The executed notebook of a stage, as dvc.yaml calls it."""
AT_ONCE = 1e-3
"""Seconds a step, at most, of rows that a resumed run only repeats."""
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
"""Without tqdm's own rate, which counts the steps that a resumed run had done."""


class StepReport:
    """What a stage prints, with how far it is behind each row of history; a file to write to.

    Args:
        out: where it is printed.
        output: the executed notebook, which names the stage and its log.
        steps: that the run takes; None: not known, and rows are printed as they are.
        clock: seconds.
    """

    def __init__(
        self, out: TextIO, output: Path, steps: int | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        found = STAGE.match(output.absolute().as_posix())
        self.name = "@".join(filter(None, (found["kind"], found["key"]))) if found else output.stem
        self.log = Path(found["runs"]) / "log.txt" if found else None
        self.out, self.steps, self._clock = out, steps, clock
        self._rest = ""
        self._first = self._last = (0, 0.0)  # step and time of the first row with a speed, and of the last one
        self._bar: Any = None

    def write(self, text: str) -> int:
        """Print whole lines; keep the beginning of one until its end comes."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            row = ROW.fullmatch(line)
            if row and self.steps:
                self._show(self.steps, int(row["step"]), row["values"])
            else:
                self._print(line)
        return len(text)

    def flush(self) -> None:
        """Hand on what is printed."""
        self.out.flush()

    def close(self) -> None:
        """Print what is left; the terminal keeps the last state of its line."""
        if self._rest:
            self.write("\n")
        if self._bar is not None:
            self._bar.close()

    def _print(self, line: str) -> None:
        if self._bar is None:
            self.out.write(f"{line}\n")
        else:
            self._bar.write(line, file=self.out)

    def _show(self, steps: int, step: int, values: str) -> None:
        values += self._speed(steps, step)
        line = f"step {step} of {steps}{values}"
        self._note(line)
        if not self.out.isatty():
            self.out.write(f"{line}\n")
            return
        if self._bar is None:
            self._bar = tqdm(total=steps, desc=self.name, file=self.out, bar_format=BAR, dynamic_ncols=True)
        self._bar.set_postfix_str(values.removeprefix(", "), refresh=False)
        self._bar.update(step - self._bar.n)
        self._bar.refresh()

    def _note(self, line: str) -> None:
        """Append a line to the log; one that cannot be written is said once, and stops no training."""
        if self.log is None:
            return
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z {self.name} {line}\n")
        except OSError as error:
            self._print(f"{self.log} is not written: {error.strerror}")
            self.log = None

    def _speed(self, steps: int, step: int) -> str:
        """Say how long a step takes, and all that are left; nothing at the first row, or where rows are repeated."""
        now, (before, then) = self._clock(), self._last
        self._last = step, now
        if not before or now - then < AT_ONCE * (step - before):
            self._first = self._last
            return ""
        seconds = (now - self._first[1]) / (step - self._first[0])
        return f", {seconds:.3g} s a step, {tqdm.format_interval(seconds * (steps - step))} left"


def steps_of(notebook: Path, values: dict[str, Any]) -> int | None:
    """Return the steps that a notebook takes with these parameters; None: none, or it says itself what is wrong."""
    kind = notebook.stem.partition("_")[2]
    if kind not in ("warmup", "train"):
        return None
    with suppress(config.SettingsError, FileNotFoundError, TypeError, ValueError):
        settings = config.load(values.get("method"), values.get("overrides"), config.find_root())
        return settings.warmup.steps if kind == "warmup" else settings.train.steps
    return None


class StageReport:
    """What stages side by side print, with the number of each; in a terminal over one line that says how far all are.

    Args:
        stages: how many there are.
        out: where it is printed.
    """

    def __init__(self, stages: int, out: TextIO | None = None) -> None:
        self.total, self.out = stages, out or sys.stdout
        self._numbers: dict[str, int] = {}
        self._lock = threading.Lock()
        self._bar: Any = None
        if stages and self.out.isatty():
            self._bar = tqdm(desc="stages", total=stages, file=self.out, bar_format=BAR, dynamic_ncols=True)

    def line(self, stage: str, text: str) -> None:
        """Print a line of a stage, which ends in a newline."""
        with self._lock:
            number = self._numbers.setdefault(stage, len(self._numbers) + 1)
        if self._bar is None:
            print(f"{number}/{self.total} {stage}: {text}", end="", flush=True, file=self.out)
        elif text.startswith("step "):
            self._bar.set_postfix_str(f"{stage} {text.rstrip()}")
        else:
            self._bar.write(f"{stage}: {text}", file=self.out, end="")

    def ended(self) -> None:
        """Count a stage as done."""
        if self._bar is not None:
            self._bar.update()

    def close(self) -> None:
        """Leave the last state of the line."""
        if self._bar is not None:
            self._bar.close()
