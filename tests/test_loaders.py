"""What training reads: the same for every row, number of workers and number of processes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small import CROP, HEIGHT, WIDTH, partitioned, small_settings, write_folder

from rrn.config import IGNORE_INDEX, Settings
from rrn.data.files import DataError
from rrn.data.loaders import (
    Batch,
    Sampler,
    TrainingData,
    diagnosis_ids,
    preview,
    training_loader,
    whole_images,
)
from rrn.data.sets import ImageSet
from rrn.data.splits import Split

Data = tuple[ImageSet, Split, Settings]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return _opened(write_folder(tmp_path_factory.mktemp("loaders") / "data"))


@pytest.fixture
def own(tmp_path: Path) -> Data:
    return _opened(write_folder(tmp_path / "data"))


def _opened(root: Path, partition: str = "1of4") -> Data:
    settings = small_settings(root)
    dataset = ImageSet.open(settings, root.parent)
    return dataset, partitioned(dataset, settings, partition), settings


def _batches(data: Data, stop: int = 5, start: int = 0, **changes: Any) -> list[Batch]:
    arguments = {"seed": 0, "purpose": "train", **changes}
    return list(training_loader(*data, start=start, stop=stop, **arguments))


def _assert_same(first: Any, second: Any) -> None:
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for a, b in zip(first, second, strict=True):
            _assert_same(a, b)
    elif isinstance(first, Batch):
        _assert_same(list(vars(first).values()), list(vars(second).values()))
    else:
        assert first == second


def test_shapes(shared: Data) -> None:
    batch = _batches(shared, 1)[0]
    assert (batch.images.shape, batch.images.dtype) == ((4, 3, CROP, CROP), torch.uint8)
    assert (batch.labels.shape, batch.labels.dtype) == ((4, CROP, CROP), torch.int64)
    for half in range(2):
        assert batch.unlabeled[half].shape == (4, 3, CROP, CROP)
        assert batch.unlabeled[half].dtype == torch.uint8
        assert batch.unlabeled_valid[half].shape == (4, 1, CROP, CROP)
        assert batch.unlabeled_valid[half].dtype == torch.bool
        padding = ~batch.unlabeled_valid[half].expand(-1, 3, -1, -1)
        assert torch.all(batch.unlabeled[half][padding] == 0)
    assert (batch.mix.shape, batch.mix.dtype) == ((4, 1, CROP, CROP), torch.bool)
    assert set(batch.labels.unique().tolist()) <= {0, 1, 2, IGNORE_INDEX}
    assert set(batch.labeled_ids) <= set(shared[1].labeled)
    assert {*batch.unlabeled_ids[0], *batch.unlabeled_ids[1]} <= set(shared[1].unlabeled)


def test_batches_move_as_a_whole(shared: Data) -> None:
    moved = _batches(shared, 1)[0].to("meta")
    tensors = [moved.images, moved.labels, *moved.unlabeled, *moved.unlabeled_valid, moved.mix]
    assert all(tensor.device.type == "meta" for tensor in tensors)
    whole = next(iter(whole_images(shared[0], "val", shared[1].val, 2)))
    assert whole.to("meta").labels.device.type == "meta"


def test_same_for_any_number_of_workers(shared: Data) -> None:
    expected = _batches(shared)
    dataset, split, settings = shared
    for workers in (1, 2):
        changed = settings.model_copy(update={"workers": workers})
        _assert_same(_batches((dataset, split, changed)), expected)


def test_same_when_resumed_and_without_cache(shared: Data, tmp_path: Path) -> None:
    expected = _batches(shared, 6)
    _assert_same(_batches(shared, 6, start=3), expected[3:])
    dataset, split, settings = shared
    changed = small_settings(Path(settings.dataset.path), dataset={"cache": False})
    _assert_same(_batches((dataset, split, changed), 6), expected)


def test_processes_share_the_same_data(shared: Data) -> None:
    one = _batches(shared)
    ranks = [_batches(shared, rank=rank, world=2) for rank in range(2)]
    for step, batch in enumerate(one):
        for rank in range(2):
            part = ranks[rank][step]
            assert part.labeled_ids == batch.labeled_ids[rank::2]
            _assert_same(part.images, batch.images[rank::2])
            _assert_same(part.labels, batch.labels[rank::2])
            _assert_same(part.mix, batch.mix[rank::2])
            for half in range(2):
                assert part.unlabeled_ids[half] == batch.unlabeled_ids[half][rank::2]
                _assert_same(part.unlabeled[half], batch.unlabeled[half][rank::2])
                _assert_same(part.unlabeled_valid[half], batch.unlabeled_valid[half][rank::2])


def test_rows_without_unlabeled_images_see_the_same_labeled_ones(shared: Data) -> None:
    for with_all, without in zip(_batches(shared), _batches(shared, unlabeled=False), strict=True):
        _assert_same(without.images, with_all.images)
        _assert_same(without.labels, with_all.labels)
        assert without.unlabeled[0].shape == (0, 3, CROP, CROP)
        assert without.unlabeled_valid[1].shape == without.mix.shape == (0, 1, CROP, CROP)
        assert without.unlabeled_ids == ((), ())


def test_seeds_and_stages_differ(shared: Data) -> None:
    first = _batches(shared, 1)[0]
    for other in (_batches(shared, 1, seed=1), _batches(shared, 1, purpose="warmup")):
        assert other[0].unlabeled_ids != first.unlabeled_ids
        assert not torch.equal(other[0].images, first.images)
        assert not torch.equal(other[0].mix, first.mix)


def test_labels_of_unlabeled_images_are_not_read(own: Data) -> None:
    expected = _batches(own)
    for name in own[1].unlabeled:
        own[0].label_path("train", name).unlink()
    _assert_same(_batches(own), expected)


def test_all_labels_is_the_upper_bound(own: Data) -> None:
    dataset, split, _ = own
    seen = {name for batch in _batches(own, 4, all_labels=True) for name in batch.labeled_ids}
    assert seen == set(dataset.ids("train"))
    dataset.label_path("train", split.unlabeled[0]).unlink()
    seen = {name for batch in _batches(own, 9, all_labels=True) for name in batch.labeled_ids}
    assert seen == set(dataset.ids("train")) - {split.unlabeled[0]}


def test_every_image_once_an_epoch(shared: Data) -> None:
    batches = _batches(shared, 3)
    assert sorted(sum((b.unlabeled_ids[0] for b in batches), ())) == sorted(shared[1].unlabeled)
    for batch in batches:
        assert sorted(batch.labeled_ids) == sorted(shared[1].labeled)


def test_a_single_labeled_image_repeats(shared: Data) -> None:
    dataset, split, settings = shared
    few = replace(split, labeled=split.labeled[:1])
    batch = TrainingData(dataset, few, settings, 0, "train")[0]
    assert batch.labeled_ids == few.labeled * 4
    assert not torch.equal(batch.images[0], batch.images[1])


@given(
    count=st.integers(2, 12),
    seed=st.integers(0, 2**32),
    position=st.integers(0, 200),
)
def test_partner_is_never_the_image_itself(count: int, seed: int, position: int) -> None:
    ids = [str(i) for i in range(count)]
    first, second = (Sampler(ids, seed, f"train unlabeled order {half}") for half in range(2))
    name = first(position)
    assert second(position, unlike=name) != name
    plain = second(position)
    assert second(position, unlike=name) == plain or plain == name


def test_partners_with_two_unlabeled_images(shared: Data) -> None:
    dataset, split, settings = shared
    few = replace(split, unlabeled=split.unlabeled[:2])
    for batch in _batches((dataset, few, settings), 10):
        assert all(a != b for a, b in zip(*batch.unlabeled_ids, strict=True))


def test_too_few_unlabeled_images(shared: Data) -> None:
    dataset, split, settings = shared
    few = replace(split, unlabeled=split.unlabeled[:1])
    with pytest.raises(DataError, match="leaves 1 unlabeled images, and CutMix needs 2 different"):
        training_loader(dataset, few, settings, 0, 0, 1, "train")
    assert len(_batches((dataset, few, settings), 1, unlabeled=False)) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_image_is_named(own: Data, workers: int) -> None:
    dataset, split, settings = own
    for name in split.labeled:
        dataset.image_path("train", name).write_bytes(b"no image")
    changed = settings.model_copy(update={"workers": workers})
    with pytest.raises(DataError, match=r"image .*images/train/train.*jpg cannot be read"):
        _batches((dataset, split, changed), 1)


def test_missing_label_of_a_labeled_image_is_named(own: Data) -> None:
    for name in own[1].labeled:
        own[0].label_path("train", name).unlink()
    with pytest.raises(DataError, match=r"label .*labels/train/train.*png is missing"):
        _batches(own, 1)


def test_whole_images_come_once(shared: Data) -> None:
    dataset, split, _ = shared
    batches = list(whole_images(dataset, "val", split.val, 3))
    assert [len(batch.ids) for batch in batches] == [3, 1]
    assert sum((batch.ids for batch in batches), ()) == split.val
    assert (batches[0].images.shape, batches[0].images.dtype) == (
        (3, 3, HEIGHT, WIDTH),
        torch.uint8,
    )
    assert (batches[0].labels.shape, batches[0].labels.dtype) == ((3, HEIGHT, WIDTH), torch.int64)
    image, label = dataset.pair("val", split.val[1])
    assert torch.equal(batches[0].images[1].permute(1, 2, 0), torch.from_numpy(image))
    assert torch.equal(batches[0].labels[1], torch.from_numpy(label).long())


def test_whole_images_of_several_sizes_and_processes(own: Data) -> None:
    dataset, split, _ = own
    for place in (3, 4):
        for path in (
            dataset.image_path("train", split.unlabeled[place]),
            dataset.label_path("train", split.unlabeled[place]),
        ):
            Image.new("RGB" if path.suffix == ".jpg" else "L", (9, 7)).save(path)
    one = whole_images(dataset, "train", split.unlabeled, 2)
    assert [len(batch.ids) for batch in one] == [2, 1, 2, 2, 2, 2, 1]
    assert sum((batch.ids for batch in one), ()) == split.unlabeled
    parts = [whole_images(dataset, "train", split.unlabeled, 2, rank, 2) for rank in range(2)]
    assert [batch.ids for batch in parts[0]] == [batch.ids for batch in one][0::2]
    assert [batch.ids for batch in parts[1]] == [batch.ids for batch in one][1::2]
    assert len(parts[0]) + len(parts[1]) == len(one)


def test_whole_images_can_stay_in_memory(own: Data) -> None:
    dataset, split, _ = own
    images = whole_images(dataset, "val", split.val, 3, cache=True)
    first = list(images)
    dataset.image_path("val", split.val[0]).unlink()
    assert all(a is b for a, b in zip(first, images, strict=True))


def test_diagnosis_leaves_out_images_without_labels(own: Data) -> None:
    dataset, split, _ = own
    assert diagnosis_ids(dataset, split, 100) == split.unlabeled
    assert diagnosis_ids(dataset, split, 3) == (
        split.unlabeled[0],
        split.unlabeled[4],
        split.unlabeled[8],
    )
    assert diagnosis_ids(dataset, split, 0) == ()
    dataset.label_path("train", split.unlabeled[0]).unlink()
    assert diagnosis_ids(dataset, split, 100) == split.unlabeled[1:]
    for name in split.unlabeled[1:]:
        dataset.label_path("train", name).unlink()
    assert diagnosis_ids(dataset, split, 3) == ()


def test_preview_is_the_first_batch(shared: Data) -> None:
    dataset, split, settings = shared
    _assert_same(preview(settings, split, dataset.layout.root.parent, 0), _batches(shared, 1)[0])


def test_global_generator_is_left_alone(shared: Data) -> None:
    before = torch.get_rng_state()
    _batches(shared, 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_are_as_before(shared: Data) -> None:
    threads = torch.get_num_threads()
    _batches(shared, 1)
    assert torch.get_num_threads() == threads
