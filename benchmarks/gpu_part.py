"""What the parts of the GPU measurement have in common: their options, their time, and how they report.

A part is a module `gpu_NAME.py` that `gpu.py` starts as a process. It prints one JSON object a line, which `gpu.py`
files in results.jsonl; whatever else it prints goes into log.txt:

    {"row": {...}}                         a measured quantity, as `measuring.Row`
    {"finished": CASE, "seconds": 1.2}     a case is done, and not measured again by --resume
    {"failed": CASE, "why": TEXT}          it raised an error, whose traceback is in log.txt
    {"skipped": CASE, "why": TEXT}         there was no time for it
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from measuring import Row


@dataclass(frozen=True)
class Part:
    """One part while it runs.

    Attributes:
        small: whether to take tiny sizes on the CPU: does it work, not how long anything takes.
        device: the GPU, or the CPU where `small`.
        deadline: of `time.monotonic`, when its time is up.
        finished: cases that an earlier run has measured.
        data: a folder data set for the study; None: the embedded one, rendered.
    """

    small: bool
    device: torch.device
    deadline: float
    finished: frozenset[str]
    data: Path | None

    def left(self) -> float:
        """Return the seconds that are left; below 0 if time is up."""
        return self.deadline - time.monotonic()

    def run(self, case: str, measure: Callable[[], Iterable[Row]], seconds: float = 0) -> None:
        """Measure a case and report its rows, unless it is finished or time is short; an error ends this case only.

        Args:
            case: its name, by which --resume knows it.
            measure: what yields its rows.
            seconds: that it will take, so far as is known.
        """
        if case in self.finished:
            return
        if self.left() <= seconds:
            say(skipped=case, why="out of time")
            return
        start = time.monotonic()
        try:
            for row in measure():
                say(row=asdict(row))
        except Exception as error:  # whatever it is: the other cases are still worth measuring
            traceback.print_exc()
            say(failed=case, why=f"{type(error).__name__}: {error}".partition("\n")[0])
        else:
            say(finished=case, seconds=round(time.monotonic() - start, 1))


def say(**values: object) -> None:
    """Report one object to `gpu.py`, at once."""
    sys.stdout.write(f"{json.dumps(values)}\n")  # in one piece: other threads and processes write, too
    sys.stdout.flush()


def begin(what: str | None) -> Part:
    """Read the options of a part, and find its device.

    Args:
        what: the part does: its docstring.

    Raises:
        SystemExit: torch sees no GPU, and `--small` was not said.
    """
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--seconds", type=float, default=600.0, help="time that it has; default: %(default)s")
    parser.add_argument("--finished", type=json.loads, default=[], help="JSON list of cases not to measure again")
    parser.add_argument("--data", type=Path, default=None, help="a folder data set; default: the embedded one")
    options = parser.parse_args()
    if not options.small and not torch.cuda.is_available():
        sys.exit("error: torch sees no GPU here; --small tries everything on the CPU")
    device = torch.device("cpu" if options.small else "cuda")
    deadline = time.monotonic() + options.seconds
    return Part(options.small, device, deadline, frozenset(options.finished), options.data)


def wait(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
