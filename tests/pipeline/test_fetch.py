"""Nothing of the user's is ever lost: what `python -m rrn.fetch` does beside files that DVC has no copy of."""

import hashlib
import json
import re
import shutil
import sys

import pytest
from conftest import ROOT, git, python
from small import write_folder

from rrn.pipeline import fetch

EMBEDDED = "data/shapes"
POINTER = f"outs:\n- path: {EMBEDDED}\n  remote: datastore\n"


def contents(folder):
    """Return every file of a folder and its checksum."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A small repository with embedded data, as a clone has it: none of it laid out, no cache."""
    folder = tmp_path_factory.mktemp("shipped") / "repository"
    for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "params.yaml", "dvc.yaml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "rrn").symlink_to(ROOT / "rrn")
    write_folder(folder / EMBEDDED, {"train": 3, "val": 2})
    (folder / "data.dvc").write_text(POINTER)
    git(folder, "init", "--quiet")
    for words in (("commit", "--force", "data.dvc"), ("push", "--remote", "datastore", "data.dvc")):
        assert python(folder, "-m", "dvc", *words).returncode == 0
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "shipped")
    shutil.rmtree(folder / "data")
    shutil.rmtree(folder / ".dvc" / "cache")
    return folder


@pytest.fixture
def clone(shipped, tmp_path):
    return shutil.copytree(shipped, tmp_path / "clone", symlinks=True)


@pytest.fixture
def fetched(clone):
    fetch.fetch(fetch.DVC, clone)
    return clone


def test_data_that_is_missing_is_fetched_and_what_was_deleted_comes_back(clone):
    fetch.fetch(fetch.DVC, clone)
    whole = contents(clone / "data")
    assert len(whole) == 11
    (clone / EMBEDDED / "classes.txt").unlink()
    shutil.rmtree(clone / EMBEDDED / "images" / "val")
    fetch.fetch(fetch.DVC, clone)
    assert contents(clone / "data") == whole
    assert git(clone, "status", "--porcelain") == ""


def test_a_second_time_asks_once_and_does_nothing(fetched, monkeypatch):
    def never(*_):
        raise AssertionError

    monkeypatch.setattr(fetch, "_run", never)
    fetch.fetch(fetch.DVC, fetched)


BESIDE = (
    *("data/mine/images/train/a.jpg", "data/notes.txt", "data/.DS_Store", "data/shapes/.DS_Store"),
    *("data/shapes/notes.txt", "data/shapes/images/train/.DS_Store", "data/shapes/labels/val/Thumbs.db"),
    *("data/shapes/images/train/._train000.jpg", "data/shapes/mine/images/train/a.jpg"),
    *("data/shapes/images/.train.swp", "data/shapes/labels/train/train000.png~"),
)


@pytest.mark.parametrize("first", [True, False])
def test_what_lies_beside_the_embedded_data_stays_and_is_no_obstacle(shipped, clone, first):
    if first:
        fetch.fetch(fetch.DVC, clone)
        shutil.rmtree(clone / EMBEDDED / "images" / "val")
    for place in BESIDE:
        (clone / place).parent.mkdir(parents=True, exist_ok=True)
        (clone / place).write_text("mine")
    fetch.fetch(fetch.DVC, clone)
    assert [(clone / place).read_text() for place in BESIDE] == ["mine"] * len(BESIDE)
    assert len(contents(clone / "data")) == 11 + len(BESIDE)
    assert python(clone, "-m", "dvc", "status", "data.dvc").stdout == "Data and pipelines are up to date.\n"
    assert (clone / "data.dvc").read_text() == (shipped / "data.dvc").read_text()


CHANGES = {
    "labels/train/train000.png": "changed labels/train/train000.png",
    "classes.txt": "changed classes.txt",
    "images/train/mine.jpg": "added images/train/mine.jpg",
    "images/train/notes.txt": "added images/train/notes.txt",
    "images/more/a.png": "added images/more/a.png",
}


@pytest.mark.parametrize(("file", "cached"), [*((file, True) for file in CHANGES), ("classes.txt", False)])
def test_files_changed_or_added_by_hand_are_named_and_not_touched(fetched, file, cached):
    (fetched / EMBEDDED / file).parent.mkdir(exist_ok=True)
    (fetched / EMBEDDED / file).write_text("mine")
    (fetched / EMBEDDED / "images/val/val000.jpg").unlink()
    if not cached:
        shutil.rmtree(fetched / ".dvc" / "cache")
    before = contents(fetched / "data")
    done = python(fetched, "-m", "rrn.fetch")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"error: data/shapes is not as it shipped ({CHANGES[file]}), and nothing was touched. "
        "`mv data/shapes data/shapes_2` keeps it, "
        "to be used as dataset.path=data/shapes_2, and the same command goes on"
    )
    assert contents(fetched / "data") == before
    assert git(fetched, "status", "--porcelain") == ""


def test_what_the_message_says_keeps_everything(fetched):
    (fetched / EMBEDDED / "labels/val/val000.png").write_text("mine")
    (fetched / "data/shapes_2").mkdir()
    with pytest.raises(fetch.FetchError, match=r"`mv data/shapes data/shapes_3`"):
        fetch.fetch(fetch.DVC, fetched)
    before = contents(fetched / EMBEDDED)
    (fetched / EMBEDDED).rename(fetched / "data/shapes_3")
    fetch.fetch(fetch.DVC, fetched)
    assert contents(fetched / "data/shapes_3") == before
    assert contents(fetched / EMBEDDED) != before
    assert git(fetched, "status", "--porcelain") == ""


def test_a_data_set_of_ones_own_that_is_called_shapes_is_not_overwritten(clone):
    own = contents(write_folder(clone / EMBEDDED, {"train": 6}))
    added = "added images/train/train003.jpg, images/train/train004.jpg, images/train/train005.jpg and 3 more"
    with pytest.raises(fetch.FetchError, match=re.escape(added)):
        fetch.fetch(fetch.DVC, clone)
    assert contents(clone / EMBEDDED) == own


def test_a_file_that_was_renamed_keeps_its_name(fetched):
    (fetched / EMBEDDED / "images/val/val000.jpg").rename(fetched / EMBEDDED / "images/val/good.jpg")
    with pytest.raises(fetch.FetchError, match=r"added images/val/good.jpg"):
        fetch.fetch(fetch.DVC, fetched)
    assert (fetched / EMBEDDED / "images/val/good.jpg").exists()


def test_data_behind_a_link_is_not_touched_either(fetched, tmp_path):
    (fetched / EMBEDDED).rename(tmp_path / "elsewhere")
    (fetched / EMBEDDED).symlink_to(tmp_path / "elsewhere")
    fetch.fetch(fetch.DVC, fetched)
    (tmp_path / "elsewhere/classes.txt").write_text("mine")
    with pytest.raises(fetch.FetchError, match=r"changed classes.txt"):
        fetch.fetch(fetch.DVC, fetched)
    assert (tmp_path / "elsewhere/classes.txt").read_text() == "mine"


def test_a_failure_of_dvc_is_a_failure(clone):
    shutil.rmtree(clone / "datastore")
    done = python(clone, "-m", "rrn.fetch")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: the embedded data could not be fetched, `dvc ")
    assert "Traceback" not in done.stderr


def test_a_dvc_that_does_not_answer_is_a_failure(clone):
    with pytest.raises(fetch.FetchError, match="dvc does not say which of its files are there"):
        fetch.fetch([sys.executable, "-c", "raise SystemExit(1)"], clone)


def test_without_a_git_repository_dvc_is_told_so_once(clone, capfd):
    shutil.rmtree(clone / ".git")
    fetch.fetch(fetch.DVC, clone)
    said = capfd.readouterr().out.splitlines()[0]
    assert said == (
        "no git repository here: dvc is told so in .dvc/config.local, `no_scm = true`; "
        "after `git init` delete that line"
    )
    fetch.fetch(fetch.DVC, clone)
    assert capfd.readouterr().out == ""
    assert len(contents(clone / "data")) == 11
    assert python(clone, "-m", "dvc", "status", "data.dvc").returncode == 0


def test_inside_another_git_repository_and_in_a_work_tree_dvc_is_told_nothing(fetched, tmp_path):
    git(fetched, "worktree", "add", "--quiet", str(tmp_path / "tree"))
    shutil.move(fetched / ".git", tmp_path / ".git")
    for folder in (fetched, tmp_path / "tree"):
        assert not (folder / ".dvc/config.local").exists()
        fetch.allow_no_git(["never called"], folder)


@pytest.mark.parametrize("status", [{}, {"deleted": ["data/shapes/a.png"], "modified": ["data/shapes/"]}])
def test_what_is_only_missing_is_not_by_hand(status):
    assert fetch.by_hand(status) == {}


def test_here_the_embedded_data_is_as_it_ships():
    listed = json.loads(python(ROOT, "-m", "dvc", "data", "status", "--json", EMBEDDED).stdout)
    assert not listed.get("uncommitted")
