"""Trainings of two processes on the CPU (gloo): of one torchrun, and of two that meet as those of two machines would.

A process that dies, or stands still, ends the training: torchrun and torch's own timeout see to that.
"""

import json
import re
import signal

import agents
import pandas as pd
import psutil
import pytest
import tiny
from conftest import PATIENCE

from rrn import train
from rrn.training import launch

TWO = {"nproc": 2, "batch": {"labeled": 4, "unlabeled": 4}, "train": {"steps": 3}, "log": {"evaluate": 2}}
KEY = ("train", "1of4", "rrn", 0)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A tiny repository for two processes with a finished warmup."""
    folder = tiny.repository(tmp_path_factory.mktemp("rendezvous") / "repository", TWO)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("RRN_LAUNCH", raising=False)
        tiny.warm_up(folder, nproc=1)
    return folder


@pytest.fixture(autouse=True)
def inside(repository, monkeypatch):
    monkeypatch.chdir(repository)
    for variable in ("RRN_LAUNCH", "RRN_RESUME", "RRN_SCRATCH", "RRN_TIMEOUT"):
        monkeypatch.delenv(variable, raising=False)


def by_hand(command, repository, out, **environment):
    """Start what a user starts on the second machine."""
    arguments = ["--stage", "train", "--partition", "1of4", "--method", "rrn", "--seed", "0", "--out", str(out)]
    return agents.by_hand([*command, "-m", "rrn.train", *arguments], repository, **environment)


@pytest.fixture(scope="module")
def one_agent(repository):
    """The rows, and the folder, of a training of two processes of one machine, from the front door."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        patch.delenv("RRN_LAUNCH", raising=False)
        return list(train.run(*KEY, repository / "one")), repository / "one"


def test_two_processes_of_one_machine(one_agent):
    rows, out = one_agent
    assert [row["step"] for row in rows] == [1, 2, 3] and 0 <= rows[-1]["miou_mean"] <= 100
    assert pd.read_csv(out / "history.csv")["step"].tolist() == [1, 2, 3]


def test_two_agents_that_meet_train_the_same(one_agent, repository, monkeypatch):
    rows, expected = one_agent
    command, out = agents.agent(2), repository / "two"
    monkeypatch.setenv("RRN_LAUNCH", " ".join(command))
    with by_hand(command, repository, out) as second:
        found = list(train.run(*KEY, out))
        printed = second.communicate(timeout=PATIENCE)[0]
    assert second.returncode == 0, printed
    assert found == rows
    assert [json.loads(line) for line in printed.splitlines() if line.startswith("{")] == rows
    names = {path.name for path in expected.iterdir()}
    assert names == {path.name for path in out.iterdir()} >= {"segmenters.safetensors", "history.csv", "run.json"}
    for name in names:
        assert (out / name).read_bytes() == (expected / name).read_bytes(), name


ENDLESS = {"train": {"steps": 10**6}, "log": {"evaluate": 10**6}}


def workers(rows):
    """Wait for the first row of a training; return its processes by rank, and torchrun last."""
    next(rows)
    found = [child for child in psutil.Process().children(recursive=True) if child.is_running()]
    members = [child for child in found if "rrn.train" in child.cmdline() and "RANK" in child.environ()]
    agents_of_ours = [child for child in found if "torch.distributed.run" in child.cmdline() and child not in members]
    return [*sorted(members, key=lambda child: int(child.environ()["RANK"])), *agents_of_ours]


def account(rows):
    """Return what the reader of a training that fails is told."""
    with pytest.raises(launch.LaunchError) as caught:
        list(rows)
    return str(caught.value)


def test_a_process_that_is_killed_ends_the_training(repository, tmp_path):
    rows = train.run(*KEY, tmp_path / "out", ENDLESS)
    *members, torchrun = workers(rows)
    members[1].kill()
    told = account(rows)
    assert told.startswith("rrn.train exited with status 1; its last lines:\nrrn.train FAILED\n")
    assert re.search(r" +rank +: 1 .*\n.*\(SIGKILL\)", told), told  # first or not: whichever torchrun sees first
    assert told.endswith(launch.ADVICE) and "the same command then goes on from the last checkpoint" in told
    assert agents.gone([process.pid for process in (*members, torchrun)])


def test_a_process_that_stands_still_is_given_up_when_the_time_is_over(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("RRN_TIMEOUT", "30")
    rows = train.run(*KEY, tmp_path / "out", ENDLESS)
    *members, torchrun = workers(rows)
    members[1].send_signal(signal.SIGSTOP)
    assert agents.gone([members[0].pid])
    members[1].send_signal(signal.SIGCONT)  # torchrun would wait half a minute before it kills it
    told = account(rows)
    assert re.search("Timed out waiting 30000ms", told), told
    assert "set RRN_TIMEOUT to more seconds" in told
    assert agents.gone([process.pid for process in (*members, torchrun)])


def test_processes_whose_torchrun_is_killed_end_with_it(repository, tmp_path):
    rows = train.run(*KEY, tmp_path / "out", ENDLESS)
    *members, torchrun = workers(rows)
    torchrun.kill()
    assert account(rows).startswith("rrn.train exited with status -9")
    assert agents.gone([process.pid for process in members])


def test_a_process_that_is_killed_ends_the_training_of_the_other_machine(repository, tmp_path, monkeypatch):
    command, out = agents.agent(2), tmp_path / "out"
    monkeypatch.setenv("RRN_LAUNCH", " ".join(command))
    settings = repository / "params.yaml"
    before = settings.read_text()
    tiny.write_params(repository, tiny.params(TWO | ENDLESS))  # no command line of the second machine says so
    try:
        with by_hand(command, repository, out) as second:
            rows = train.run(*KEY, out)
            members = workers(rows)
            next(member for member in members if member.ppid() != second.pid and "RANK" in member.environ()).kill()
            told = account(rows)
            printed = second.communicate(timeout=PATIENCE)[0]
    finally:
        settings.write_text(before)
    assert "(SIGKILL)" in told and told.endswith(launch.ADVICE)
    assert second.returncode != 0, printed  # how it says so depends on whether the store of the first is gone by then
    assert agents.gone([process.pid for process in members])


def test_a_timeout_that_is_no_number_is_refused_before_the_processes_meet(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("RRN_TIMEOUT", "soon")
    told = account(train.run(*KEY, tmp_path / "out"))
    assert "SettingsError: RRN_TIMEOUT='soon' is no whole number of seconds from 1 to 1000000" in told, told
