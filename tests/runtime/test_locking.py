"""One output, one process that writes it."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest

from rrn.runtime import locking


def test_a_run_that_is_over_leaves_no_lock(tmp_path):
    (tmp_path / "dvc.yaml").touch()
    with locking.exclusive(tmp_path / "runs" / "a" / "b.ipynb"):
        assert len(list((tmp_path / ".scratch").glob("*.lock"))) == 1
    assert not list((tmp_path / ".scratch").iterdir())
    with pytest.raises(ZeroDivisionError), locking.exclusive(tmp_path / "runs" / "a" / "b.ipynb"):
        raise ZeroDivisionError
    assert not list((tmp_path / ".scratch").iterdir())
    assert not (tmp_path / "runs").exists()


def test_other_outputs_and_other_copies_of_a_repository_run_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setenv("RRN_SCRATCH", str(tmp_path / "scratch"))
    copies = [tmp_path / "here", tmp_path / "there"]
    outputs = [copy / "runs" / key / "b.ipynb" for copy in copies for key in "ab"]
    with ExitStack() as stack:
        for output in outputs:
            stack.enter_context(locking.exclusive(output))
        assert len(list((tmp_path / "scratch").iterdir())) == len(outputs)
        with pytest.raises(locking.LockedError), locking.exclusive(copies[0] / "runs" / "a" / ".." / "a" / "b.ipynb"):
            pass


def test_the_lock_of_a_killed_run_is_taken_over(tmp_path):
    held = "import sys, time\nfrom pathlib import Path\nfrom rrn.runtime import locking\n"
    held += "with locking.exclusive(Path(sys.argv[1])):\n    print(flush=True)\n    time.sleep(6000)"
    output = tmp_path / "b.ipynb"
    with subprocess.Popen([sys.executable, "-c", held, output], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline()
        told = (
            rf"b.ipynb is being written by another process, pid {holder.pid} on \S+ since .* \(python\S* -c 'import sys"
        )
        with pytest.raises(locking.LockedError, match=told), locking.exclusive(output):
            pass
        holder.kill()
    (lock,) = tmp_path.glob("*.lock")
    with locking.exclusive(output):
        assert lock.read_text().startswith(f"pid {os.getpid()} ")
    assert not lock.exists()


def test_a_second_one_that_has_patience_waits(tmp_path):
    order, begun = [], threading.Event()

    def first():
        with locking.exclusive(tmp_path / "a.txt"):
            begun.set()
            time.sleep(0.3)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    begun.wait()
    with locking.exclusive(tmp_path / "a.txt", patience=-1):
        order.append("second")
    thread.join()
    assert order == ["first", "second"] and not list(tmp_path.iterdir())


def test_a_lock_whose_holder_has_just_ended_is_taken_anew(tmp_path, monkeypatch):
    output, take = tmp_path / "b.ipynb", fcntl.flock

    def late(file, how):
        monkeypatch.setattr(fcntl, "flock", take)
        (lock,) = tmp_path.glob("*.lock")
        lock.unlink()  # the former holder did, after this one had opened it
        take(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with locking.exclusive(output), pytest.raises(locking.LockedError), locking.exclusive(output):
        pass


def test_a_file_system_without_locks_is_told_and_none_of_another_kind_is_taken(tmp_path, monkeypatch):
    def without(file, how):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", without)
    with pytest.raises(OSError, match="Function not implemented"), locking.exclusive(tmp_path / "b.ipynb"):
        pass
