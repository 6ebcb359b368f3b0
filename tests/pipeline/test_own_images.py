"""From an export to predictions: docs/import.md and "Your own images" of docs/data.md, typed line by line."""

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
    export(write_folder(folder / "export", {"train": 16, "val": 3}))
    assert python(repository, "-m", "rrn.preset", "smoke").returncode == 0
    git(repository, "commit", "--quiet", "--all", "--message", "smoke")
    return repository


def export(source):
    """Turn a folder data set into masks in colors, and a table of them."""
    table = {value: (40 * value, 7, value) for value in range(3)} | {255: (1, 1, 1)}
    colors = np.zeros((256, 3), np.uint8)
    colors[list(table)] = list(table.values())
    for path in (source / "labels").rglob("*.png"):
        Image.fromarray(colors[np.asarray(Image.open(path))]).save(path)
    names = [*(source / "classes.txt").read_text().split(), "nothing"]
    lines = [",".join(map(str, (name, *color))) for name, color in zip(names, table.values(), strict=True)]
    (source / "colors.csv").write_text("\n".join(lines))


def test_an_export_becomes_a_data_set(repository):
    page = (ROOT / "docs" / "import.md").read_text()
    (imported,) = [line for line in typed(page, "Splits") if "import colors" in line]
    line = imported.split(" --split")[0].replace("SOURCE", "../export").replace("DIR", "data/mine")
    result = python(repository, *shlex.split(line), "--void", "nothing")
    assert result.returncode == 0, result.stderr
    own = re.findall(r"^    \.venv/bin/python (.+)$", page.split("\n## ")[0], flags=re.MULTILINE)
    assert own[1:] == typed((ROOT / "docs" / "data.md").read_text(), "Your own images")[: len(own) - 1]


def test_own_images_from_files_to_predictions(repository):
    commands = typed((ROOT / "docs" / "data.md").read_text(), "Your own images")
    assert [shlex.split(command)[1] for command in commands] == [
        *["rrn.preset", "rrn.preset", "rrn.data", "rrn.repro", "rrn.predict"]
    ]
    for command in commands:
        result = python(repository, *(word.replace("DIR", "data/mine") for word in shlex.split(command)))
        assert result.returncode == 0, f"{command}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
    log = (repository / "runs" / "mine" / "log.txt").read_text().splitlines()
    for stage in ("warmup@1of4-0", *(f"train@1of4-{row}-0" for row in ("supervised", "cps_cutmix", "rrn"))):
        (last,) = [line for line in log if re.search(rf"^[\d-]+ [\d:]+Z {stage} step (\d+) of \1, ", line)]
        assert re.search(r", supervised [\d.e-]+", last)
    table = pd.read_csv(repository / "results" / "mine" / "ablation.csv")
    assert list(table["method"]) == ["supervised", "cps_cutmix", "rrn"]
    labels = sorted((repository / "scratch" / "predicted" / "labels").glob("*.png"))
    assert [path.stem for path in labels] == ["val000", "val001", "val002"]
    with Image.open(labels[0]) as picture:
        assert set(np.unique(np.asarray(picture))) <= {0, 1, 2}
    assert len([path for path in (repository / "data" / "mine").rglob("*") if path.is_file()]) == 39
    assert git(repository, "diff", "HEAD", "--name-only", "data.dvc", "datastore") == ""
