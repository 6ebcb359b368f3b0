"""A list of trials: each is trained once, in the order of the list, and a second call finishes what is missing."""

import importlib
import sys

import pandas as pd
import pytest
import tiny
from conftest import ROOT

from rrn import config
from rrn.runtime import locking

trials = importlib.import_module("trials")

OWN = {"method": trials.OWN}
SHORT = [
    ("rate 0.5", "supervised", OWN | {"optimizer": {"lr": 0.5, "head": 10.0}}),
    ("a ramp", "cps_cutmix", {"method": trials.OWN | {"lambda_u_ramp": 2}}),
]


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["trials.py", *words])
    trials.main()


def test_a_list_is_finished_where_it_stopped_and_keeps_its_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tiny.repository(tmp_path / "repository"))
    monkeypatch.setitem(trials.LISTS, "rates", (SHORT[1:], (0,)))
    call(monkeypatch, "rates")
    file = tmp_path / "repository" / "results" / "trials" / "rates.csv"
    first = pd.read_csv(file)
    monkeypatch.setitem(trials.LISTS, "rates", (SHORT, (0,)))
    call(monkeypatch, "rates", "--jobs", "2")
    both = pd.read_csv(file)
    assert list(both["trial"]) == ["rate 0.5", "a ramp"]
    pd.testing.assert_frame_equal(both.iloc[[1]].reset_index(drop=True), first)
    assert both["miou_mean"].between(0, 100).all()
    assert both["auroc_confidence"].between(0, 1).all()
    assert "a ramp" in capsys.readouterr().out


def test_trials_of_one_row_do_not_wait_for_each_other(tmp_path, monkeypatch):
    root = tiny.repository(tmp_path / "repository")
    monkeypatch.chdir(root)
    monkeypatch.setitem(trials.LISTS, "rates", (SHORT[:1], (0,)))
    busy = root / ".scratch" / "tiny-warmup-1of4-supervised-0"
    busy.mkdir(parents=True)
    with locking.held(busy / "lock", "another training of this row"):
        call(monkeypatch, "rates")
    assert len(pd.read_csv(root / "results" / "trials" / "rates.csv")) == 1


def test_lists_name_rows_and_settings_that_there_are():
    for name, (entries, _) in trials.LISTS.items():
        assert len({trial for trial, *_ in entries}) == len(entries), name
        for _, row, difference in entries:
            config.load(row, difference, ROOT)


def test_a_list_that_is_none_is_named(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        call(monkeypatch, "rate")
    assert "speed" in capsys.readouterr().err
