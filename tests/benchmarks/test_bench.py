"""The benchmarks run, in their quick form, and what they write says of the machine what it should and no more."""

import importlib
import math
import os
import re
import socket
from unittest.mock import patch

import pandas as pd
import pytest
import torch
from conftest import ROOT, python

gpu, measuring, memory, rivals, run, training = (
    importlib.import_module(name)
    for name in ("gpu", "measuring", "memory", "rivals", "run", "training")
)  # fmt: skip

UNITS = {"s", "images/s", "MB", "ratio", "share", "count"}
MACHINE = ["processor", "cores", "memory_gb", "kernels", "python", "torch", "date"]
COLUMNS = ["benchmark", "case", "measure", "unit", "median", "lower", "upper", "minimum", "rounds", *MACHINE]
MEASURED_ONCE = {"evaluation_memory", "growth", "idle", "shares"}
"""Gone; their rows are history, and docs/performance.md names the commit that can repeat them."""
BY_COMMAND = "sliding"
"""The one that is run as a user does."""


@pytest.fixture(autouse=True)
def threads():
    """Give torch back the threads it had."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def private(text):
    """Return what looks like a path or names this machine."""
    names = {socket.gethostname(), socket.getfqdn()} - {"localhost"}
    return re.findall(r"(?:^|[\s\",])(/\w[\w./-]*)", text) + [name for name in names if name in text]


def check(rows):
    assert rows
    assert len({(row.case, row.measure) for row in rows}) == len(rows)
    for row in rows:
        assert row.unit in UNITS
        assert all(math.isfinite(value) for value in (row.minimum, row.lower, row.median, row.upper))
        assert row.minimum <= row.lower <= row.median <= row.upper and row.rounds >= 1
        difference = "beyond" in row.measure  # of two processes' memory: that of so few ids is lost in it
        assert row.minimum > 0 or difference or row.unit in ("share", "count")
        assert not private(f"{row.case} {row.measure}")


def test_benchmarks_are_found():
    assert {"rivals", "memory", "verify", "loader", "scaling", "sliding"} <= set(run.BENCHMARKS)


@pytest.mark.parametrize("name", [name for name in run.BENCHMARKS if name != BY_COMMAND])
def test_quick_form(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    check(run.measured(name, quick=True))


def test_the_command_writes_a_file(tmp_path):
    done = python(ROOT, "benchmarks/run.py", BY_COMMAND, "--quick", "--out", tmp_path / "results.csv")
    assert done.returncode == 0, done.stderr
    written = pd.read_csv(tmp_path / "results.csv")
    assert list(written) == COLUMNS and set(written["benchmark"]) == {BY_COMMAND}
    assert not private((tmp_path / "results.csv").read_text())
    assert written["case"][0] in done.stdout
    check([measuring.Row(*values) for values in written.loc[:, "case":"rounds"].itertuples(index=False)])


def test_results_of_the_repository():
    results = pd.read_csv(run.RESULTS)
    assert list(results) == COLUMNS and not results.isna().any(axis=None)
    assert set(results["benchmark"]) <= {*run.BENCHMARKS, *(f"gpu_{part}" for part in gpu.PARTS), *MEASURED_ONCE}
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert all(re.search(rf"easured at commit [0-9a-f]{{7}} \(`{name}`\)", page) for name in MEASURED_ONCE)
    assert not private(run.RESULTS.read_text())


def test_private_finds_paths_and_hosts():
    assert private(f"a,{ROOT}/x") and private(f"on {socket.gethostname()}")
    assert not private("images/s, 1/16")


def test_a_run_of_some_replaces_their_rows_only(monkeypatch, tmp_path, capsys):
    out = tmp_path / "results.csv"
    monkeypatch.setattr(run, "BENCHMARKS", ["a", "b"])
    value = {"a": 1.0, "b": 2.0}
    monkeypatch.setattr(run, "apart", lambda function, name, quick: [measuring.row(name, "time", "s", [value[name]])])
    run.main(["--out", str(out)])
    value |= {"a": 3.0, "b": 4.0}
    run.main(["a", "--out", str(out)])
    written = pd.read_csv(out)
    assert written[["benchmark", "median"]].to_numpy().tolist() == [["a", 3.0], ["b", 2.0]]
    assert "==== a" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["rival"], "no benchmark rival; there are "), (["--quick"], "--quick measures nothing that belongs into")],
)
def test_what_the_command_refuses(arguments, message, capsys):
    with pytest.raises(SystemExit):
        run.main(arguments)
    assert message in capsys.readouterr().err


def test_rivals_take_turns():
    calls = []
    cases = {name: lambda name=name: calls.append(name) for name in "abc"}
    seconds = measuring.alternating(cases, rounds=3, warmup=1)
    assert "".join(calls) == "abc" + "cba" + "abc" + "cba"
    assert list(seconds) == ["a", "b", "c"] and all(len(taken) == 3 and min(taken) > 0 for taken in seconds.values())


def test_ratios_are_paired():
    """A round in which everything was slow changes no ratio."""
    found = measuring.ratio("fast", "times slow", [1.0, 10.0, 2.0], [2.0, 20.0, 4.0])
    assert (found.median, found.lower, found.upper, found.minimum, found.rounds) == (0.5, 0.5, 0.5, 0.5, 3)
    spread = measuring.row("a", "time", "s", [4.0, 1.0, 3.0, 2.0, 5.0])
    assert (spread.minimum, spread.lower, spread.median, spread.upper, spread.rounds) == (1, 2, 3, 4, 5)


def test_apart_is_another_process():
    with patch.dict(os.environ, {"RRN_APART": "1"}):
        assert measuring.apart(os.getpid) != os.getpid()
        assert measuring.apart(os.getenv, "RRN_APART") == "1"
    assert "RRN_APART" not in os.environ


def forty_megabytes():
    return memory.peak_of(lambda: torch.ones(10_000_000).sum(), 1)


def test_peak_counts_what_is_gone_again():
    """In a process of its own, as memory that this one has freed before would serve again."""
    assert 39 < measuring.apart(forty_megabytes) < 60


def test_settings_lie_on_params_yaml(monkeypatch):
    monkeypatch.chdir(ROOT)
    _, changes = rivals.OURS["rrn, released trunk, adversarial"]
    known = training.settings("rrn", training.FULL, changes)
    assert known.augment.crop == 256 and known.model.encoder == "tu-resnet50" and known.precision == "fp32"
    judge = known.method.discriminator
    assert (judge.objective, judge.feature_matching, judge.channels) == ("adversarial", 0.1, (64, 128, 256, 512))
    assert known.method.rho == "agreement"


def test_the_reference_begins_with_our_networks_and_batch(monkeypatch):
    monkeypatch.chdir(ROOT)
    known = training.settings("rrn", training.TINY)
    run_of_ours = training.without_data(known, 3)
    rival = importlib.import_module("reference_step").ReferenceStep(known, 3, 0)
    for ours, theirs in zip(run_of_ours.model.segmenters, rival.segmenters, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))
    first, second = (training.random_batch(known, 3) for _ in range(2))
    assert torch.equal(first.images, second.images) and torch.equal(first.labels, second.labels)
