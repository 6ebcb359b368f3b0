"""`dvc repro` twice at once, and asked to stop by SIGTERM: what a real dvc does with a stage that takes its time."""

import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
from conftest import PATIENCE, until

STAGE = """
import signal, sys, time
from pathlib import Path

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell lets programs in the background ignore
Path("out").write_text("half")
Path("began").touch()
try:
    while not Path("go").exists():
        time.sleep(0.02)
except KeyboardInterrupt:
    Path("saved").touch()
    sys.exit(130)
Path("out").write_text("whole")
"""
FRONT = """
import sys
from pathlib import Path
from rrn.pipeline import repro

try:
    with repro.stoppable():
        sys.exit(repro.dvc(Path("."), "repro"))
except KeyboardInterrupt:
    sys.exit(130)
"""
DVC = [sys.executable, "-m", "dvc"]


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    """A pipeline of one stage, which waits for a file `go`."""
    monkeypatch.chdir(tmp_path)
    subprocess.run([*DVC, "init", "--quiet", "--no-scm"], check=True)
    (tmp_path / "slow.py").write_text(STAGE)
    stage = f"stages:\n  slow:\n    cmd: {sys.executable} slow.py\n    deps: [slow.py]\n    outs: [out]\n"
    (tmp_path / "dvc.yaml").write_text(stage)
    return tmp_path


@pytest.fixture
def start(pipeline):
    """Start a command whose stage begins; whatever happens, it ends with the test."""
    started = []

    def begin(*command):
        quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
        started.append(subprocess.Popen(command, **quiet))
        until(lambda: (pipeline / "began").exists() or started[-1].poll() is not None)
        assert started[-1].poll() is None
        return started[-1]

    yield begin
    for process in started:
        with suppress(ProcessLookupError):  # its stage may outlive it
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_the_second_of_two_is_refused_and_disturbs_nothing(pipeline, start):
    first = start(*DVC, "repro")
    second = subprocess.run([*DVC, "repro"], capture_output=True, text=True, check=False)
    assert second.returncode == 255
    assert "is busy, it is being blocked by" in second.stderr and f"(PID {first.pid})" in second.stderr
    assert (pipeline / "out").read_text() == "half"
    (pipeline / "go").touch()
    assert first.wait(PATIENCE) == 0
    assert (pipeline / "out").read_text() == "whole"


def test_sigterm_to_the_front_door_lets_the_stage_save_and_dvc_end(pipeline, start):
    front = start(sys.executable, "-c", FRONT)
    os.kill(front.pid, signal.SIGTERM)
    said, _ = front.communicate(timeout=PATIENCE)
    assert front.returncode == 130
    assert (pipeline / "saved").exists()
    assert "failed to reproduce 'slow'" in said  # by dvc, which has noticed
    (pipeline / "go").touch()
    assert subprocess.run([*DVC, "repro", "--quiet"], check=False).returncode == 0  # nobody holds its locks
    assert (pipeline / "out").read_text() == "whole"
