"""What training reads: the same for every row, number of workers and number of processes."""

import gc
import hashlib
from dataclasses import replace
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small import CROP, HEIGHT, WIDTH, partitioned, small_settings, write_folder

from rrn.config import IGNORE_INDEX, Augment, Settings, Strong
from rrn.data.batches import (
    Batch,
    Sampler,
    TrainingData,
    WholeImages,
    _equal_sizes,
    diagnosis_ids,
    preview,
    training_loader,
)
from rrn.data.decoding import DataError
from rrn.data.image_set import ImageSet
from rrn.data.splits import Split
from rrn.data.transforms import augment

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
    moved = _batches(_strong(shared), 1)[0].to("meta")
    tensors = [moved.images, moved.labels, *moved.unlabeled, *moved.unlabeled_valid, moved.mix, *moved.strong]
    assert all(tensor.device.type == "meta" for tensor in tensors)
    whole = next(iter(WholeImages(shared[0], "val", shared[1].val, 2)))
    assert whole.to("meta").labels.device.type == "meta"


@pytest.mark.parametrize("views", [0, 1, 2])
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_same_for_any_number_of_workers_and_processes(
    shared: Data, views: int, kept: bool, workers: int, world: int
) -> None:
    shared = _strong(shared, jitter=0.5, gray=0.5, blur=0.5, views=views) if views else shared
    expected = _batches(_with(shared, cache=False, workers=0))
    ranks = [_batches(_with(shared, kept, workers), rank=rank, world=world) for rank in range(world)]
    for step, batch in enumerate(expected):
        parts = [_flat(ranks[rank][step]) for rank in range(world)]
        for place, whole in enumerate(_flat(batch)):
            for rank in range(world):
                _assert_same(parts[rank][place], whole[rank::world])


def _with(data: Data, cache: bool, workers: int) -> Data:
    dataset, split, settings = data
    changed = settings.loading.model_copy(update={"cache": cache, "workers": workers})
    return dataset, split, settings.model_copy(update={"loading": changed})


def _strong(data: Data, **values: Any) -> Data:
    """Let students see strong views of the unlabeled images."""
    dataset, split, settings = data
    strong = Strong(**(values or {"jitter": 0.5, "gray": 0.5, "blur": 0.5}))
    method = settings.method.model_copy(update={"strong": strong})
    return dataset, split, settings.model_copy(update={"method": method})


def test_strong_views_are_of_the_crops_that_the_teachers_see(shared: Data) -> None:
    for strong, plain in zip(_batches(_strong(shared)), _batches(shared), strict=True):
        assert plain.strong is None
        _assert_same(replace(strong, strong=None), plain)
        for view, seen, valid in zip(strong.strong, plain.unlabeled, plain.unlabeled_valid, strict=True):
            assert (view.shape, view.dtype) == (seen.shape, torch.uint8)
            assert not torch.equal(view, seen)
            assert torch.all(view[~valid.expand_as(view)] == 0)


def test_strong_views_of_no_strength_are_the_crops(shared: Data) -> None:
    batch = _batches(_strong(shared, jitter=0.0), 1)[0]
    _assert_same(batch.strong, batch.unlabeled)


def test_strong_views_differ_by_image_half_step_and_seed(shared: Data) -> None:
    """Each crop is gray or not by a draw of its own."""
    batches = _batches(_strong(shared, gray=0.5)) + _batches(_strong(shared, gray=0.5), seed=1)
    gray = torch.stack([_is_gray(torch.stack(batch.strong)) for batch in batches])
    assert gray.shape == (10, 2, 4)
    assert all(len({tuple(row.flatten().tolist()) for row in gray.unbind(axis)}) > 1 for axis in range(3))
    assert not torch.equal(gray[:5], gray[5:])


def test_a_second_strong_view_leaves_the_first_as_it_is_and_has_draws_of_its_own(shared: Data) -> None:
    how = {"jitter": 0.5, "gray": 0.5, "blur": 0.5}
    single, double = (_batches(_strong(shared, views=views, **how)) for views in (1, 2))
    for one, two in zip(single, double, strict=True):
        _assert_same(replace(two, strong=two.strong[:2]), one)
        assert len(two.strong) == 4
        for first, second, valid in zip(two.strong[:2], two.strong[2:], two.unlabeled_valid, strict=True):
            assert not torch.equal(first, second)
            assert torch.all(second[~valid.expand_as(second)] == 0)
    gray = torch.stack([_is_gray(torch.stack(batch.strong)) for batch in double])
    assert len({tuple(draws.flatten().tolist()) for draws in gray.unbind(1)}) == 4
    for batch in _batches(_strong(shared, jitter=0.0, views=2), 1):
        _assert_same(batch.strong, 2 * batch.unlabeled)


def _is_gray(images: torch.Tensor) -> torch.Tensor:
    """Return which images [..., 3, H, W] have three equal channels."""
    return (images == images[..., :1, :, :]).flatten(-3).all(-1)


def test_a_row_without_strong_views_pays_nothing(shared: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rrn.data.batches.strong_view", None)
    assert all(batch.strong is None for batch in _batches(shared))
    assert all(batch.strong is None for batch in _batches(_strong(shared), unlabeled=False))


def _flat(batch: Batch) -> list[Any]:
    """Return all that a batch holds by image."""
    pairs = (batch.unlabeled, batch.unlabeled_valid, batch.unlabeled_ids, batch.strong or ())
    halves = [half for pair in pairs for half in pair]
    return [batch.images, batch.labels, batch.mix, batch.labeled_ids, *halves]


@pytest.mark.parametrize(
    ("purpose", "digest"),
    [
        ("warmup", "d045e1087c565521b33cb9320a7781ee5d8c754c6b1f7140d551a6c7a5587176"),
        ("train", "f253c1da50999a2734536239c97161138c96ae1fc40b357bd79237b81c42b1e1"),
    ],
)
def test_the_order_of_the_images_of_a_seed(shared: Data, purpose: str, digest: str) -> None:
    """Committed results are of this order."""
    dataset, split, settings = shared
    names = tuple(f"train{place:03d}" for place in range(16))
    fixed = replace(split, labeled=names[3::4], unlabeled=tuple(n for n in names if n not in names[3::4]))
    batches = _batches((dataset, fixed, settings), 20, seed=7, purpose=purpose)
    text = repr([(batch.labeled_ids, batch.unlabeled_ids) for batch in batches])
    assert hashlib.sha256(text.encode()).hexdigest() == digest


def test_long_lists_are_few_objects(shared: Data) -> None:
    """Each object that a worker looks at costs it memory of its own."""
    dataset, split, settings = _with(shared, cache=False, workers=0)
    many = tuple(f"more{place:05d}" for place in range(5000))
    data = TrainingData(dataset, replace(split, unlabeled=(*split.unlabeled, *many)), settings, 0, "train")
    assert len(data.images) == len(split.labeled) + len(split.unlabeled) + 5000
    for sampler in (data.labeled_order, *data.unlabeled_order):
        sampler(0)
    assert _objects(data) < 1000


def test_whole_images_are_few_objects(shared: Data) -> None:
    dataset, split, _ = shared
    assert _objects(WholeImages(dataset, "train", [split.unlabeled[0]] * 2000, 2)) < 1000


def _objects(thing: object) -> int:
    """Count what can be reached from an object, code and what is shared by all aside."""
    seen: dict[int, object] = {}
    todo = [thing]
    while todo:
        found = todo.pop()
        if id(found) in seen or isinstance(found, type | ModuleType | FunctionType | Settings):
            continue
        seen[id(found)] = found
        todo += gc.get_referents(found)
    return len(seen)


def test_same_when_resumed_and_without_cache(shared: Data, tmp_path: Path) -> None:
    shared = _strong(shared)
    expected = _batches(shared, 6)
    _assert_same(_batches(shared, 6, start=3), expected[3:])
    _assert_same(_batches(_with(shared, cache=False, workers=0), 6), expected)


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
    places = np.arange(count)
    first, second = (Sampler(places, seed, f"train unlabeled order {half}") for half in range(2))
    place = first(position)
    assert second(position, unlike=place) != place
    plain = second(position)
    assert second(position, unlike=place) == plain or plain == place


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
    changed = settings.model_copy(update={"loading": settings.loading.model_copy(update={"workers": workers})})
    with pytest.raises(DataError, match=r"image .*images/train/train.*jpg cannot be read"):
        _batches((dataset, split, changed), 1)


def test_missing_label_of_a_labeled_image_is_named(own: Data) -> None:
    for name in own[1].labeled:
        own[0].label_path("train", name).unlink()
    with pytest.raises(DataError, match=r"label .*labels/train/train.*png is missing"):
        _batches(own, 1)


def test_whole_images_come_once(shared: Data) -> None:
    dataset, split, _ = shared
    batches = list(WholeImages(dataset, "val", split.val, 3))
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
    one = WholeImages(dataset, "train", split.unlabeled, 2)
    assert [len(batch.ids) for batch in one] == [2, 1, 2, 2, 2, 2, 1]
    assert sum((batch.ids for batch in one), ()) == split.unlabeled
    parts = [WholeImages(dataset, "train", split.unlabeled, 2, rank, 2) for rank in range(2)]
    assert [batch.ids for batch in parts[0]] == [batch.ids for batch in one][0::2]
    assert [batch.ids for batch in parts[1]] == [batch.ids for batch in one][1::2]
    assert len(parts[0]) + len(parts[1]) == len(one)


def test_whole_images_decoded_once_are_the_same(own: Data) -> None:
    dataset, split, _ = own
    expected = list(WholeImages(dataset, "val", split.val, 3))
    images = WholeImages(dataset, "val", split.val, 3, cache=True)
    dataset.image_path("val", split.val[0]).write_bytes(b"no image")
    for _ in range(2):
        for batch, plain in zip(images, expected, strict=True):
            _assert_same(list(vars(batch).values()), list(vars(plain).values()))


@given(shapes=st.lists(st.tuples(st.integers(1, 2), st.integers(1, 2)), max_size=20), batch=st.integers(1, 4))
def test_groups_of_equal_sizes(shapes: list[tuple[int, int]], batch: int) -> None:
    groups = _equal_sizes(np.array(shapes, dtype=np.int64).reshape(-1, 2), batch).tolist()
    assert [place for start, stop in groups for place in range(start, stop)] == list(range(len(shapes)))
    for start, stop in groups:
        assert 0 < stop - start <= batch
        assert len(set(shapes[start:stop])) == 1
        full = stop - start == batch
        assert full or stop == len(shapes) or shapes[stop] != shapes[start]


@pytest.mark.parametrize(
    ("size", "batch", "pixels", "groups"),
    [
        ((10, 10), 4, 1000, [4, 2]),
        ((10, 10), 4, 399, [3, 3]),
        ((10, 10), 4, 100, [1, 1, 1, 1, 1, 1]),
        ((10, 10), 4, 99, [1, 1, 1, 1, 1, 1]),
        ((1500, 2000), 32, 1 << 20, [1, 1, 1, 1, 1, 1]),
        ((64, 64), 32, 1 << 20, [6]),
    ],
)
def test_a_group_has_no_more_pixels_than_are_looked_at_together(size, batch, pixels, groups) -> None:
    found = _equal_sizes(np.array([size] * 6), batch, pixels)
    assert (found[:, 1] - found[:, 0]).tolist() == groups


def test_whole_images_are_the_same_however_many_come_together(shared) -> None:
    dataset, split = shared[0], shared[1]
    together, alone = (list(WholeImages(dataset, "val", split.val, 3, pixels=most)) for most in (1 << 20, 1))
    assert {len(batch.ids) for batch in alone} == {1}
    assert [name for batch in alone for name in batch.ids] == [name for batch in together for name in batch.ids]
    images = [[image for batch in batches for image in batch.images] for batches in (together, alone)]
    assert all(torch.equal(one, other) for one, other in zip(*images, strict=True))


@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_crops_do_not_depend_on_where_channels_lie(height: int, width: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=draw).permute(2, 0, 1)
    settings = Augment(crop=CROP, scales=(0.5, 2.0), flip=True, jitter=0.2)
    crops = [augment(image, None, settings, draw.manual_seed(seed)) for image in (pixels, pixels.contiguous())]
    _assert_same(crops[0], crops[1])


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
    _batches(_strong(shared), 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_are_as_before(shared: Data) -> None:
    threads = torch.get_num_threads()
    _batches(shared, 1)
    assert torch.get_num_threads() == threads
