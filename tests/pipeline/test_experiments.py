"""The loop of docs/experiments.md, typed: try, compare, go back, keep, throw away; and what DVC shows in a clone."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, copy_repository, git, python

pytestmark = pytest.mark.chain

PAGE = (ROOT / "docs" / "experiments.md").read_text()
TINY = ("smoke", "warmup.steps=60", "train.steps=8", "optimizer.lr=0.05")
"""Long enough for a setting to change what is predicted."""

RUN = "results/per-run/smoke/1of16-rrn-0.json"
ROW = "results/smoke/metrics/1of16-rrn.json"


def section(title):
    """Return the commands of a section of the page."""
    (text,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return [line.strip() for line in text.splitlines() if re.match(r"    (dvc|git|python) ", line)]


def typed(folder, command):
    """Type a command in a shell in which the environment is active; return what it says."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    names = {f"GIT_{who}_{what}": "test@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, **names, "PATH": path, "COLUMNS": "400"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "failed to load" not in done.stderr, f"{command}: {done.stderr}"
    return done.stdout


def cells(text, *first):
    """Return the cells of the line of a table that begins with some of them."""
    (line,) = [
        words for line in text.splitlines() if (words := re.split(r"\s{2,}", line.strip()))[: len(first)] == [*first]
    ]
    return line


def state(folder):
    """Return what git sees changed, and whether DVC would run anything."""
    return git(folder, "status", "--porcelain"), typed(folder, "dvc status")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A finished tiny study, committed."""
    folder = copy_repository(tmp_path_factory.mktemp("loop") / "copy", without=("results/", "dvc.lock"))
    assert python(folder, "-m", "rrn.preset", *TINY).returncode == 0
    git(folder, "commit", "--quiet", "--all", "--message", "tiny")
    result = python(folder, "-m", "rrn.repro")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "results")
    return folder


@pytest.fixture(scope="module")
def clone(repository, tmp_path_factory):
    """A clone of it, in which nothing was run."""
    target = tmp_path_factory.mktemp("loop") / "clone"
    git(repository, "clone", "--quiet", str(repository), str(target))
    return target


def test_metrics_of_runs_and_rows_are_shown_in_a_fresh_clone(clone):
    shown = json.loads(typed(clone, "dvc metrics show --json"))[""]["data"]
    names = {f"results/per-run/smoke/1of16-{method}-0.json" for method in ("cps_cutmix", "rrn")}
    assert set(shown) == names | {f"results/smoke/metrics/1of16-{method}.json" for method in ("cps_cutmix", "rrn")}
    for found in shown.values():
        assert {"miou_mean", "miou_ensemble"} <= set(found["data"])
    assert cells(typed(clone, "dvc metrics show"), "Path") == ["Path", "miou_ensemble", "miou_mean"]


def test_every_plot_is_drawn_in_a_fresh_clone(clone):
    typed(clone, "dvc plots show")
    page = (clone / "dvc_plots" / "index.html").read_text()
    for title in ("mIoU on val", "supervised loss", "consistency loss", "risk-coverage", "IoU by class"):
        assert title in page
    assert "<DVC_METRIC_" not in page and page.count("vegaEmbed(") == 5
    assert git(clone, "status", "--porcelain") == "", "the page is none of git's business"


def test_the_loop_of_the_page(repository):
    before = json.loads((repository / RUN).read_text())
    table = json.loads((repository / ROW).read_text())
    for command in section("Try"):
        typed(repository, command)
    after = json.loads((repository / RUN).read_text())
    assert after["miou_mean"] != before["miou_mean"]
    assert json.loads((repository / ROW).read_text()) == table, "one run was asked for"

    said = {command.split()[1]: [] for command in section("Compare")}
    for command in section("Compare"):
        said[command.split()[1]].append(typed(repository, command))
    change = f"{after['miou_mean'] - before['miou_mean']:.5g}"
    difference = cells(said["exp"][0], RUN, "miou_mean")
    assert float(difference[-1]) == pytest.approx(float(change), abs=1e-3)
    assert cells(said["exp"][0], "params.yaml", "methods.rrn.rho")[2:4] == ["agreement", "votes"]
    header = cells(said["exp"][1], "Experiment")
    assert header[2:] == [f"{RUN}:miou_mean", f"{RUN}:miou_ensemble", "methods.rrn.rho"]
    tried = [line for line in said["exp"][1].splitlines() if "[votes]" in line]
    assert len(tried) == 1 and f"{after['miou_mean']:.5g}" in tried[0] and tried[0].split()[-1] == "votes"

    for command in section("Go back"):
        typed(repository, command)
    assert state(repository) == ("", "Data and pipelines are up to date.\n")
    assert json.loads((repository / RUN).read_text()) == before
    assert "votes" in typed(repository, "dvc exp list")

    for command in section("Keep it"):
        typed(repository, command)
    assert state(repository) == ("", "Data and pipelines are up to date.\n")
    assert json.loads((repository / RUN).read_text()) == after
    assert json.loads((repository / ROW).read_text())["miou_mean"] == after["miou_mean"], "the rest of the row was run"
    shown = git(repository, "show", "--stat", "--format=", "HEAD")
    assert "params.yaml" in shown and RUN in shown and ROW in shown
    lines = git(repository, "diff", "HEAD~1", "--", "params.yaml").splitlines()
    assert len([line for line in lines if line.startswith("+") and not line.startswith("+++")]) == 1

    for command in section("Throw it away"):
        typed(repository, command)
    assert typed(repository, "dvc exp list --all-commits --name-only").split().count("votes") == 0
    assert json.loads((repository / RUN).read_text()) == after, "what was kept is a commit like any other"
