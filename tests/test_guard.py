"""A process that dies stops the others, and the reader learns why: processes of one machine and of two."""

import os
import re
import time

import agents
import pytest
import torch.distributed as dist
from conftest import PATIENCE, until

from rrn.training import guard, launch

MEMBER = """
import os, signal, sys, time
import torch
from torch.distributed.elastic.multiprocessing.errors import record
from rrn.runtime import distributed
from rrn.training import guard

guard.BEAT = 0.5

def read_label():
    raise ValueError("label 77 is no class")

@record
def main(way, victim):
    with guard.guarded():
        distributed.start(torch.device("cpu"))
        me = os.environ.get("SECOND", str(distributed.rank()))
        sys.stdout.write(f"pid {os.getpid()} torchrun {os.getppid()}\\n")
        sys.stdout.flush()
        for step in range(1200):
            distributed.total(torch.tensor(1.0))
            time.sleep(0.02)
            if step == 5 and me == victim:
                read_label() if way == "raise" else os.kill(os.getpid(), getattr(signal, way))

main(*sys.argv[1:])
"""
WAYS = ("error", "killed")


@pytest.fixture
def member(tmp_path, monkeypatch):
    """A module that adds numbers with the other processes until one of them fails."""
    (tmp_path / "member.py").write_text(MEMBER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("RRN_LAUNCH", raising=False)
    return "member"


def pids(text):
    """Return the processes that printed, and the agents that started them."""
    return [int(number) for pair in re.findall(r"pid (\d+) torchrun (\d+)", text) for number in pair]


def failure(*arguments, **options):
    """Start processes one of which fails; return what the reader of the error sees, and who took part."""
    lines = []
    with pytest.raises(launch.LaunchError) as caught:
        for line in launch.launch(*arguments, **options):
            lines.append(line)
    return str(caught.value), pids("\n".join(lines))


ERROR = 'raise ValueError("label 77 is no class")\n'
PREFIX = r"(\[rank\d\]:)? *"
TRACEBACK = re.compile(rf"in read_label\n{PREFIX}{re.escape(ERROR)}{PREFIX}ValueError: label 77 is no class")


@pytest.mark.parametrize("way, account", [("raise", TRACEBACK), ("SIGKILL", r"rank +: 1 .*\n.*\(SIGKILL\)")], ids=WAYS)
def test_one_of_two_processes_of_a_machine_fails(member, way, account):
    read, processes = failure(member, way, "1", nproc=2)
    assert read.startswith("member exited with status 1") and re.search(account, read), read
    assert len(processes) == 4 and agents.gone(processes)


@pytest.mark.parametrize(
    "way, account, own",
    [
        ("raise", TRACEBACK, TRACEBACK),
        (
            "SIGKILL",
            "process [01] (is gone|lost the store)|torchrun that held the store",
            r"\(SIGKILL\)",
        ),
    ],
    ids=WAYS,
)
def test_the_process_of_the_second_machine_fails(member, tmp_path, monkeypatch, way, account, own):
    command = agents.agent(2)
    monkeypatch.setenv("RRN_LAUNCH", " ".join(command))
    with agents.by_hand([*command, "-m", member, way, "second"], tmp_path, SECOND="second") as second:
        read, processes = failure(member, way, "second")
        printed = second.communicate(timeout=PATIENCE)[0]
    assert re.search(account, read), read
    assert second.returncode == 1 and re.search(own, printed), printed
    processes += pids(printed)
    assert len(processes) == 4 and agents.gone(processes)


@pytest.fixture
def quick(monkeypatch):
    """Beats of milliseconds, and a list of what processes would say when they leave."""
    said = []
    monkeypatch.setattr(guard, "BEAT", 0.01)
    monkeypatch.setattr(guard, "_leave", said.append)
    return said


def left(said):
    """Wait for the first words of a process that leaves."""
    return until(lambda: said)[0]


def test_a_process_that_beats_no_more_is_lost(quick):
    store = dist.HashStore()
    alive, frozen = (guard.Guard(store, rank, 2) for rank in range(2))
    alive.start()
    frozen.start()
    time.sleep(20 * guard.LOST * guard.BEAT / 10)
    assert not quick
    frozen.stop()
    assert re.match(r"process 1 gave no sign of life for 0 s: it or its machine has stopped", left(quick))
    alive.stop()


def test_a_process_that_never_came_is_missed_later(quick, monkeypatch):
    monkeypatch.setattr(guard, "ABSENT", 2 * guard.LOST)
    alone = guard.Guard(dist.HashStore(), 0, 2)
    alone.start()
    assert re.match(r"process 1 did not come within 0 s", left(quick))
    assert alone._silent[1] >= guard.ABSENT
    alone.stop()


def test_the_first_account_is_everyones(quick, monkeypatch):
    monkeypatch.setattr(guard, "ABSENT", 10**9)  # it is told, not missed
    store = dist.HashStore()
    one, two = (guard.Guard(store, rank, 2) for rank in range(2))
    assert one.failed("disk full") == two.failed("connection closed") == "disk full"
    assert one.lost() == [1]
    two.start()
    assert left(quick) == "disk full"
    assert one.lost() == []
    two.stop()


def test_who_does_not_hear_of_a_failure_is_lost(quick):
    one = guard.Guard(dist.HashStore(), 0, 3)
    one.failed("connection closed")
    one.store.set("heard/2", "")
    assert one.lost() == [1]


def test_a_process_whose_torchrun_was_killed_leaves(quick, monkeypatch):
    one = guard.Guard(dist.HashStore(), 0, 2)
    monkeypatch.setattr(os, "getppid", lambda: 1)
    one.start()
    assert left(quick) == "the torchrun of process 0 was killed"
    one.stop()


def test_a_process_leaves_when_the_store_is_out_of_reach(quick):
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    client = dist.TCPStore("127.0.0.1", server.port, is_master=False, wait_for_workers=False)
    one = guard.Guard(client, 0, 2)
    one.start()
    del server
    assert re.match(r"process 0 lost the store of torchrun \(Dist.*Error: .*\): the torchrun that held it", left(quick))
    one.stop()


def test_one_process_is_not_watched(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ValueError, match="mine"), guard.guarded():
        raise ValueError("mine")
