"""Which files are labeled, and what each is called."""

import pytest
from photos import save_photo, save_photos

from rrn.data.decoding import DataError
from rrn.prediction import files

FRAMES = ["clip.mp4", "clip/000001", "deep/film.avi", "deep/film/a/b"]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of images of several sizes, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return save_photos(tmp_path / "photos")


def test_names(photos, tmp_path):
    out = tmp_path / "out"
    assert list(files.find_files([photos], out)) == ["a", "deep/b", "deep/c"]
    assert list(files.find_files([photos / "deep", photos / "deep" / "b.png"], out)) == ["b", "c"]
    save_photo(tmp_path / "more" / "b.JPG")
    assert list(files.find_files([photos / "deep", tmp_path / "more"], out)) == [
        "more/b",
        "photos/deep/b",
        "photos/deep/c",
    ]
    save_photo(photos / "a.jpg")
    assert list(files.find_files([photos], out)) == ["a.jpg", "a.png", "deep/b", "deep/c"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a.jpg", "a.png", "b.jpg", "deep/a.png"], ["a.jpg", "a.png", "b", "deep/a"]),
        (["a.jpg", "a.jpg.png", "a.png"], ["a.jpg", "a.jpg.png", "a.png"]),
        (["a.b.jpg", "a.c.jpg", "a.jpg"], ["a", "a.b", "a.c"]),
        (["x.JPG", "x.jpeg", "y.tif"], ["x.JPG", "x.jpeg", "y"]),
        (["clip.MP4", "clip.png", "film.webm"], ["clip.MP4", "clip.png", "film"]),
        (["clip.mp4", "clip/000001.png", "deep/film.avi", "deep/film/a/b.png"], FRAMES),
    ],
)
def test_only_names_that_meet_keep_their_suffix_and_none_is_given_twice(tmp_path, given, expected):
    for name in given:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    found = files.find_files([tmp_path / "in"], tmp_path / "out")
    assert sorted(found) == expected and len(set(found.values())) == len(given)


def test_hidden_files_and_results_are_no_images(photos):
    save_photo(photos / ".trash" / "x.png")
    save_photo(photos / "deep" / "._b.png")
    save_photo(photos / "out" / "labels" / "a.png")
    (photos / "deep" / "folder.png").mkdir()
    assert list(files.find_files([photos], photos / "out")) == ["a", "deep/b", "deep/c"]


def test_paths_that_hold_no_images(photos, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no image or video in empty: images end in .jpg, .*, .tiff, videos in .mp4, "):
        files.find_files([(tmp_path / "empty").relative_to(tmp_path)], tmp_path / "out")
    with pytest.raises(DataError, match=r"no file or folder .*nowhere: name images, videos, or folders of them"):
        files.find_files([photos, tmp_path / "nowhere"], tmp_path / "out")
    for path in (photos, photos / "a.png"):
        with pytest.raises(DataError, match=r"lies in .*photos, where the results go: name another folder for them"):
            files.find_files([path], photos)
