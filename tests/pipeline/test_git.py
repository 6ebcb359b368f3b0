"""What git holds, and one true sentence where it does not say."""

import os
import shutil

import pandas as pd
import pytest
from conftest import git

from rrn.pipeline import git as held
from rrn.pipeline import repro

REFUSAL = """fatal: detected dubious ownership in repository at '/mono'
To add an exception for this directory, call:

\tgit config --global --add safe.directory /mono"""


@pytest.fixture
def repository(tmp_path):
    """A repository as a folder of another one."""
    folder = tmp_path / "mono" / "rrn"
    (folder / "results" / "n").mkdir(parents=True)
    rows = [{"name": "n", "partition": "1of16", "method": "rrn", "miou_mean": 50.0}]
    pd.DataFrame(rows).to_csv(folder / "results/n/ablation.csv", index=False)
    git(folder.parent, "init", "--quiet")
    git(folder.parent, "add", "--all")
    git(folder.parent, "commit", "--quiet", "--message", "all")
    return folder


@pytest.fixture
def no_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def refusing(monkeypatch, tmp_path):
    """A git that refuses the repository, as it does where another user owns it."""
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{REFUSAL}\nEND\nexit 128\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


def test_files_are_those_of_this_folder_wherever_it_lies(repository, capsys):
    assert held.committed(repository, "results/n/ablation.csv").startswith("name,partition,")
    assert repro.compare(repository, "n", 2.0) == 0
    assert "within 2.0 points of what git holds" in capsys.readouterr().out


def test_without_a_git_program_compare_says_so_at_once(repository, no_git, capsys):
    assert repro.compare(repository, "n", 2.0) == 1
    assert capsys.readouterr().err == "error: git has no results/n/ablation.csv: there is no program `git`\n"


def test_a_git_program_that_may_not_be_started_is_none(repository, no_git, tmp_path):
    (tmp_path / "git").write_text("no program")
    with pytest.raises(held.NotHeldError, match="there is no program `git`"):
        held.committed(repository, "results/n/ablation.csv")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: shutil.rmtree(folder.parent / ".git"), "{folder} lies in no git repository"),
        (lambda folder: shutil.rmtree(folder.parent / ".git/refs/heads"), "it was never committed"),
        (lambda folder: git(folder, "mv", "results/n", "results/m"), None),
    ],
)
def test_what_git_does_not_hold_is_said_with_its_cause(repository, change, said):
    change(repository)
    if said is None:  # the last commit counts
        assert held.committed(repository, "results/n/ablation.csv")
        git(repository, "commit", "--quiet", "--message", "moved")
    said = (said or "it was never committed").format(folder=repository)
    with pytest.raises(held.NotHeldError) as raised:
        held.committed(repository, "results/n/ablation.csv")
    assert str(raised.value) == f"git has no results/n/ablation.csv: {said}"


def test_a_repository_of_another_owner_is_named_with_the_command_that_allows_it(repository, refusing, capsys):
    sentence = f"git refuses {repository}, which another user owns: `git config --global --add safe.directory /mono` "
    assert repro.compare(repository, "n", 2.0) == 1
    assert capsys.readouterr().err == f"error: {sentence}allows it\n"
    with pytest.raises(held.RefusedError):
        held.committed(repository, "results/n/ablation.csv")


def test_any_other_trouble_of_git_is_told_in_its_words(repository):
    (repository.parent / ".git" / "config").write_text("no configuration\n")
    with pytest.raises(held.RefusedError, match=r"^git does not show results/n/ablation.csv: fatal: bad config line 1"):
        held.committed(repository, "results/n/ablation.csv")
