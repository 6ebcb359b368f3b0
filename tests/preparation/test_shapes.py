"""The embedded data set: what lies in data/shapes is what rrn.preparation.shapes renders."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from conftest import python
from PIL import Image

from rrn import config
from rrn.data.image_set import ImageSet
from rrn.paper import pictures
from rrn.preparation import shapes
from rrn.preparation.verification import verify

REPOSITORY = Path(__file__).resolve().parents[2]
ROOT = REPOSITORY / "data" / "shapes"
SAMPLE = [
    ("train", 0),
    ("train", 137),
    ("train", 511),
    ("val", 0),
    ("val", 95),
    ("test", 0),
    ("test", 127),
]
JPEG_TOLERANCE = 8.0  # mean absolute difference in gray levels that quality 90 may leave (5 to 6 in fact)


def _stored(split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads one stored scene: image uint8 [H, W, 3] and labels uint8 [H, W]."""
    name = f"{split}_{index:04d}"
    with Image.open(ROOT / "images" / split / f"{name}.jpg") as image:
        pixels = np.asarray(image)
    with Image.open(ROOT / "labels" / split / f"{name}.png") as label:
        assert label.mode == "L", "labels are single-channel"
        return pixels, np.asarray(label)


@pytest.mark.parametrize(("split", "index"), SAMPLE)
def test_stored_scene_is_the_rendered_one(split: str, index: int) -> None:
    """Labels are equal; the image differs by no more than its compression."""
    image, labels = shapes.render(split, index)
    stored_image, stored_labels = _stored(split, index)
    np.testing.assert_array_equal(stored_labels, labels)
    assert stored_image.shape == image.shape == (shapes.SIZE, shapes.SIZE, 3)
    difference = np.abs(stored_image.astype(int) - image.astype(int)).mean()
    assert difference < JPEG_TOLERANCE


@pytest.mark.parametrize(("split", "index"), SAMPLE)
def test_rendering_is_a_pure_function(split: str, index: int) -> None:
    """A second rendering, after others, is identical; another index is another scene."""
    image, labels = shapes.render(split, index)
    other, _ = shapes.render(split, index + 1)
    again, labels_again = shapes.render(split, index)
    assert image.dtype == labels.dtype == np.uint8
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(labels, labels_again)
    assert (other != image).any()


def test_same_index_of_two_splits_differs() -> None:
    """No scene of one split leaks into another."""
    assert (shapes.render("train", 0)[0] != shapes.render("val", 0)[0]).any()


@pytest.mark.parametrize("split", list(shapes.SPLITS))
def test_layout_and_classes(split: str) -> None:
    """Every split has its count of pairs, one label per image, and every class among its pixels."""
    images = sorted(path.stem for path in (ROOT / "images" / split).iterdir())
    labels = sorted((ROOT / "labels" / split).iterdir())
    assert images == [path.stem for path in labels]
    assert images == [f"{split}_{index:04d}" for index in range(shapes.SPLITS[split])]
    pixels = np.zeros(256, dtype=np.int64)
    for path in labels:
        with Image.open(path) as label:
            pixels += np.bincount(np.asarray(label).ravel(), minlength=256)
    assert pixels[len(shapes.CLASSES) :].sum() == 0
    assert (pixels[: len(shapes.CLASSES)] > 0.01 * pixels.sum()).all()


def test_class_names() -> None:
    """The class list is stored in index order, background first."""
    names = (ROOT / "classes.txt").read_text(encoding="utf-8").splitlines()
    assert tuple(names) == shapes.CLASSES
    assert names[0] == "background"


def test_few_labels_still_show_every_class() -> None:
    """Any 32 train scenes contain every class in several scenes; checked on five random choices."""
    seen = []
    for index in range(shapes.SPLITS["train"]):
        with Image.open(ROOT / "labels" / "train" / f"train_{index:04d}.png") as label:
            seen.append(np.bincount(np.asarray(label).ravel(), minlength=len(shapes.CLASSES)) >= 20)
    for seed in range(5):
        chosen = np.random.default_rng(seed).permutation(len(seen))[:32]
        assert (np.stack(seen)[chosen].sum(axis=0) >= 6).all()


def test_write_makes_the_folder_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``write_shapes`` makes images, labels and class names, byte for byte as a second call does."""
    monkeypatch.setattr(shapes, "SPLITS", {"train": 2, "val": 1, "test": 1})
    shapes.write_shapes(tmp_path / "a")
    shapes.write_shapes(tmp_path / "b")
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 2 * 4 + 1
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("arguments", [["--help"], [], ["a", "b"]])
def test_a_wrong_command_line_shows_the_usage_and_writes_nothing(tmp_path: Path, arguments: list[str]) -> None:
    """An option is not taken for the name of a folder."""
    result = python(tmp_path, "-m", "rrn.preparation.shapes", *arguments)
    assert result.returncode != 0
    assert "usage: python -m rrn.preparation.shapes DIR" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of the embedded study: `dataset.scenes` of params.yaml."""
    folder = tmp_path_factory.mktemp("scenes")
    shapes.write_scenes(ROOT, folder, config.load(root=REPOSITORY).dataset.scenes.model_dump())
    return folder


PIXELS = {
    "val": (512, "919294bcdfb07b3196e1883effb81b7cf4645667fcc31f9e6f6837ee70886e82"),
    "test": (2048, "e93202e6fee603dbb092b51be0530de251a6a93f85c9f5cd271f2ca924151bb6"),
}
"""Number of scenes, and SHA-256 of their decoded pixels, each image before its labels."""


@pytest.mark.parametrize("split", list(PIXELS))
def test_the_scenes_of_the_study_are_these_pixels(rendered: Path, split: str) -> None:
    """Another version of Pillow, numpy or of the renderer would be seen here before it is seen in a table."""
    seen, paths = hashlib.sha256(), sorted((rendered / "images" / split).iterdir())
    for path in paths:
        for file in (path, rendered / "labels" / split / f"{path.stem}.png"):
            with Image.open(file) as image:
                seen.update(np.asarray(image).tobytes())
    assert (len(paths), seen.hexdigest()) == PIXELS[split]


def test_scenes_that_ship_are_the_first_of_the_study(rendered: Path) -> None:
    for path in [*sorted(ROOT.glob("*/*/*")), ROOT / "classes.txt"]:
        assert (rendered / path.relative_to(ROOT)).read_bytes() == path.read_bytes()
    assert len(list((rendered / "images/train").iterdir())) == shapes.SPLITS["train"]


def test_further_scenes_are_rendered_ones_and_fewer_are_the_first(tmp_path: Path) -> None:
    shapes.write_scenes(ROOT, tmp_path, {"val": 2, "test": 129})
    assert [path.name for path in sorted((tmp_path / "images/val").iterdir())] == ["val_0000.jpg", "val_0001.jpg"]
    with Image.open(tmp_path / "labels/test/test_0128.png") as label:
        np.testing.assert_array_equal(np.asarray(label), shapes.render("test", 128)[1])


def test_a_picture_of_the_study_may_be_shown(rendered: Path) -> None:
    settings = config.load(overrides={"dataset": {"path": str(rendered)}}, root=REPOSITORY)
    assert verify(ImageSet.open(settings, REPOSITORY), workers=1).checksum == pictures.EMBEDDED[0]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder with settings of a small data set, and with the embedded data where they belong."""
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_bytes((REPOSITORY / name).read_bytes())
    text = (tmp_path / "params.yaml").read_text().replace("{val: 512, test: 2048}", "{val: 1, test: 2}")
    (tmp_path / "params.yaml").write_text(text)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/shapes").symlink_to(ROOT)
    return tmp_path


def test_the_command_renders_what_the_settings_say_and_overwrites_nothing(repository: Path) -> None:
    words = ("-m", "rrn.data", "render", "--out", "made")
    done = python(repository, *words)
    assert (done.returncode, done.stdout) == (0, "made: 512 train, 1 val, 2 test scenes\n"), done.stderr
    before = sorted(path for path in (repository / "made").rglob("*"))
    done = python(repository, *words)
    assert (done.returncode, done.stderr) == (1, "error: made is not empty: remove it, or name another folder\n")
    assert sorted(path for path in (repository / "made").rglob("*")) == before


def test_without_the_embedded_data_the_command_says_how_to_get_them(repository: Path) -> None:
    (repository / "data/shapes").unlink()
    done = python(repository, "-m", "rrn.data", "render", "--out", "made")
    assert done.returncode == 1 and not (repository / "made").exists()
    assert done.stderr.startswith("error: the embedded data: there is no folder ")
    assert done.stderr.endswith("data/shapes; run `python -m rrn.fetch`\n")
