"""Do the tests notice when the code is wrong? mutmut's changes, one at a time, each against the tests of its line.

    python benchmarks/mutants.py                          # the modules of SUITES: about an hour on two cores
    python benchmarks/mutants.py rrn/evaluation/metrics.py --count 50 --out scratch/mutants.csv

mutmut says what can be changed; its own runner skips functions with decorators, so this file runs the mutants. A plain
run measures which test executes which line. Then each mutant takes the place of its module, in memory, in a forked
process, and the tests of its line run until one fails. What a test starts as another program sees no mutant.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import gc
import importlib.metadata
import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

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
SUITES = {
    "rrn/evaluation/metrics.py": ("tests/evaluation/test_metrics.py", "tests/test_evaluate.py"),
    "rrn/data/splits.py": ("tests/data/test_splits.py",),
    "rrn/data/transforms.py": ("tests/data/test_transforms.py",),
    "rrn/method.py": ("tests/test_method.py", "tests/training/test_learner.py"),
    "rrn/models/pseudo_label_scores.py": ("tests/test_method.py",),
    "rrn/runs/finished.py": ("tests/runs/test_finished.py", "tests/prediction/test_predict_command.py"),
    "rrn/runs/resume.py": ("tests/runs/test_resume.py",),
}
"""Test files by module: fast ones that execute every line that can be executed in this process."""
PACKAGES = ("torchvision", "torchmetrics", "timm", "segmentation_models_pytorch", "scipy.stats")  # once is enough
SEED, OPTIONS = 0, ("-q", "-x", "-p", "no:cacheprovider")
SLOWEST, PATIENCE = 10.0, (30.0, 10.0)
"""Seconds: slower tests are left out; what a mutant has, and how many times as long as its tests take without it."""
Seconds, Executing = dict[str, float], dict[int, set[str]]  # by test; tests by line, "" for the import


class Mutant(NamedTuple):
    """A module with one change: first and last changed line from 1, the whole text, and the lines that differ."""

    lines: tuple[int, int]
    text: str
    before: str
    after: str


class Everywhere(MutationVisitor):
    """mutmut's visitor, also in functions with decorators: only its runner has to leave them out."""

    def _skip_node_and_children(self, node: libcst.CSTNode) -> bool:
        decorated = isinstance(node, libcst.FunctionDef) and node.decorators
        return not decorated and super()._skip_node_and_children(node)


class _Watch:
    """A plugin of pytest: which test executes which lines of a file; what a fixture does counts for the whole file."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self._measured, self.seconds = measured, dict[str, float]()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self._measured.switch_context(item.nodeid.split("::")[0] + "::")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        self._measured.switch_context(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration


def mutants(text: str) -> list[Mutant]:
    """Return all mutants of a module's text, by line, each once; what does not compile is none."""
    module = MetadataWrapper(libcst.parse_module(text))
    visitor = Everywhere(mutation_operators, IgnoredCode(set(), set(), set()))
    module.visit(visitor)
    places = module.resolve(PositionProvider)
    found: dict[str, Mutant] = {}
    for mutation in visitor.mutations:
        changed = deep_replace(module.module, mutation.original_node, mutation.mutated_node).code
        place = places[mutation.original_node]
        with suppress(SyntaxError):
            compile(changed, "mutant", "exec")
            found[changed] = Mutant((place.start.line, place.end.line), changed, *differing(text, changed))
    found.pop(text, None)
    return sorted(found.values(), key=lambda mutant: mutant.lines[0])


def differing(before: str, after: str) -> tuple[str, str]:
    """Return the lines in which two texts differ, without those around them that are the same."""
    changes = list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm=""))[3:]
    return tuple("\n".join(line[1:].strip() for line in changes if line[0] == sign) for sign in "-+")


def statements(text: str) -> dict[int, range]:
    """Return the lines of the innermost statement of each line; of one with a body, the lines of its head."""
    found: dict[int, range] = {}
    for node in ast.walk(ast.parse(text)):  # outer ones before inner ones
        if isinstance(node, ast.stmt):
            end = node.body[0].lineno if hasattr(node, "body") else node.end_lineno + 1
            head = range(node.lineno, max(end, node.lineno + 1))
            found |= dict.fromkeys(head, head)
    return found


def selected(mutant: Mutant, heads: dict[int, range], seconds: Seconds, executing: Executing) -> list[str]:
    """Return the tests that execute a mutant's statement, the fastest first; all, if it is executed by the import."""
    lines = {line for at in range(mutant.lines[0], mutant.lines[1] + 1) for line in heads.get(at, range(at, at + 1))}
    tests: set[str] = set().union(*(executing.get(line, set()) for line in lines))
    if "" in tests:
        tests = set().union(*executing.values())
    known = {test for test in seconds if any(test.startswith(name) for name in tests if name)}
    return sorted(known, key=lambda test: (seconds[test], test))


def _enter(root: Path, module: str, text: str) -> None:
    """Make a forked process, whose output goes nowhere, the one in which `module` has another text."""
    os.setsid()
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    os.chdir(root)
    sys.path.insert(0, str(root))
    sys.dont_write_bytecode = True
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    hypothesis.settings.load_profile("ci")  # the same examples each time
    name = module.removesuffix(".py").replace("/", ".")
    mutant = sys.modules[name] = ModuleType(name)
    mutant.__file__ = str(root / module)
    setattr(importlib.import_module(name.rpartition(".")[0]), name.rpartition(".")[2], mutant)
    exec(compile(text, mutant.__file__, "exec", dont_inherit=True), vars(mutant))


def _plain_run(root: Path, module: str, suite: Sequence[str]) -> tuple[Seconds, Executing]:
    """Run the suite on the module as it is, in this forked process; RuntimeError if a test fails."""
    measured = coverage.Coverage(data_file=None, include=[str(root / module)], config_file=False)
    observer = _Watch(measured)
    measured.start()
    _enter(root, module, (root / module).read_text(encoding="utf-8"))
    if pytest.main([*OPTIONS, *suite], [observer]):
        raise RuntimeError(f"{module}: {', '.join(suite)} fails without any mutant: run it with pytest first")
    measured.stop()
    lines = measured.get_data().contexts_by_lineno(str(root / module))
    seconds = {test: taken for test, taken in observer.seconds.items() if taken <= SLOWEST}
    return seconds, {line: set(tests) for line, tests in lines.items()}


def _try_out(root: Path, module: str, text: str, files: Sequence[str], tests: Sequence[str]) -> int:
    """Run tests on a mutant, in this forked process, file by file; return pytest's status of the first that fails."""
    _enter(root, module, text)
    for name in files:
        chosen = [test for test in tests if test.startswith(f"{name}::")]
        if chosen and (status := pytest.main([*OPTIONS, *chosen])):
            return int(status if status == 1 else pytest.main([*OPTIONS, name]))  # a test of that name may be gone
    return 0


def _verdict(work: Callable[[], int], seconds: float) -> str:
    """Return killed, survived or timeout: what came of some work in a forked process."""
    child = os.fork()
    if child == 0:
        status = 1
        signal.alarm(int(seconds) + 1)
        try:
            status = work()
        finally:
            os._exit(status)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what its tests have started
    return {0: "survived", -signal.SIGALRM: "timeout"}.get(ended, "killed")


def examine(root: Path, module: str, suite: Sequence[str], count: int) -> pd.DataFrame:
    """Return line, before, after and verdict of a sample of a module's mutants; `attrs` says how many there are."""
    text = (root / module).read_text(encoding="utf-8")
    everything, heads = mutants(text), statements(text)
    chosen = random.Random(f"{SEED} {module}").sample(range(len(everything)), min(count, len(everything)))
    for name in PACKAGES:
        importlib.import_module(name)
    gc.freeze()  # so that no forked process walks through what was imported
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        seconds, executing = pool.submit(_plain_run, root, module, suite).result()

    def tried(mutant: Mutant) -> str:
        tests = selected(mutant, heads, seconds, executing)
        limit = PATIENCE[0] + PATIENCE[1] * sum(map(seconds.__getitem__, tests))
        return _verdict(lambda: _try_out(root, module, mutant.text, suite, tests), limit) if tests else "survived"

    sample = [everything[i] for i in sorted(chosen)]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        verdicts = list(pool.map(tried, sample))
    rows = [
        (mutant.lines[0], mutant.before, mutant.after, found) for mutant, found in zip(sample, verdicts, strict=True)
    ]
    table = pd.DataFrame(rows, columns=["line", "before", "after", "verdict"])
    table.attrs["mutants"] = len(everything)
    return table


def record(out: Path, module: str, table: pd.DataFrame) -> str:
    """Write score and survivors of a module in place of what was known; what ran out of time counts as noticed."""
    counts = table["verdict"].value_counts().reindex(["killed", "timeout", "survived"], fill_value=0)
    row = {"module": module, "mutants": table.attrs["mutants"], "sampled": len(table), **counts}
    score, tool = 1 - counts["survived"] / len(table), f"mutmut {importlib.metadata.version('mutmut')}"
    row |= {"score": round(score, 4), "seed": SEED, "tool": tool, "date": str(pd.Timestamp.now("UTC").date())}
    lost = table[table["verdict"] == "survived"].drop(columns="verdict")
    lost.insert(0, "module", module)
    for path, new in ((out, pd.DataFrame([row])), (out.with_stem(f"{out.stem}_survived"), lost)):
        known = pd.read_csv(path) if path.exists() else new[:0]
        everything = pd.concat([known[known["module"] != module], new]) if len(known) else new
        everything.sort_values("module", kind="stable").to_csv(path, index=False)
    return f"{row}\n{lost.to_csv(index=False)}"


def main(arguments: list[str] | None = None) -> None:
    """Examine modules, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="module", help=f"of {', '.join(SUITES)}; default: all")
    parser.add_argument("--count", type=int, default=300, help="mutants of a module, at most")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "mutants.csv")
    options = parser.parse_args(arguments)
    if unknown := set(options.modules) - set(SUITES):
        parser.error(f"no suite for {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    for module in options.modules or SUITES:
        table = examine(ROOT, module, SUITES[module], options.count)
        print(record(options.out, module, table), flush=True)


if __name__ == "__main__":
    main()
