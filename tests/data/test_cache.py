"""Lists of images in arrays, and their pixels decoded once for all processes."""

import multiprocessing
import os
import pickle
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PATIENCE
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small import CLASSES, small_settings, write_folder

from rrn.data.batches import WholeImages
from rrn.data.decoding import DataError
from rrn.data.image_set import ImageSet
from rrn.data.images import Ids, Images

COUNT = 6


@pytest.fixture(autouse=True)
def scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RRN_SCRATCH", raising=False)


@pytest.fixture
def dataset(tmp_path: Path) -> ImageSet:
    root = write_folder(tmp_path / "data", {"train": COUNT})
    return ImageSet.open(small_settings(root), tmp_path)


def opened(dataset: ImageSet, labeled: int = COUNT, kept: bool = True) -> Images:
    ids = dataset.ids("train")
    return Images(dataset, "train", ids, ids[:labeled], kept)


def pixels(images: Images, labeled: int = COUNT) -> list[Any]:
    found = [images.image(place).tolist() for place in range(len(images))]
    return found + [[array.tolist() for array in images.pair(place)] for place in range(labeled)]


def files_of(dataset: ImageSet, ending: str = ".pixels") -> list[Path]:
    return sorted(dataset.decoded.glob(f"*{ending}"))


def replace_image(path: Path, width: int = 9, height: int = 7, mode: str = "RGB") -> None:
    Image.new(mode, (width, height), 1).save(path)


class Refused(Exception):
    """A file was decoded that should not be."""


@pytest.fixture
def decodes_nothing(dataset: ImageSet, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    def refuse(*_: Any) -> None:
        raise Refused

    with monkeypatch.context() as patch:
        opened(dataset)
        for name in ("image", "label", "pair"):
            patch.setattr(ImageSet, name, refuse)
        yield patch


@pytest.mark.parametrize("size", [None, (13, 17)])
def test_pixels_are_those_of_decoding(dataset: ImageSet, size: tuple[int, int] | None) -> None:
    dataset = replace(dataset, size=size)
    for kind, mode in (("image", "RGB"), ("label", "L")):
        replace_image(getattr(dataset, f"{kind}_path")("train", "train002"), mode=mode)
    kept, plain = opened(dataset), opened(dataset, kept=False)
    assert pixels(kept) == pixels(plain)
    assert [kept.size(place) for place in range(COUNT)] == [plain.size(place) for place in range(COUNT)]
    for found, expected in zip(kept.pair(2), plain.pair(2), strict=True):
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)


@pytest.mark.usefixtures("decodes_nothing")
def test_are_decoded_once(dataset: ImageSet) -> None:
    assert len(opened(dataset)) == COUNT
    assert [path.name.split("-")[0] for path in files_of(dataset)] == ["images", "labels"]


@pytest.mark.usefixtures("decodes_nothing")
def test_evaluation_reads_the_same_files(dataset: ImageSet) -> None:
    ids = dataset.ids("train")
    assert sum(len(batch.ids) for batch in WholeImages(dataset, "train", ids, 4, cache=True)) == COUNT
    with pytest.raises(Refused):
        list(WholeImages(dataset, "train", ids, 4))


def test_one_process_decodes_and_others_wait(dataset: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, log = ImageSet.image, dataset.root / "log"

    def noted(self: ImageSet, split: str, name: str) -> Any:
        with log.open("a") as file:
            file.write(f"{os.getpid()} {name}\n")
        return decode(self, split, name)

    monkeypatch.setattr(ImageSet, "image", noted)
    context = multiprocessing.get_context("fork")
    started = context.Barrier(3)

    def work() -> None:
        started.wait()
        opened(dataset)

    processes = [context.Process(target=work) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [name for _, name in lines] == dataset.ids("train")
    assert len({pid for pid, _ in lines}) == 1


def test_labels_of_unlabeled_images_are_not_looked_at(dataset: ImageSet) -> None:
    for name in dataset.ids("train")[2:]:
        dataset.label_path("train", name).unlink()
    images = opened(dataset, labeled=2)
    assert pixels(images, 2) == pixels(opened(dataset, kept=False), 2)
    assert images.pair(3)[1].size == 0


def test_partitions_share_the_decoded_images(dataset: ImageSet) -> None:
    opened(dataset, labeled=2)
    opened(dataset, labeled=3)
    assert [path.name.split("-")[0] for path in files_of(dataset)] == ["images", "labels", "labels"]


@pytest.mark.parametrize("kind", ["image", "label"])
@pytest.mark.parametrize("content", [True, False])
def test_changed_files_are_decoded_anew(dataset: ImageSet, kind: str, content: bool) -> None:
    opened(dataset)
    before = files_of(dataset)
    path: Path = getattr(dataset, f"{kind}_path")("train", "train001")
    old = path.stat()
    replace_image(path, 28, 20, "RGB" if kind == "image" else "L")
    if content:  # of the same length and another time
        path.write_bytes(path.read_bytes().ljust(old.st_size, b"\0"))
        assert path.stat().st_size == old.st_size
    else:
        os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    images = opened(dataset)
    assert np.all((images.image(1) if kind == "image" else images.pair(1)[1]) <= 1)
    assert files_of(dataset) == before  # the former ones are gone


def test_other_sizes_and_meanings_are_decoded_anew(dataset: ImageSet) -> None:
    opened(dataset)
    small = replace(dataset, size=(5, 6))
    assert pixels(opened(small)) == pixels(opened(small, kept=False))
    other = replace(dataset, layout=replace(dataset.layout, meaning={0: 2, 1: 1, 2: 0, 255: 255}))
    assert pixels(opened(other)) == pixels(opened(other, kept=False))
    assert opened(other).pair(0)[1].tolist() != opened(dataset).pair(0)[1].tolist()


@pytest.mark.parametrize("length", [0, 1, 31, 32, 100, -1, -40, -200])
def test_a_file_that_is_cut_short_is_not_trusted(dataset: ImageSet, length: int) -> None:
    expected = pixels(opened(dataset))
    for path in files_of(dataset):
        path.write_bytes(path.read_bytes()[:length])
    assert pixels(opened(dataset)) == expected


@pytest.mark.parametrize("place", [-1, -33, 0])
def test_a_file_with_a_wrong_end_or_a_hole_is_not_trusted(dataset: ImageSet, place: int) -> None:
    expected = pixels(opened(dataset))
    for path in files_of(dataset):
        content = bytearray(path.read_bytes())
        if place:
            content[place] ^= 1
        else:
            del content[:100]  # the end is as it must be
        path.write_bytes(content)
    assert pixels(opened(dataset)) == expected


def test_a_process_that_died_on_the_way_leaves_nothing_that_is_read(dataset: ImageSet) -> None:
    expected = pixels(opened(dataset))
    for path in files_of(dataset):
        path.rename(path.with_name(f".{path.name}.part"))
    assert pixels(opened(dataset)) == expected
    assert not files_of(dataset, ".part")


@pytest.mark.parametrize(
    ("kind", "content"), [("image", b"no image"), ("image", None), ("label", b"no image"), ("label", None)]
)
def test_errors_are_those_of_decoding(dataset: ImageSet, kind: str, content: bytes | None) -> None:
    path: Path = getattr(dataset, f"{kind}_path")("train", "train003")
    ids = dataset.ids("train")
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError) as expected:
        pixels(Images(dataset, "train", ids, ids))
    with pytest.raises(DataError) as found:
        Images(dataset, "train", ids, ids, kept=True)
    assert str(found.value) == str(expected.value)
    assert not files_of(dataset, ".part")


def test_an_image_and_a_label_that_do_not_fit(dataset: ImageSet) -> None:
    replace_image(dataset.image_path("train", "train003"))
    with pytest.raises(DataError, match="they must agree"):
        opened(dataset)


def test_no_place_for_the_files(dataset: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be kept in .*decoded \(.*Not a directory.*set loading.cache: false"):
        opened(replace(dataset, decoded=tmp_path / "file" / "decoded"))


def test_a_full_disk(dataset: ImageSet) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(DataError, match=r"cannot be kept in .*File too large.*set loading.cache: false"):
            opened(dataset)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not files_of(dataset, ".part")
    assert not files_of(dataset)


def test_the_folder_is_that_of_interrupted_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folder(tmp_path / "data", {"train": COUNT})
    assert ImageSet.open(small_settings(root), tmp_path).decoded == tmp_path / ".scratch" / "decoded"
    monkeypatch.setenv("RRN_SCRATCH", str(tmp_path / "fast"))
    dataset = ImageSet.open(small_settings(root), tmp_path)
    opened(dataset)
    assert len(list((tmp_path / "fast" / "decoded").glob("*.pixels"))) == 2


def test_nothing_is_written_without_a_cache(dataset: ImageSet) -> None:
    pixels(opened(dataset, kept=False))
    assert not dataset.decoded.exists()


def test_other_processes_are_sent_a_path(dataset: ImageSet) -> None:
    images = opened(dataset)
    sent = pickle.dumps(images)
    assert len(sent) < sum(path.stat().st_size for path in files_of(dataset)) / 2
    assert pixels(pickle.loads(sent)) == pixels(images)
    files_of(dataset)[0].unlink()
    with pytest.raises(DataError, match="is missing"):
        pickle.loads(sent)


def test_reading_changes_no_file(dataset: ImageSet) -> None:
    images = opened(dataset)
    before = [path.read_bytes() for path in files_of(dataset)]
    images.image(0)[:] = 0
    assert [path.read_bytes() for path in files_of(dataset)] == before


@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=5)), st.integers(-8, 8), st.integers(-8, 8))
def test_ids_are_a_list(names: list[str], first: int, second: int) -> None:
    """Lone surrogates beyond those of file names cannot be encoded, and no file is called so."""
    names = [name.encode("utf-8", "replace").decode("utf-8") for name in names] + [*CLASSES, "caf\udce9"]
    ids = Ids(names)
    assert len(ids) == len(names)
    assert list(ids) == names
    assert ids[first:second] == tuple(names[first:second])
    assert ids[-1] == names[-1]
    for place in (len(names), -len(names) - 1):
        with pytest.raises(IndexError):
            ids[place]
    assert list(pickle.loads(pickle.dumps(ids))) == names
