"""The embedded data set: what lies in data/shapes is what rrn.preparation.shapes renders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import python
from PIL import Image

from rrn.preparation import shapes

ROOT = Path(__file__).resolve().parents[2] / "data" / "shapes"
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
