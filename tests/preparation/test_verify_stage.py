"""The stage `verify` and the stage that reads it, run by dvc on a small data set of one's own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import copy_repository, python
from PIL import Image
from small import HEIGHT, WIDTH, write_folder


def reproduce(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `dvc repro` with the programs of this environment."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [sys.executable, "-m", "dvc", "repro", *arguments]
    return subprocess.run(
        command, cwd=repository, env=dict(os.environ, PATH=path), capture_output=True, text=True, check=False
    )


def ran(done: subprocess.CompletedProcess[str]) -> list[str]:
    return re.findall(r"Running stage '(\S+)'", done.stdout)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this repository whose data set is a small one beside it, verified and prepared."""
    folder = tmp_path_factory.mktemp("stage")
    copy = copy_repository(folder / "copy", without=("datastore/", "data/", "results/", "dvc.lock", "data.dvc"))
    data = write_folder(folder / "data")
    items = ["name=mine", f"dataset.path={data}", "ablation.partitions=[1of4]", "ablation.seeds=[0]"]
    assert python(copy, "-m", "rrn.preset", *items).returncode == 0
    done = reproduce(copy, "prepare")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert set(ran(done)) == {"notebooks", "verify", "prepare@1of4-0"}
    return copy


def test_a_second_prepare_on_unchanged_data_runs_nothing(repository: Path) -> None:
    done = reproduce(repository, "prepare")
    assert (done.returncode, ran(done)) == (0, [])
    assert "Data and pipelines are up to date." in done.stdout


def test_what_was_found_reaches_the_split(repository: Path) -> None:
    found = json.loads((repository / "runs/mine/verify/report.json").read_text())
    split = json.loads((repository / "runs/mine/prepare/1of4-0/split.json").read_text())
    assert split["data"] == found["checksum"] and len(found["pixels"]["train"]) == 16
    assert "per cent of the labeled pixels" in (repository / "runs/mine/prepare/1of4-0/notebook.ipynb").read_text()


def test_a_changed_label_runs_both(repository: Path) -> None:
    path = repository.parent / "data/labels/train/train000.png"
    before = path.read_bytes()
    Image.new("L", (WIDTH, HEIGHT), 1).save(path)
    assert ran(reproduce(repository, "prepare")) == ["verify", "prepare@1of4-0"]
    path.write_bytes(before)
    assert reproduce(repository, "prepare").returncode == 0


def test_problems_stop_the_pipeline_and_are_all_printed(repository: Path) -> None:
    images, labels = (repository.parent / "data" / kind / "train" for kind in ("images", "labels"))
    before = (images / "train001.jpg").read_bytes()
    (images / "train001.jpg").write_bytes(before[:100])
    (labels / "train002.png").rename(labels / "train002.PNG")
    done = reproduce(repository, "prepare")
    (images / "train001.jpg").write_bytes(before)
    (labels / "train002.PNG").rename(labels / "train002.png")
    assert done.returncode != 0 and ran(done) == ["verify"]
    assert "2 problems" in done.stdout and "train001.jpg cannot be read" in done.stdout
    assert f"1 label in {labels} without an image, as they end in '.PNG'" in done.stdout
    assert reproduce(repository, "prepare").returncode == 0


def test_prepare_by_hand_says_what_to_run_where_nothing_was_verified(repository: Path) -> None:
    report = repository / "runs/mine/verify/report.json"
    kept = report.rename(report.with_suffix(".kept"))
    notebook = ("-m", "rrn.stage", "notebooks/1_prepare.ipynb", "scratch/by_hand/notebook.ipynb", "partition=1of4")
    done = python(repository, *notebook, "out_dir=scratch/by_hand")
    kept.rename(report)
    assert done.returncode == 1
    assert f"{report} is missing: the data set has not been verified; run `python -m rrn.repro verify`" in done.stderr
    assert python(repository, *notebook, "out_dir=scratch/by_hand").returncode == 0
