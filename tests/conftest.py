import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 600
"""Seconds after which a test takes something for stuck; how long anything takes is no matter to any test."""

hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


def until(happened, pause=time.sleep):
    """Wait until `happened()` is true, and return it; a test in which it never is fails."""
    end = time.monotonic() + PATIENCE
    while not (found := happened()):
        assert time.monotonic() < end, "it did not happen"
        pause(0.02)
    return found


def git(folder, *arguments):
    command = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def python(folder, *arguments):
    """Run this interpreter in `folder`, whose own rrn is imported; stages that dvc starts find it, too."""
    command = [sys.executable, *map(str, arguments)]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return subprocess.run(
        command, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )


def copy_repository(target, without=()):
    """Copy what git tracks or would track, as it lies here, into a new repository."""
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if source.is_file() and not name.startswith(without):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name)
    git(target, "init", "--quiet")
    git(target, "add", "--all")
    git(target, "commit", "--quiet", "--message", "as in the working tree")
    return target


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def device():
    """A GPU, or the CPU where RRN_TEST_DEVICE=cpu wants it; a test that is marked `cuda` runs there."""
    import torch  # most test files need none

    wanted = os.environ.get("RRN_TEST_DEVICE", "cuda")
    assert wanted in ("cuda", "cpu"), f"RRN_TEST_DEVICE={wanted!r} is neither cuda nor cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here; RRN_TEST_DEVICE=cpu runs this on the CPU, so far as that can do it")
    return torch.device(wanted)


@pytest.fixture
def light_copy(tmp_path):
    """A copy of the repository without its data, results and code: those who run in it run the code of this one."""
    return copy_repository(tmp_path / "copy", without=("datastore/", "data/", "results/", "rrn/"))
