"""One environment, two clones: the code of one never runs on the settings of the other without a word."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from tiny import repository


@pytest.fixture
def clones(tmp_path):
    """Two repositories with code of their own."""
    for name in ("first", "the second"):
        place = repository(tmp_path / name)
        (place / "notebooks").mkdir()
        shutil.copytree(ROOT / "rrn", place / "rrn", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "first", tmp_path / "the second"


SHOW = "import rrn.config as c; print(c.find_root()); print(c.load().name)"


def started(folder, path, *command):
    """Run this interpreter in a folder, with `path` as what is installed."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("below", ["notebooks", "notebooks/deep", "benchmarks"])
def test_code_of_another_clone_is_refused_and_both_are_named(clones, below):
    first, second = clones
    (second / below).mkdir(parents=True, exist_ok=True)
    for command in ("c.find_root()", "c.load()"):
        result = started(second / below, first, "-c", f"import rrn.config as c; {command}")
        assert result.returncode == 1
        assert (
            f"SettingsError: the code that runs is {first}/rrn, and the settings are those of {second}, which has "
            f"code of its own: run `pip install -e '{second}'` with this Python, {sys.executable}, and restart; "
            f"or start in the repository of {first}/rrn\n"
        ) in result.stderr


def test_a_program_of_ours_says_so_in_one_line(clones):
    first, second = clones
    result = started(second / "notebooks", first, "-m", "rrn.preset", "threads=2")
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: the code that runs is {first}/rrn") and result.stderr.count("\n") == 1


def test_code_of_an_installed_copy_is_refused_too(clones, tmp_path):
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (clones[0] / "rrn").rename(installed / "rrn")
    result = started(clones[1] / "notebooks", installed, "-c", SHOW)
    assert result.returncode == 1 and f"the code that runs is {installed}/rrn" in result.stderr


def test_the_code_of_the_same_clone_runs_anywhere_in_it(clones, tmp_path):
    first, second = clones
    (tmp_path / "link").symlink_to(second)
    for folder, path in ((second, first), (second / "notebooks", second), (tmp_path / "link/notebooks", second)):
        result = started(folder, path, "-c", SHOW)
        assert result.stdout.splitlines()[:1] == [str(second)], result.stderr
    result = started(second / "notebooks", tmp_path / "link", "-c", SHOW)
    assert result.returncode == 0, result.stderr


def test_a_root_that_is_named_may_be_another_and_so_may_one_without_code(clones, tmp_path):
    first, second = clones
    named = f"from pathlib import Path; import rrn.config as c; print(c.load(root=c.find_root(Path({str(second)!r}))))"
    assert started(first, first, "-c", named).returncode == 0
    bare = repository(tmp_path / "bare")
    assert started(bare, first, "-c", SHOW).returncode == 0
