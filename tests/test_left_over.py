"""What an earlier preset left in params.yaml is said; lists that do not exist are refused at once."""

import shutil

import pytest
from conftest import copy_repository, git

from rrn.pipeline import presets


@pytest.fixture
def here(tmp_path, monkeypatch):
    repository = copy_repository(tmp_path / "copy", without=("datastore/", "data/", "results/", "rrn/"))
    monkeypatch.chdir(repository)
    return repository


def test_a_second_preset_says_what_the_first_one_left(here, capsys):
    assert presets.main(["voc", "resnet50", "dataset.path=DIR2"]) == 0
    assert capsys.readouterr().err == ""
    assert presets.main(["lite0", "camvid", "dataset.path=DIR3"]) == 0
    note = capsys.readouterr().err
    assert note.startswith("note: params.yaml keeps what was changed before: ")
    for kept in ("loading.workers: 8", "method.discriminator.lr: 0.0001", "methods.cps: "):
        assert kept in note
    for set_now in ("name:", "dataset.path", "device:", "split.protocol", "model.encoder", "augment.crop"):
        assert set_now not in note
    assert "`git checkout HEAD -- params.yaml` before presets begins anew" in note


def test_without_git_nothing_is_said_of_what_was_before(here, capsys):
    shutil.rmtree(here / ".git")
    assert presets.main(["smoke"]) == 0
    assert presets.main(["controls"]) == 0
    assert capsys.readouterr().err == ""


def test_single_settings_are_laid_on_without_a_note(here, capsys):
    assert presets.main(["name=mine"]) == 0
    assert presets.main(["train.steps=7"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["voc", "split.protocol=u2pl"], "partition '1of16': split.protocol: u2pl of voc has 662 (662 labels), 1323"),
        (["voc", "ablation.partitions=[661]"], "partition '661': split.protocol: cps of voc has 1of16 (662 labels)"),
        (["split.protocol=cps"], "cps has no lists for dataset.kind: folder"),
        (["train.steps=[1"], "train.steps: '[1' is not valid YAML: line 1, column 3"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(here, capsys, items, message):
    before = (here / "params.yaml").read_text()
    assert presets.main([*items, "dataset.path=DIR2"]) == 1
    assert message in capsys.readouterr().err
    assert (here / "params.yaml").read_text() == before


@pytest.mark.parametrize(
    ("held", "said"),
    [("name: [\n", " is not valid YAML: line 2"), ("only text\n", ": expected keys and values, found 'only text'")],
)
def test_settings_in_git_that_cannot_be_read_are_no_obstacle_and_said(here, capsys, held, said):
    good = (here / "params.yaml").read_text()
    (here / "params.yaml").write_text(held)
    git(here, "commit", "--quiet", "--all", "--message", "broken")
    (here / "params.yaml").write_text(good)
    assert presets.main(["smoke"]) == 0
    note = capsys.readouterr().err
    assert note.startswith(f"note: what was changed before cannot be told: params.yaml as git holds it{said}")
    assert note.count("\n") == 1
    assert (here / "params.yaml").read_text() != good
