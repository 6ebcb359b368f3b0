"""A part of the GPU measurement: the tests that are marked `cuda`, each a case; with --small in the form of a CPU.

They run in this process, those of most worth first. One that has not begun when time is up is skipped.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

import pytest
from gpu_part import Part, begin, say
from measuring import Row

ROOT = Path(__file__).resolve().parents[1]
FILES = ("test_gpu_step.py", "test_gpu_inference.py", "test_gpu_training.py", "test_gpu_compiled.py")
"""All tests that are marked, the file of most worth first."""


class Reporter:
    """A plugin of pytest that reports each test to `gpu.py`, and leaves out those that need not or cannot run.

    Args:
        part: which cases are finished, and how much time is left.
        out: where the reports go.
    """

    def __init__(self, part: Part, out: TextIO) -> None:
        self.part, self.out = part, out
        self.passed = 0
        self._phases: list[pytest.TestReport] = []

    def say(self, **values: object) -> None:
        """Report one object, wherever pytest has led what is printed."""
        with redirect_stdout(self.out):
            say(**values)

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out the tests that an earlier run has finished."""
        finished = [item for item in items if item.nodeid in self.part.finished]
        self.passed += len(finished)
        config.hook.pytest_deselected(items=finished)
        items[:] = [item for item in items if item not in finished]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Report a file that cannot be imported."""
        if report.failed:
            self.say(failed=report.nodeid, why=_last_line(report.longreprtext))

    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Skip a test for which there is no time."""
        mark = item.get_closest_marker("cuda")
        if mark and self.part.left() > mark.kwargs.get("seconds", 0):
            return None
        self.say(skipped=item.nodeid, why="out of time")
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how setup, call and teardown of a test went."""
        self._phases.append(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Report a test: the first phase that did not pass, or all of them."""
        phases, self._phases = self._phases, []
        bad = next((phase for phase in phases if not phase.passed), None)
        if bad is None:
            self.passed += 1
            self.say(finished=nodeid, seconds=round(sum(phase.duration for phase in phases), 1))
        elif bad.skipped:
            self.say(skipped=nodeid, why=_reason(bad))
        else:
            self.say(failed=nodeid, why=_error(bad))


def _error(report: pytest.TestReport) -> str:
    """Return the first line of the error of a test."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message).partition("\n")[0] if crash else _last_line(report.longreprtext)


def _reason(report: pytest.TestReport) -> str:
    """Return why a test is skipped."""
    told = report.longrepr
    return str(told[-1]).removeprefix("Skipped: ") if isinstance(told, tuple) else _last_line(report.longreprtext)


def _last_line(text: str) -> str:
    """Return the line that says what went wrong, of a traceback in text."""
    return text.strip().splitlines()[-1].removeprefix("E").strip()


@contextmanager
def _aside() -> Iterator[TextIO]:
    """Yield the output of this process, while all that others print goes where errors do."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        try:
            yield out
        finally:
            sys.stdout.flush()
            os.dup2(out.fileno(), 1)


def run(part: Part) -> None:
    """Run the tests and report them, and how many have passed, those of earlier runs counted in."""
    with _aside() as out, tempfile.TemporaryDirectory() as folder:
        reporter = Reporter(part, out)
        options = ["-m", "cuda", "-p", "no:cacheprovider", "-p", "no:xdist", "--continue-on-collection-errors"]
        places = [f"--rootdir={ROOT}", f"--basetemp={folder}/tests"]
        files = [str(ROOT / "tests" / "gpu" / name) for name in FILES]
        status = pytest.main([*options, *places, *files], plugins=[reporter])
        if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
            reporter.say(failed="pytest", why=f"it ended with {status!r}, and has said more")
        passed = reporter.passed
        reporter.say(row=asdict(Row("tests", "passed", "count", passed, passed, passed, passed, 1)))


def main() -> None:
    """Run as a part."""
    part = begin(__doc__)
    os.environ["RRN_TEST_DEVICE"] = part.device.type
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # of the processes that tests start
    sys.dont_write_bytecode = True
    run(part)


if __name__ == "__main__":
    main()
