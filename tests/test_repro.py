import pandas as pd
import pytest
from conftest import git

from rrn import config, repro


def table(**scores):
    rows = [{"name": "n", "partition": "1of16", "method": k, "miou_mean": v} for k, v in scores.items()]
    return pd.DataFrame(rows)


@pytest.fixture
def results(tmp_path):
    """A repository whose committed results/n/ablation.csv can be compared with a changed one."""
    folder = tmp_path / "results" / "n"
    folder.mkdir(parents=True)
    table(rrn=50.0, cps=40.0).to_csv(folder / "ablation.csv", index=False)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "results")
    return folder / "ablation.csv"


@pytest.mark.parametrize(
    ("scores", "status", "verdict"),
    [
        ({"rrn": 50.5, "cps": 40.0}, 0, "within 1.0 points"),
        ({"rrn": 48.0, "cps": 40.0}, 1, "NOT within 1.0 points"),
        ({"rrn": 50.0}, 1, "NOT within 1.0 points"),
        ({"rrn": 50.0, "cps": 40.0, "new": 3.0}, 1, "NOT within 1.0 points"),
    ],
)
def test_deviations_are_stated(results, capsys, scores, status, verdict):
    table(**scores).to_csv(results, index=False)
    assert repro.compare(results.parents[2], "n", 1.0) == status
    out = capsys.readouterr().out
    assert verdict in out
    assert f"{scores['rrn'] - 50:.1f}" in out


def test_results_that_git_does_not_hold_cannot_be_compared(results, capsys):
    assert repro.compare(results.parents[2], "other", 1.0) == 1
    assert "git has no results/other/ablation.csv" in capsys.readouterr().err


def test_runs_that_are_no_longer_listed_are_set_aside(tmp_path):
    settings = config.load(root=None)
    runs = tmp_path / "runs" / settings.name
    seed, method = settings.ablation.seeds[0], settings.ablation.methods[0]
    partition = settings.ablation.partitions[0]
    kept = [f"train/{partition}-{method}-{seed}", f"warmup/{partition}-{seed}", f"prepare/{partition}"]
    stale = ["prepare/1of3", "warmup/1of3-0", f"evaluate/{partition}-gone-{seed}"]
    for folder in (*kept, *stale, "ablation"):
        (runs / folder).mkdir(parents=True)
    (runs / "aside" / stale[0]).mkdir(parents=True)
    moved = repro.set_aside(tmp_path, settings)
    assert [str(path.relative_to(runs)) for path in moved] == stale
    assert all((runs / folder).is_dir() for folder in (*kept, "ablation"))
    assert all((runs / "aside" / folder).is_dir() for folder in stale)
    assert repro.set_aside(tmp_path, settings) == []


def test_arguments_go_on_to_dvc_after_the_data_is_there(monkeypatch):
    calls = []
    monkeypatch.setattr(repro, "dvc", lambda root, *arguments: calls.append(arguments) or 0)
    monkeypatch.setattr(repro, "set_aside", lambda root, settings: [])
    assert repro.main(["train@1of16-rrn-0", "--force"]) == 0
    assert calls == [("pull", "data.dvc"), ("repro", "train@1of16-rrn-0", "--force")]


def test_a_failing_pull_stops_everything_and_says_what_to_do(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(repro, "dvc", lambda root, *arguments: calls.append(arguments) or 3)
    monkeypatch.setattr(repro, "set_aside", lambda root, settings: [])
    assert repro.main([]) == 3
    assert len(calls) == 1
    assert "`dvc checkout --force data.dvc` brings them back" in capsys.readouterr().err
