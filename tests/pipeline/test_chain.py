"""The whole pipeline on the smoke preset, in a copy of the working tree."""

import re
import shlex

import nbformat
import pandas as pd
import pytest
from conftest import ROOT, copy_repository, git, python

from rrn.reliability.evidence import Evidence

METHODS = ["cps_cutmix", "rrn"]
JOINED = ["ablation", "pictures", "report"]
ROW = ["train@1of16-rrn-0", "evaluate@1of16-rrn-0", "ablation", "pictures"]

DRAWN = {"prepare", "evaluate", "ablation", "pictures"}
TRAINED = {"warmup", "train", "evaluate"}
COMPUTED = {"render", "verify", "prepare", "warmup", "train", "evaluate", "ablation", "pictures", "report"}
"""Stages that depend on a figure, on the method, and on what all share; `--dry` names no others that read theirs."""

pytestmark = pytest.mark.chain


def ran(text):
    return re.findall(r"Running stage '(\S+)'", text)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = copy_repository(tmp_path_factory.mktemp("chain") / "copy", without=("results/", "dvc.lock"))
    assert python(folder, "-m", "rrn.preset", "smoke").returncode == 0
    git(folder, "commit", "--quiet", "--all", "--message", "smoke")
    result = python(folder, "-m", "rrn.repro")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert len(ran(result.stdout)) == 5 + 2 * len(METHODS) + len(JOINED)
    return folder


@pytest.fixture
def params(repository):
    """Set settings with `rrn.preset`; they are put back afterwards."""
    text = (repository / "params.yaml").read_text()

    def change(*items):
        assert python(repository, "-m", "rrn.preset", *items).returncode == 0

    yield change
    (repository / "params.yaml").write_text(text)


def test_results_hold_tables_and_figures(repository):
    results = repository / "results" / "smoke"
    table = pd.read_csv(results / "ablation.csv")
    assert list(table["method"]) == METHODS
    assert {"miou_mean", "miou_std", "n", "parameters", "macs"} <= set(table.columns)
    assert table["miou_std"].isna().all()
    names = {path.name for path in results.iterdir()}
    assert {
        "ablation.md",
        "ablation.tex",
        "variants.csv",
        "runs.csv",
        "scores.csv",
        "per_class.csv",
        "figures",
    } <= names
    kinds = "per_class", "training_curves", "reliability", "variants", "risk", "calibration"
    for kind in kinds:
        assert {path.suffix for path in (results / "figures").glob(f"{kind}*")} == {".png", ".pdf"}
    shown = repository / "results" / "row-pictures" / "smoke"
    assert {path.suffix for path in (shown / "figures").glob("qualitative*")} == {".png", ".pdf"}
    shipped = Evidence.read(shown / "evidence.zip")
    assert shipped.about.method == "rrn" and shipped.splits == ("val", "unlabeled") and shipped.ids("val")
    assert "smoke" in (repository / "results" / "report.html").read_text()


def test_runs_hold_what_the_architecture_says(repository):
    runs = repository / "runs" / "smoke"
    expected = {
        "verify": {"report.json"},
        "prepare/1of16-0": {"split.json", "frequencies.csv"},
        "warmup/1of16-0": {"segmenters.safetensors", "run.json", "history.csv"},
        "train/1of16-rrn-0": {"discriminators.safetensors", "reliability.csv", "history.csv"},
        "evaluate/1of16-rrn-0": {"metrics.json", "per_class.csv", "reliability.csv", "bootstrap.csv", "evidence.zip"},
    }
    for folder, names in expected.items():
        names |= {"notebook.ipynb"} if "/" in folder else set()
        assert names <= {path.name for path in (runs / folder).iterdir()}
    assert sorted(path.name for path in (repository / ".scratch").glob("*")) == ["built", "decoded"]


def test_executed_notebooks_show_pictures_and_no_paths(repository):
    paths = sorted((repository / "runs").rglob("notebook.ipynb"))
    assert len(paths) == 2 + 2 * len(METHODS) + 2
    for path in paths:
        assert str(repository) not in path.read_text()
        cells = nbformat.read(path, 4).cells
        outputs = [out for cell in cells for out in cell.get("outputs", [])]
        assert any("image/png" in out.get("data", {}) for out in outputs), path
        assert not [out for out in outputs if out.get("name") == "stderr"], path


def test_git_sees_the_lock_and_the_results_only(repository):
    lines = git(repository, "status", "--porcelain").splitlines()
    assert {line[3:] for line in lines} <= {"dvc.lock", "results/"}


def test_a_second_repro_does_nothing(repository):
    result = python(repository, "-m", "dvc", "repro")
    assert result.returncode == 0
    assert "Data and pipelines are up to date." in result.stdout
    assert ran(result.stdout) == []


def test_a_notebook_that_was_run_by_hand_runs_no_stage(repository):
    path = repository / "notebooks" / "3_train.ipynb"
    text = path.read_text()
    notebook = nbformat.reads(text, 4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="by hand")]
    nbformat.write(notebook, path)
    result = python(repository, "-m", "dvc", "repro")
    path.write_text(text)
    assert ran(result.stdout) == ["notebooks"]
    assert python(repository, "-m", "dvc", "repro", "notebooks").returncode == 0


@pytest.fixture
def code(repository):
    """Edit a file of rrn/ and run the stage that copies code; return what else would run. It is put back afterwards."""
    texts = {}

    def edit(name, old, new):
        path = repository / "rrn" / name
        text = texts.setdefault(path, path.read_text())
        assert old in text
        path.write_text(text.replace(old, new, 1))
        assert ran(python(repository, "-m", "dvc", "repro", "--dry").stdout) == ["notebooks"]
        result = python(repository, "-m", "dvc", "repro", "notebooks")
        assert result.returncode == 0, result.stdout + result.stderr
        return {name.split("@")[0] for name in ran(python(repository, "-m", "dvc", "repro", "--dry").stdout)}

    yield edit
    for path, text in texts.items():
        path.write_text(text)
    assert python(repository, "-m", "dvc", "repro", "notebooks").returncode == 0


def test_a_docstring_and_a_comment_run_nothing_but_the_copy(code):
    assert code("method.py", '"""', '# said\n\n"""Said. ') == set()


@pytest.mark.parametrize(
    ("name", "old", "new", "again"),
    [
        ("plotting/paper.mplstyle", "lines.linewidth", "lines.markersize: 3\nlines.linewidth", DRAWN),
        ("plotting/figures.py", "\nTERMS = {", "\nMORE = 1\nTERMS = {", DRAWN),
        ("paper/tables.py", "\n\n\n", "\n\n\nMORE = 1\n", {"ablation", "pictures", "report"}),
        ("pieces/piece.py", "\n\n\n", "\n\n\nMORE = 1\n", {"evaluate", "ablation", "pictures"}),
        ("explorer/widget.py", "\n\n\n", "\n\n\nMORE = 1\n", set()),
        ("pipeline/stage.py", "\n\n\n", "\n\n\nMORE = 1\n", set()),
        ("method.py", "\n\n\n", "\n\n\nMORE = 1\n", TRAINED),
        ("training/learner.py", "\n\n\n", "\n\n\nMORE = 1\n", TRAINED - {"evaluate"}),
        ("runtime/portable.py", '"avx2"', '"default"', COMPUTED),
    ],
)
def test_code_runs_the_stages_again_whose_rooms_it_is_of(code, name, old, new, again):
    assert code(name, old, new) == again


def test_changing_a_row_runs_that_row_only(repository, params):
    params("methods.rrn.filter.fraction=0.25")
    result = python(repository, "-m", "dvc", "repro", "--dry")
    assert ran(result.stdout) == ROW


def test_changing_training_leaves_the_warmup_alone(repository, params):
    params("train.steps=6")
    result = python(repository, "-m", "dvc", "repro", "--dry")
    stages = [f"{stage}@1of16-{method}-0" for stage in ("train", "evaluate") for method in METHODS]
    assert sorted(ran(result.stdout)) == sorted(stages), "a piece says how long the training was"


def test_how_many_images_at_once_trains_nothing_again(repository, params):
    params("loading.evaluation_batch=8", "loading.cache=false")
    result = python(repository, "-m", "dvc", "repro", "--dry")
    assert set(ran(result.stdout)) == {f"evaluate@1of16-{method}-0" for method in METHODS}


def test_running_again_gives_the_same_bytes(repository):
    lock = (repository / "dvc.lock").read_text()
    result = python(repository, "-m", "dvc", "repro", "--force", "--single-item", ROW[0])
    assert ran(result.stdout) == ROW[:1]
    assert (repository / "dvc.lock").read_text() == lock


def test_the_results_can_be_compared_with_those_of_git(repository):
    git(repository, "add", "results")
    git(repository, "commit", "--quiet", "--message", "results")
    result = python(repository, "-m", "rrn.repro", "--compare", "--tolerance", "0.001")
    assert result.returncode == 0, result.stderr
    assert "within 0.001 points of what git holds" in result.stdout


REMOTE = (ROOT / "docs" / "sharing.md").read_text().split("## Two people, one remote")[1]
PIECE = "results/finished-runs/smoke/1of16-rrn-0.json"


@pytest.fixture
def clone(repository, tmp_path):
    """A clone of the results, in which nothing was run."""
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--allow-empty", "--message", "results")
    git(tmp_path, "clone", "--quiet", str(repository), str(tmp_path / "clone"))
    return tmp_path / "clone"


def test_a_fresh_clone_makes_every_table_from_the_pieces_without_training(clone):
    before = {path: path.read_bytes() for path in (clone / "results").rglob("*") if path.is_file()}
    result = python(clone, "-m", "rrn.repro", "--missing")
    assert result.returncode == 0, result.stdout + result.stderr
    assert ran(result.stdout) == ["notebooks", "ablation"]
    assert "2 of 2 runs lie in results/finished-runs/smoke" in result.stdout
    assert "pictures is not run, and results/row-pictures/smoke stays" in result.stdout
    assert git(clone, "status", "--porcelain") == "" and not (clone / "data").exists()
    assert {path: path.read_bytes() for path in (clone / "results").rglob("*") if path.is_file()} == before


def test_only_the_run_whose_piece_is_missing_is_trained(clone):
    lock, piece = (clone / "dvc.lock").read_text(), (clone / PIECE).read_bytes()
    (clone / PIECE).unlink()
    shown = python(clone, "-m", "rrn.repro", "--missing", "--dry")
    assert "train@1of16-rrn-0, evaluate@1of16-rrn-0, ablation, report" in shown.stdout
    assert "cps_cutmix" not in shown.stdout.splitlines()[-1] and not (clone / "runs").exists()
    result = python(clone, "-m", "rrn.repro", "--missing", "--jobs", "1")
    assert result.returncode == 0, result.stdout + result.stderr
    chain = ["notebooks", "render", "verify", "prepare@1of16-0", "warmup@1of16-0", "train@1of16-rrn-0"]
    assert ran(result.stdout) == [*chain, "evaluate@1of16-rrn-0", "ablation"]
    assert (clone / PIECE).read_bytes() == piece and (clone / "dvc.lock").read_text() == lock
    assert git(clone, "status", "--porcelain") == ""


def test_two_people_share_runs_over_a_remote_of_their_own(repository, tmp_path):
    origin, second = tmp_path / "origin.git", tmp_path / "second"
    gives, takes = re.findall(r"(?:^    .+\n)+", REMOTE, flags=re.MULTILINE)
    git(tmp_path, "clone", "--quiet", "--bare", str(repository), str(origin))
    git(tmp_path, "clone", "--quiet", str(origin), str(second))
    git(repository, "remote", "add", "origin", str(origin))
    git(repository, "config", "push.autoSetupRemote", "true")
    for line in gives.splitlines():
        typed(repository, line, tmp_path / "team")
    said = [typed(second, line, tmp_path / "team") for line in takes.splitlines()]
    assert ran(said[-1]) == []
    assert git(second, "status", "--porcelain") == ""
    files = [path.relative_to(repository) for path in sorted((repository / "runs").rglob("*")) if path.is_file()]
    runs = [path for path in files if path.name != "log.txt"]  # which is of who trained, and no output of a stage
    assert len(runs) > 20
    assert [(second / path).read_bytes() for path in runs] == [(repository / path).read_bytes() for path in runs]
    assert git(repository, "diff", "HEAD~1", "--name-only", "datastore") == ""


def typed(folder, line, team):
    """Run a command of docs/sharing.md in a folder; return what it printed."""
    program, *words = shlex.split(line.replace("TEAM", str(team)))
    if program == "git":
        return git(folder, *words)
    options = {".venv/bin/python": [], ".venv/bin/dvc": ["-m", "dvc"]}[program]
    result = python(folder, *options, *words)
    assert result.returncode == 0, line + result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout


def test_rows_that_are_taken_away_leave_no_trace_in_the_table(repository, params):
    params("ablation.methods=[cps_cutmix]")
    result = python(repository, "-m", "rrn.repro")
    assert "runs/smoke/train/1of16-rrn-0 is not listed in params.yaml" in result.stdout
    assert ran(result.stdout) == JOINED
    table = pd.read_csv(repository / "results" / "smoke" / "ablation.csv")
    assert list(table["method"]) == METHODS[:1]
    assert (repository / "runs/smoke/aside/metrics/1of16-rrn-0.json").is_file()
    left = [*(repository / "results/per-run/smoke").iterdir(), *(repository / "results/smoke/metrics").iterdir()]
    assert [path.name for path in left] == ["1of16-cps_cutmix-0.json", "1of16-cps_cutmix.json"]


def test_a_failing_stage_says_why_and_where(repository, params):
    text = (repository / "params.yaml").read_text().replace("rho: none ", "rho: noen ")
    (repository / "params.yaml").write_text(text)
    notebook = "build/notebooks/1_prepare.ipynb"
    result = python(repository, "-m", "rrn.stage", notebook, "scratch/failed/notebook.ipynb")
    assert result.returncode == 1
    assert "error: SettingsError: params.yaml: " in result.stderr
    assert "rho" in result.stderr
    assert "the notebook as far as it got: scratch/failed/notebook.ipynb" in result.stderr
