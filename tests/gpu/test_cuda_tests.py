"""The tests that are marked `cuda`, in the form of a CPU: all of them, by the part of the GPU measurement.

Without a GPU they are skipped where pytest meets them, so that none runs twice; here they take a minute.
"""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PATIENCE, ROOT, git

gpu_tests = importlib.import_module("gpu_tests")

LACKING = ("dvc", "jupyter", "jupyterlab", "IPython", "ipywidgets", "nbclient", "nbformat", "papermill", "playwright")
"""Packages that a machine with a GPU may lack; a few others are carried there."""
SAMPLE = """
import pytest

pytestmark = pytest.mark.cuda


def test_passes(tmp_path, capfd):
    print("printed")
    assert tmp_path.is_dir()


def test_fails():
    raise ValueError("too many\\nlines")


def test_does_not_hold():
    assert [1] == [2]


def test_is_skipped():
    pytest.skip("no such GPU")


@pytest.fixture
def begun():
    raise OSError("no place")


@pytest.fixture
def ended():
    yield
    raise RuntimeError("left open")


def test_does_not_begin(begun):
    pass


def test_does_not_end(ended):
    pass


def test_was_finished():
    raise AssertionError("again")


@pytest.mark.cuda(seconds=1000)
def test_takes_long():
    raise AssertionError("there is no time")
"""


def reports(*command, folder=ROOT):
    """Run Python with the repository on its path, and return the objects that it reports: all it prints."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "RRN_ANY_PYTHON": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, *command]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_all_of_them_pass_in_the_form_of_a_cpu_and_leave_nothing_behind(light_copy):
    found, printed = reports("benchmarks/gpu_tests.py", "--small", folder=light_copy)
    left = git(light_copy, "status", "--porcelain", "--ignored").splitlines()
    assert [line for line in left if not line.endswith("/__pycache__/")] == []
    *cases, last = found
    assert [case for case in cases if set(case) != {"finished", "seconds"}] == [], printed[-5000:]
    names = [case["finished"] for case in cases]
    assert len(names) == len(set(names)) > 50
    assert {Path(name.partition("::")[0]).name for name in names} == set(gpu_tests.FILES)
    row = last["row"]
    assert (row["case"], row["measure"], row["unit"]) == ("tests", "passed", "count")
    assert row["minimum"] == row["median"] == len(names) and row["rounds"] == 1


def test_every_file_with_the_mark_is_run():
    others = [path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    marked = {path.name for path in others if re.search(r"^pytestmark = pytest.mark.cuda", path.read_text(), re.M)}
    assert marked == set(gpu_tests.FILES) and len(gpu_tests.FILES) == len(marked)


def test_what_does_not_pass_is_reported_with_its_reason(tmp_path):
    folder = tmp_path / "tests" / "gpu"
    folder.mkdir(parents=True)
    (folder / "test_sample.py").write_text(SAMPLE)
    (folder / "test_broken.py").write_text("import no_such_module\n")
    program = f"""
import time, torch, gpu_tests
from pathlib import Path
from gpu_part import Part

gpu_tests.ROOT, gpu_tests.FILES = Path({str(tmp_path)!r}), ("test_sample.py", "test_broken.py")
finished = frozenset(["tests/gpu/test_sample.py::test_was_finished", "another part"])
gpu_tests.run(Part(True, torch.device("cpu"), time.monotonic() + 900, finished, None))
"""
    found, _ = reports("-c", program, folder=tmp_path)
    told = {}
    for report in found:
        (kind,) = {"finished", "failed", "skipped", "row"} & set(report)
        told[str(report[kind]).partition("::")[2] or kind] = (kind, report.get("why"))
    assert told.pop("failed")[1] == "ModuleNotFoundError: No module named 'no_such_module'"
    assert told == {
        "test_passes": ("finished", None),
        "test_fails": ("failed", "ValueError: too many"),
        "test_does_not_hold": ("failed", "assert [1] == [2]"),
        "test_is_skipped": ("skipped", "no such GPU"),
        "test_does_not_begin": ("failed", "OSError: no place"),
        "test_does_not_end": ("failed", "RuntimeError: left open"),
        "test_takes_long": ("skipped", "out of time"),
        "row": ("row", None),
    }
    assert found[-1]["row"]["median"] == 2, "one passed, one had passed before"


def test_without_time_none_begins():
    done = "tests/gpu/test_gpu_step.py::test_waiting_would_be_found"
    found, _ = reports("benchmarks/gpu_tests.py", "--small", "--seconds=0", f"--finished={json.dumps([done])}")
    *cases, last = found
    assert {(*case, case["why"]) for case in cases} == {("skipped", "why", "out of time")}
    assert len(cases) > 50 and done not in {case["skipped"] for case in cases} and last["row"]["median"] == 1


def test_they_import_nothing_that_a_machine_with_a_gpu_may_lack():
    """In a process that does not see those packages."""
    program = f"""
import sys


class Others:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, *where):
        return None if name.partition(".")[0] in {LACKING!r} else self.finder.find_spec(name, *where)


sys.meta_path[:] = [Others(finder) for finder in sys.meta_path]
sys.path[:0] = ["tests", "tests/helpers", "tests/gpu"]
import importlib, json

for name in ["conftest", *{gpu_tests.FILES!r}]:
    importlib.import_module(name.removesuffix(".py"))
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""
    (found,), _ = reports("-c", program)
    assert {"rrn", "tiny", "small", "gpus", "torch", "test_gpu_compiled"} <= set(found)
    assert not {"dvc", "papermill", "nbformat", "ipywidgets", "IPython"} & set(found)
    for package in ("dvc", "papermill"):
        with pytest.raises(AssertionError, match=rf"No module named '{package}'"):
            reports("-c", program.replace("import importlib, json", f"import importlib, json, {package}"))


def test_without_a_gpu_they_say_so_and_are_skipped():
    own = {name: value for name, value in os.environ.items() if name not in ("RRN_TEST_DEVICE", "PYTEST_ADDOPTS")}
    own |= {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", "tests/gpu/test_gpu_compiled.py"]
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=False)
    assert re.search(r"SKIPPED .*: torch sees no GPU here; RRN_TEST_DEVICE=cpu runs this on the CPU", done.stdout)
    assert done.returncode == 0 and "1 skipped" in done.stdout
