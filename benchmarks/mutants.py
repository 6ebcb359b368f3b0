"""Do the tests notice when the code is wrong? mutmut's changes, one at a time, each against the tests of its line.

    python benchmarks/mutants.py                          # the modules of SUITES: about an hour on two cores
    python benchmarks/mutants.py rrn/evaluation/metrics.py --count 50 --seed 3 --out scratch/mutants.csv

mutmut says what can be changed: its operators, with those of functions that have decorators, which its own runner has
to leave out. This file draws a sample and runs it. A plain run measures which test executes which line and how long it
takes; then each mutant is put in place of its module, in memory, in a process that is forked after the packages were
imported, and the tests of its line run, file by file, the fastest first, until one fails. What a test starts as another
program sees no mutant.

Two files are written: the scores (benchmarks/mutants.csv) and the survivors (benchmarks/mutants_survived.csv).
"""

from __future__ import annotations

import argparse
import ast
import gc
import importlib
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import coverage
import hypothesis
import libcst
import pandas as pd
import pytest
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.file_mutation import MutationVisitor, deep_replace
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "mutants.csv"
SUITES = {
    "rrn/evaluation/metrics.py": ("tests/test_evaluate.py", "tests/test_examine.py"),
    "rrn/data/splits.py": ("tests/test_splits.py",),
    "rrn/data/transforms.py": ("tests/test_transforms.py",),
    "rrn/method.py": ("tests/test_method.py", "tests/test_learner.py"),
    "rrn/runs/finished.py": ("tests/test_finished.py", "tests/test_predict.py"),
    "rrn/runs/resume.py": ("tests/test_resume.py",),
}
"""Test files by module: fast ones that execute every line that can be executed in this process."""

PACKAGES = (
    *("torchvision", "torchmetrics.functional.classification", "timm", "segmentation_models_pytorch", "scipy.stats"),
    *("hypothesis.strategies", "hypothesis.internal.conjecture.engine", "_pytest.assertion.rewrite"),
)
"""What takes long to import; once is enough."""

SLOWEST = 10.0
"""Seconds; tests that take longer in the plain run are left out."""

PATIENCE = (30.0, 10.0)
"""A mutant has so many seconds, and so many times as long as its tests take in the plain run."""


@dataclass(frozen=True)
class Mutant:
    """A module with one change.

    Attributes:
        lines: first and last one, from 1, of what was changed.
        text: of the whole module.
        before: lines that differ, as they were.
        after: the same lines, changed.
    """

    lines: tuple[int, int]
    text: str
    before: str
    after: str


@dataclass
class Plain:
    """What the run without a mutant found.

    Attributes:
        seconds: by test.
        tests: by line of the module, those that execute it; "" stands for the import.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    tests: dict[int, set[str]] = field(default_factory=dict)


class Everywhere(MutationVisitor):
    """mutmut's visitor, also in functions with decorators: only its runner has to leave them out."""

    def _skip_node_and_children(self, node: libcst.CSTNode) -> bool:
        if isinstance(node, libcst.FunctionDef) and node.decorators:
            return False
        return super()._skip_node_and_children(node)


def mutants(text: str) -> list[Mutant]:
    """Return all mutants of a module's text, by line, each once; what does not compile is none."""
    module = MetadataWrapper(libcst.parse_module(text))
    visitor = Everywhere(mutation_operators, IgnoredCode(set(), set(), set()))
    module.visit(visitor)
    places = module.resolve(PositionProvider)
    found: dict[str, Mutant] = {}
    for mutation in visitor.mutations:
        changed = deep_replace(module.module, mutation.original_node, mutation.mutated_node)
        assert isinstance(changed, libcst.Module)
        if changed.code not in found and changed.code != text and compiles(changed.code):
            place = places[mutation.original_node]
            lines = place.start.line, place.end.line
            found[changed.code] = Mutant(lines, changed.code, *differing(text, changed.code))
    return sorted(found.values(), key=lambda mutant: mutant.lines[0])


def compiles(text: str) -> bool:
    """Return whether Python takes a text for a module."""
    try:
        compile(text, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def differing(before: str, after: str) -> tuple[str, str]:
    """Return the lines in which two texts differ, without those around them that are the same."""
    old, new = before.splitlines(), after.splitlines()
    start = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    rest = min(len(old), len(new)) - start
    end = next((i for i in range(rest) if old[-1 - i] != new[-1 - i]), rest)
    return tuple("\n".join(line.strip() for line in text[start : len(text) - end]) for text in (old, new))


def statements(text: str) -> dict[int, range]:
    """Return the lines of the innermost statement of each line; of one with a body, the lines of its head."""
    found: dict[int, range] = {}
    for node in ast.walk(ast.parse(text)):  # outer ones before inner ones
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            head = range(node.lineno, max(body[0].lineno, node.lineno + 1) if body else node.end_lineno + 1)
            found |= dict.fromkeys(head, head)
    return found


def selected(mutant: Mutant, heads: dict[int, range], plain: Plain) -> list[str]:
    """Return the tests that execute a mutant's statement, the fastest first; all, if it is executed by the import."""
    first, last = mutant.lines
    lines = {line for at in range(first, last + 1) for line in heads.get(at, range(at, at + 1))}
    tests: set[str] = set().union(*(plain.tests.get(line, set()) for line in lines))
    if "" in tests:
        tests = set().union(*plain.tests.values())
    known = {test for test in plain.seconds if any(test.startswith(name) for name in tests if name)}
    return sorted(known, key=lambda test: (plain.seconds[test], test))


class Instead(MetaPathFinder, SourceFileLoader):
    """Imports one module from a text in place of its file."""

    def __init__(self, name: str, path: Path, text: str) -> None:
        SourceFileLoader.__init__(self, name, str(path))
        self._text = text

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Answer for this module alone."""
        return spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, fullname: str) -> CodeType:
        """Compile the text; nothing is read from or written to caches."""
        return compile(self._text, self.path, "exec", dont_inherit=True)


class Only:
    """A plugin of pytest: runs chosen tests of a file in the order chosen; all, where one of them is gone."""

    def __init__(self, tests: Sequence[str]) -> None:
        self._tests = tests

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Take the chosen ones."""
        known = {item.nodeid: item for item in items}
        if set(self._tests) <= set(known):
            items[:] = [known[test] for test in self._tests]


class Watch:
    """A plugin of pytest: notes which test executes which lines of a file, and how long it takes.

    What a fixture executes counts for all tests of the file, for it may be made once for all of them.
    """

    def __init__(self, measured: coverage.Coverage) -> None:
        self._measured, self.seconds, self.failed = measured, dict[str, float](), list[str]()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        """Name what is executed after the test's file."""
        self._measured.switch_context(item.nodeid.split("::")[0] + "::")
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Name what is executed after the test."""
        self._measured.switch_context(item.nodeid)
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add the seconds of a phase, and note a failure."""
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed.append(report.nodeid)


def enter(root: Path, module: str, text: str) -> None:
    """Make a forked process the one in which `module` has another text; its output goes nowhere."""
    os.setsid()
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    os.chdir(root)
    sys.path.insert(0, str(root))
    sys.dont_write_bytecode = True
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.meta_path.insert(0, Instead(name_of(module), root / module, text))
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("mutants", derandomize=True, database=None, deadline=None, phases=phases)
    hypothesis.settings.load_profile("mutants")


def name_of(module: str) -> str:
    """Return the name under which a file of a package is imported."""
    return module.removesuffix(".py").replace("/", ".")


def run_tests(files: Sequence[str], *plugins: object) -> int:
    """Run test files until a test fails; return pytest's exit status."""
    options = ["-q", "-x", "-p", "no:cacheprovider"]
    return int(pytest.main([*options, *files], plugins=list(plugins)))


def watch(root: Path, module: str, suite: Sequence[str], answer: Connection) -> None:
    """Run the suite on the module as it is, in a forked process, and send what was found."""
    enter(root, module, (root / module).read_text(encoding="utf-8"))
    path = str(root / module)
    measured = coverage.Coverage(data_file=None, include=[path], config_file=False)
    observer = Watch(measured)
    measured.start()
    status = run_tests(suite, observer)
    measured.stop()
    lines = measured.get_data().contexts_by_lineno(path)
    failed = ", ".join(observer.failed or suite) if status else ""
    answer.send((failed, Plain(observer.seconds, {n: set(tests) for n, tests in lines.items()})))


def plain_run(root: Path, module: str, suite: Sequence[str]) -> Plain:
    """Return what a run without a mutant finds.

    Raises:
        RuntimeError: a test fails without any mutant.
    """
    here, there = multiprocessing.Pipe(duplex=False)
    process = forked(watch, root, module, suite, there)
    there.close()
    try:
        failed, plain = here.recv()
    except EOFError as error:
        raise RuntimeError(f"{module}: the plain run of {', '.join(suite)} died") from error
    process.join()
    if failed:
        raise RuntimeError(f"{module}: without any mutant fails {failed}: run it with pytest first")
    plain.seconds = {test: taken for test, taken in plain.seconds.items() if taken <= SLOWEST}
    return plain


def forked(function: Any, *arguments: Any) -> Any:
    """Start a process that knows all that was imported here."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    return process


def try_out(root: Path, module: str, suite: Sequence[str], mutant: Mutant, tests: Sequence[str]) -> None:
    """Run tests on a mutant, in a forked process, file by file; end it with pytest's status."""
    enter(root, module, mutant.text)
    for name in suite:
        chosen = [test for test in tests if test.startswith(f"{name}::")]
        if chosen and (status := run_tests([name], Only(chosen))):
            os._exit(status)
    os._exit(0)


@dataclass
class Running:
    """A mutant that is being tried: its number, its process, and until when, on the monotonic clock."""

    number: int
    process: Any
    until: float


def verdicts(
    root: Path, module: str, suite: Sequence[str], sample: Sequence[Mutant], plain: Plain, jobs: int
) -> list[str]:
    """Return killed, survived or timeout for each mutant, `jobs` of them at a time."""
    heads = statements((root / module).read_text(encoding="utf-8"))
    found = ["survived"] * len(sample)
    running: list[Running] = []
    for number, mutant in enumerate(sample):
        tests = selected(mutant, heads, plain)
        if not tests:
            continue
        while len(running) == jobs:
            running = finished(running, found)
        constant, times = PATIENCE
        limit = constant + times * sum(plain.seconds[test] for test in tests)
        process = forked(try_out, root, module, suite, mutant, tests)
        running.append(Running(number, process, time.monotonic() + limit))
    while running:
        running = finished(running, found)
    return found


def finished(running: list[Running], found: list[str]) -> list[Running]:
    """Wait for one of the processes, or for its time to be over; note the verdicts and return those still running."""
    soonest = min(one.until for one in running)
    wait([one.process.sentinel for one in running], timeout=max(0.0, soonest - time.monotonic()))
    left = []
    for one in running:
        late = time.monotonic() >= one.until
        if one.process.is_alive() and not late:
            left.append(one)
            continue
        alive = one.process.is_alive()
        if alive:
            os.killpg(one.process.pid, signal.SIGKILL)
        one.process.join()
        if alive or one.process.exitcode:
            found[one.number] = "timeout" if alive else "killed"
    return left


def examine(root: Path, module: str, suite: Sequence[str], count: int, seed: int, jobs: int) -> pd.DataFrame:
    """Try a sample of a module's mutants.

    Args:
        root: of the repository.
        module: path of a file in it.
        suite: test files.
        count: of the sample, at most.
        seed: of the sample.
        jobs: processes at a time.

    Returns:
        One row a mutant: line, before, after, verdict; `attrs["mutants"]` says how many there are in all.
    """
    everything = mutants((root / module).read_text(encoding="utf-8"))
    chosen = random.Random(f"{seed} {module}").sample(range(len(everything)), min(count, len(everything)))
    sample = [everything[i] for i in sorted(chosen)]
    for name in PACKAGES:
        importlib.import_module(name)
    gc.freeze()  # so that no forked process walks through what was imported
    plain = plain_run(root, module, suite)
    table = pd.DataFrame(
        {
            "line": [mutant.lines[0] for mutant in sample],
            "before": [mutant.before for mutant in sample],
            "after": [mutant.after for mutant in sample],
            "verdict": verdicts(root, module, suite, sample, plain, jobs),
        }
    )
    table.attrs["mutants"] = len(everything)
    return table


def score(module: str, table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the row of a module: what ran out of time counts as noticed."""
    counts = {verdict: int((table["verdict"] == verdict).sum()) for verdict in ("killed", "timeout", "survived")}
    share = 1 - counts["survived"] / len(table) if len(table) else float("nan")
    row = {"module": module, "mutants": table.attrs["mutants"], "sampled": len(table), **counts}
    tool = f"mutmut {metadata.version('mutmut')}"
    return pd.DataFrame(
        [{**row, "score": round(share, 4), "seed": seed, "tool": tool, "date": datetime.now(UTC).date().isoformat()}]
    )


def put(path: Path, rows: pd.DataFrame, module: str) -> None:
    """Write the rows of a module into a file, in place of what it said of that module."""
    if path.exists():
        known = pd.read_csv(path)
        rows = pd.concat([known[known["module"] != module], rows]).sort_values("module", kind="stable")
    rows.to_csv(path, index=False)


def main(arguments: list[str] | None = None) -> None:
    """Examine modules, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="module", help=f"of {', '.join(SUITES)}; default: all")
    parser.add_argument("--count", type=int, default=300, help="mutants of a module, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes at a time")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if unknown := set(options.modules) - set(SUITES):
        parser.error(f"no suite for {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    for module in options.modules or SUITES:
        table = examine(ROOT, module, SUITES[module], options.count, options.seed, options.jobs)
        row = score(module, table, options.seed)
        lost = table.loc[table["verdict"] == "survived", ["line", "before", "after"]]
        lost.insert(0, "module", module)
        put(options.out, row, module)
        put(options.out.with_stem(f"{options.out.stem}_survived"), lost, module)
        print(row.to_string(index=False), flush=True)
        for line, before, after in lost[["line", "before", "after"]].itertuples(index=False):
            print(f"\n{module}:{line}\n- {before}\n+ {after}", flush=True)


if __name__ == "__main__":
    main()
