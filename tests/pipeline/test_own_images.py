"""The page "Your own images" of docs/data.md, typed line by line."""

import re
import shlex

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, copy_repository, git, python
from PIL import Image
from small import write_folder

pytestmark = pytest.mark.chain


def typed(page, heading):
    """Return the commands of a section of a page."""
    section = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^    \.venv/bin/python (.+)$", section, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    repository = copy_repository(folder / "copy", without=("results/", "dvc.lock"))
    write_folder(repository / "data" / "mine", {"train": 16, "val": 3})
    assert python(repository, "-m", "rrn.preset", "smoke").returncode == 0
    git(repository, "commit", "--quiet", "--all", "--message", "smoke")
    return repository


def test_own_images_from_files_to_predictions(repository):
    commands = typed((ROOT / "docs" / "data.md").read_text(), "Your own images")
    assert [shlex.split(command)[1] for command in commands] == [
        *["rrn.preset", "rrn.preset", "rrn.data", "rrn.repro", "rrn.predict"]
    ]
    for command in commands:
        result = python(repository, *(word.replace("DIR", "data/mine") for word in shlex.split(command)))
        assert result.returncode == 0, f"{command}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
    table = pd.read_csv(repository / "results" / "mine" / "ablation.csv")
    assert list(table["method"]) == ["supervised", "cps_cutmix", "rrn"]
    labels = sorted((repository / "predicted" / "labels").glob("*.png"))
    assert [path.stem for path in labels] == ["val000", "val001", "val002"]
    with Image.open(labels[0]) as picture:
        assert set(np.unique(np.asarray(picture))) <= {0, 1, 2}
    assert len([path for path in (repository / "data" / "mine").rglob("*") if path.is_file()]) == 39
    assert git(repository, "diff", "HEAD", "--name-only", "data.dvc", "datastore") == ""
