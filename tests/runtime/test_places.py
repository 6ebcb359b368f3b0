"""`~` and $VARIABLES in paths: meant wherever a path is given, refused where DVC would take them as they are."""

import pytest
from conftest import python
from tiny import params, repository, write_params

from rrn import config
from rrn.config import SettingsError
from rrn.data.image_set import ImageSet
from rrn.pipeline import presets
from rrn.prediction.command import parser
from rrn.preparation import command, published_lists
from rrn.runtime import places

HOME = "/home/somebody"
MEANT = {
    "~/photos": f"{HOME}/photos",
    "~": HOME,
    "$HOME/my photos": f"{HOME}/my photos",
    "${DISK}/voc": "/mnt/disk/voc",
    "$DISK": "/mnt/disk",
}
LITERAL = ["data/shapes", "/data/a~b", "~somebody/photos", "data/~/x", "data/$unset_here", "a@b", "costs $5", "./~"]


@pytest.fixture(autouse=True)
def variables(monkeypatch):
    monkeypatch.setenv("HOME", HOME)
    monkeypatch.setenv("DISK", "/mnt/disk")
    monkeypatch.delenv("unset_here", raising=False)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A tiny repository as the current folder."""
    monkeypatch.chdir(repository(tmp_path / "repository"))
    monkeypatch.setattr(presets.buildable, "require_or_note", lambda root, settings: None)  # there are no such weights
    return tmp_path / "repository"


@pytest.mark.parametrize("text", MEANT)
def test_a_path_that_dvc_would_not_find_is_refused_with_the_one_to_write(here, text):
    meant = MEANT[text]
    write_params(here, params({"dataset": {"path": text}}))
    message = f"dataset.path is {text!r}: in params.yaml nothing stands for ~ or a $VARIABLE, to DVC neither: "
    with pytest.raises(SettingsError) as caught:
        config.load()
    assert str(caught.value) == f"params.yaml: {message}write {meant}"
    for source in ("", "timm@"):
        with pytest.raises(SettingsError, match=r"model\.weights is .*write ") as caught:
            config.load(overrides={"dataset": {"path": "data"}, "model": {"weights": f"{source}{text}/a.pth"}})
        assert str(caught.value).endswith(f": write {source}{meant}/a.pth")


@pytest.mark.parametrize("text", LITERAL)
def test_other_paths_stay_as_they_are(here, text):
    assert config.load(overrides={"dataset": {"path": text}}).dataset.path == text
    assert presets.main([f"dataset.path={text}", f"model.weights={text}"]) == 0
    assert config.load().dataset.path == config.load().model.weights == text == places.expanded(text)


@pytest.mark.parametrize("text", [text for text in MEANT if text != "~"])  # which YAML reads as null
def test_a_preset_writes_paths_out(here, text):
    before = (here / "params.yaml").read_text()
    assert presets.main([f"dataset.path={text}", f"model.weights=timm/a1@{text}/model.safetensors", "threads=3"]) == 0
    settings = config.load()
    assert settings.dataset.path == MEANT[text]
    assert settings.model.weights == f"timm/a1@{MEANT[text]}/model.safetensors"
    assert (here / "params.yaml").read_text() != before
    (here / "presets").mkdir()
    (here / "presets/mine.yaml").write_text(f"dataset:\n  path: {text}\n")
    assert presets.main(["mine", "threads=2"]) == 0
    assert config.load().dataset.path == MEANT[text]


@pytest.mark.parametrize("text", MEANT)
def test_programs_mean_what_a_shell_would(text, monkeypatch):
    for line in (["voc", f"--root={text}"], ["lists", f"--root={text}", "voc"]):
        assert str(command.parser().parse_args(line).root) == MEANT[text]
    arguments = parser().parse_intermixed_args([text, f"{text}/in", f"{text}/more", f"{text}/out"])
    assert [*map(str, (arguments.run, *arguments.images, arguments.out))] == [
        *(MEANT[text] + more for more in ("", "/in", "/more", "/out"))
    ]
    monkeypatch.setenv("RRN_LISTS", text)
    wanted = f"file://{MEANT[text]}/".replace(" ", "%20")
    assert all(published_lists.address(published).startswith(wanted) for published in published_lists.catalog())


def test_scratch_means_it_too(here, monkeypatch):
    monkeypatch.setenv("RRN_SCRATCH", "~/kept")
    assert places.scratch(here) == places.Path(f"{HOME}/kept")
    assert ImageSet.open(config.load(), here).decoded == places.Path(f"{HOME}/kept/decoded")
    monkeypatch.setenv("RRN_SCRATCH", "")
    assert ImageSet.open(config.load(), here).decoded == here / ".scratch/decoded"


def test_repro_says_so_before_dvc_looks_for_it(here):
    write_params(here, params({"dataset": {"path": "~/photos"}}))
    result = python(here, "-m", "rrn.repro")
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "error: params.yaml: dataset.path is '~/photos': in params.yaml nothing stands for ~ or a $VARIABLE, "
        f"to DVC neither: write {HOME}/photos"
    ]
