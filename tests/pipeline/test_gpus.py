"""Experiments side by side: each gets a device of its own. No GPU is needed: a device is what a variable names."""

import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import agents
import nbformat
import psutil
import pytest
from conftest import git, python, until

from rrn.pipeline import gpus, strip

CELL = """
import os, time
from pathlib import Path

log = Path(os.environ["LOG"])
(log / row).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
until = time.time() + 600
while len(list(log.iterdir())) < 2 and time.time() < until:
    time.sleep(0.1)
Path("seen.txt").write_text(" ".join(sorted(path.name for path in log.iterdir())))
"""
PIPELINE = """
stages:
  train:
    cmd: python -m rrn.stage train.ipynb out.ipynb row=${row}
    params: [row]
    deps: [train.ipynb]
    outs: [out.ipynb, seen.txt]
"""


@pytest.fixture(autouse=True)
def own_locks(tmp_path, monkeypatch):
    """Locks that no training of this machine holds."""
    monkeypatch.setattr(gpus.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("RRN_DEVICES", "3, GPU-7/1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")


def test_each_takes_a_device_of_its_own():
    with gpus.reserve() as first:
        assert first == os.environ["CUDA_VISIBLE_DEVICES"] == "3"
        with gpus.reserve() as second:
            assert second == os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-7/1"
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
        with gpus.reserve() as third:
            assert third == second
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,4"


def test_without_devices_nothing_is_taken(monkeypatch):
    monkeypatch.setenv("RRN_DEVICES", "")
    with gpus.reserve() as device:
        assert device is None and os.environ["CUDA_VISIBLE_DEVICES"] == "3,4"


def test_one_too_many_waits_and_a_killed_one_gives_its_device_back(monkeypatch, capfd):
    monkeypatch.setenv("RRN_DEVICES", "3")
    monkeypatch.setattr(gpus, "POLL", 0.01)
    held = "import time\nfrom rrn.pipeline import gpus\n"
    held += "with gpus.reserve() as d:\n    print(d, flush=True)\n    time.sleep(6000)"
    holder = subprocess.Popen([sys.executable, "-c", held], stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout.readline() == "3\n"
        waiting = subprocess.Popen(
            [sys.executable, "-c", held], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        with waiting:
            assert waiting.stderr.readline() == "waiting for a free device of RRN_DEVICES=3\n"
            holder.kill()
            assert waiting.stdout.readline() == "3\n"
            waiting.kill()


def workers(folder):
    """Return the queue workers of DVC that belong to a repository, and what waits for them."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        command = " ".join(process.info["cmdline"] or [])  # a worker renames itself
        if re.search(r"queue-worker|queue start", command) and (process.info["cwd"] or "").startswith(str(folder)):
            found.append(process.pid)
    return found


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """A tiny repository of DVC whose stage waits until another one has come, and a folder where they say so."""
    folder, log = tmp_path / "repository", tmp_path / "log"
    folder.mkdir()
    log.mkdir()
    monkeypatch.setenv("LOG", str(log))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    cells = [nbformat.v4.new_code_cell("row = ''", metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell(CELL)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=strip.METADATA), folder / "train.ipynb")
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "params.yaml").write_text("row: none\n")
    git(folder, "init", "--quiet")
    assert python(folder, "-m", "dvc", "init", "--quiet").returncode == 0
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "tiny")
    yield folder, log
    python(folder, "-m", "dvc", "queue", "stop", "--kill")
    for worker in (left := workers(folder)):
        with suppress(psutil.NoSuchProcess):
            psutil.Process(worker).kill()
    assert agents.gone(left)


def test_two_queued_experiments_get_two_devices_at_once(queue):
    folder, log = queue
    for row in ("cps", "rrn"):
        queued = python(folder, "-m", "dvc", "exp", "run", "--queue", "-S", f"row={row}")
        assert queued.returncode == 0, queued.stderr
    start = [sys.executable, "-m", "dvc", "queue", "start", "-j", "2"]  # its workers would keep a pipe open
    assert subprocess.run(start, cwd=folder, stdout=subprocess.DEVNULL, check=False).returncode == 0

    def ended():
        status = python(folder, "-m", "dvc", "queue", "status").stdout
        assert "Failed" not in status, status
        return status.count("Success") == 2

    until(ended)
    assert {path.name: path.read_text() for path in log.iterdir()}.keys() == {"cps", "rrn"}
    assert sorted(path.read_text() for path in log.iterdir()) == ["3", "GPU-7/1"]
