"""Two torchrun agents with one process each, that meet as those of two machines would, against one agent with two."""

import json

import agents
import pandas as pd
import pytest
import tiny
from conftest import PATIENCE

from rrn import train

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
    for variable in ("RRN_LAUNCH", "RRN_RESUME", "RRN_SCRATCH"):
        monkeypatch.delenv(variable, raising=False)


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
    arguments = ["--stage", "train", "--partition", "1of4", "--method", "rrn", "--seed", "0", "--out", str(out)]
    with agents.by_hand([*command, "-m", "rrn.train", *arguments], repository) as second:
        found = list(train.run(*KEY, out))
        printed = second.communicate(timeout=PATIENCE)[0]
    assert second.returncode == 0, printed
    assert found == rows
    assert [json.loads(line) for line in printed.splitlines() if line.startswith("{")] == rows
    names = {path.name for path in expected.iterdir()}
    assert names == {path.name for path in out.iterdir()} >= {"segmenters.safetensors", "history.csv", "run.json"}
    for name in names:
        assert (out / name).read_bytes() == (expected / name).read_bytes(), name
