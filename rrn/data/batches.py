"""What training and evaluation read: a `Batch` per step, and whole images, each exactly once.

The batch of a step is a function of (seed, stage, step): the rows of the ablation, any number of
loader workers or processes, and a resumed run see the same data, and a row that needs no unlabeled
images gets the same labeled ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from rrn.config import Settings
from rrn.data.decoding import DataError, Size
from rrn.data.image_set import ImageSet
from rrn.data.images import Images
from rrn.data.prefetch import prepared
from rrn.data.splits import Split, evenly_spaced
from rrn.data.transforms import augment, cutmix_boxes, strong_view
from rrn.runtime import memory, seeding
from rrn.settings.limits import LARGEST

Purpose = Literal["warmup", "train", "pretrain"]


def _tensors(item: Any, function: Callable[[Tensor], Tensor]) -> list[Any]:
    """Return the fields of a dataclass, `function` applied to every tensor, alone or in tuples."""

    def apply(value: Any) -> Any:
        if isinstance(value, Tensor):
            return function(value)
        return tuple(map(apply, value)) if isinstance(value, tuple) else value

    return [apply(getattr(item, field.name)) for field in fields(item)]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: crops are too small to share out, and the bits are the same."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Batch:
    """The data of one step, on one process.

    Attributes:
        images: labeled images, uint8 [B, 3, H, W], 0 in padding.
        labels: int64 [B, H, W], IGNORE_INDEX where void or padding.
        unlabeled: u0 and u1, uint8 [B', 3, H, W] each; B' is 0 where a row asked for none.
        unlabeled_valid: bool [B', 1, H, W] each, False in padding.
        mix: CutMix boxes, bool [B', 1, H, W], True = from u1.
        labeled_ids: ids of `images`.
        unlabeled_ids: ids of u0 and of u1; in no position the same.
        strong: `unlabeled` as students see them, u0 and u1 of a view and then of the next, 0 in padding; None where a
            row has `strong: null`.
    """

    images: Tensor
    labels: Tensor
    unlabeled: tuple[Tensor, Tensor]
    unlabeled_valid: tuple[Tensor, Tensor]
    mix: Tensor
    labeled_ids: tuple[str, ...]
    unlabeled_ids: tuple[tuple[str, ...], tuple[str, ...]]
    strong: tuple[Tensor, ...] | None = None

    def to(self, device: torch.device | str) -> Batch:
        """Return a copy on `device`; out of pinned memory it is made without waiting."""
        return Batch(*_tensors(self, lambda tensor: tensor.to(device, non_blocking=True)))

    def pin_memory(self) -> Batch:
        """Return a copy in page-locked memory; DataLoader calls it."""
        return Batch(*_tensors(self, Tensor.pin_memory))


@dataclass(frozen=True)
class WholeBatch:
    """Whole images of one size.

    Attributes:
        images: uint8 [B, 3, H, W].
        labels: int64 [B, H, W], IGNORE_INDEX where void.
        ids: of the images.
    """

    images: Tensor
    labels: Tensor
    ids: tuple[str, ...]

    def to(self, device: torch.device | str) -> WholeBatch:
        """Return a copy on `device`; out of pinned memory it is made without waiting."""
        return WholeBatch(*_tensors(self, lambda tensor: tensor.to(device, non_blocking=True)))

    def pin_memory(self) -> WholeBatch:
        """Return a copy in page-locked memory; DataLoader calls it."""
        return WholeBatch(*_tensors(self, Tensor.pin_memory))


class _Crops(NamedTuple):
    """Images u8 [B, 3, H, W], labels int64 [B, H, W], valid bool [B, H, W] and ids; B may be 0."""

    images: Tensor
    labels: Tensor
    valid: Tensor
    ids: tuple[str, ...]


class Sampler:
    """Which image stands where in an endless sequence: one seeded permutation after the other.

    Args:
        places: of the images to go through, int64 [N]; fewer than a batch repeat within it.
        seed: of the run.
        purpose: name of the order; another name, another order.
    """

    def __init__(self, places: NDArray[np.int64], seed: int, purpose: str) -> None:
        """Keep the arguments; nothing is drawn yet."""
        self.places, self.seed, self.purpose = places, seed, purpose
        self._epoch, self._order = -1, places[:0]

    def __call__(self, position: int, unlike: int | None = None) -> int:
        """Return the place at a position, or the next one of its permutation if that is `unlike`."""
        epoch, turn = divmod(position, len(self.places))
        if epoch != self._epoch:
            draw = seeding.generator(self.seed, self.purpose, epoch)
            self._order = self.places[torch.randperm(len(self.places), generator=draw).numpy()]
            self._epoch = epoch
        place = int(self._order[turn])
        return int(self._order[(turn + 1) % len(self._order)]) if place == unlike else place


class TrainingData(Dataset[Batch]):
    """The batch of every step of a stage; `data[step]`.

    Args:
        dataset: where the images lie.
        split: who is labeled.
        settings: augment, batch, cutmix, loading.cache, method.strong.
        seed: of the run.
        purpose: warmup, train or pretrain (of discriminators); each sees other orders and crops.
        rank: of this process; it takes the images rank, rank + world, ... of a batch.
        world: number of processes.
        unlabeled: whether unlabeled images are read at all.
        all_labels: whether every train image that has a label counts as labeled (upper bound).

    Raises:
        DataError: if unlabeled images are asked for and there are fewer than 2: nothing to mix; with `loading.cache`,
            if an image or a label is missing or wrong, or there is no place for the decoded ones.
    """

    def __init__(
        self,
        dataset: ImageSet,
        split: Split,
        settings: Settings,
        seed: int,
        purpose: Purpose,
        rank: int = 0,
        world: int = 1,
        unlabeled: bool = True,
        all_labels: bool = False,
    ) -> None:
        """See the class."""
        if unlabeled and len(split.unlabeled) < 2:
            raise DataError(
                f"the partition {split.partition} leaves {len(split.unlabeled)} unlabeled "
                "images, and CutMix needs 2 different ones: label fewer (ablation.partitions), or "
                "train only rows with consistency: false"
            )
        self.settings, self.seed, self.purpose = settings, seed, purpose
        self.rank, self.world, self.unlabeled = rank, world, unlabeled
        with_labels = dataset.labeled_ids(dataset.train) if all_labels else split.labeled
        without = split.unlabeled if unlabeled else ()
        ids = sorted({*with_labels, *without})
        self.images = Images(dataset, dataset.train, ids, with_labels, settings.loading.cache)
        labeled, others = _places(ids, with_labels), _places(ids, without)
        self.labeled_order = Sampler(labeled, seed, f"{purpose} labeled order")
        self.unlabeled_order = [Sampler(others, seed, f"{purpose} unlabeled order {half}") for half in range(2)]

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step.

        Raises:
            DataError: if an image or a label is missing or wrong, or has changed since.
        """
        with _one_thread():
            labeled = self._labeled(step)
            (first, second), mix = self._unlabeled(step)
            strong = self._strong((first, second), step)
        return Batch(
            images=labeled.images,
            labels=labeled.labels,
            unlabeled=(first.images, second.images),
            unlabeled_valid=(first.valid[:, None], second.valid[:, None]),
            mix=mix,
            labeled_ids=labeled.ids,
            unlabeled_ids=(first.ids, second.ids),
            strong=strong,
        )

    def _labeled(self, step: int) -> _Crops:
        total = self.settings.batch.labeled
        mine = range(self.rank, total, self.world)
        places = [self.labeled_order(step * total + i) for i in mine]
        return self._crops(places, True, "labeled", step, mine)

    def _unlabeled(self, step: int) -> tuple[tuple[_Crops, _Crops], Tensor]:
        """Return both halves and the boxes, bool [B', 1, H, W]."""
        total, crop = self.settings.batch.unlabeled, self.settings.augment.crop
        mine = range(self.rank, total, self.world) if self.unlabeled else range(0)
        first = [self.unlabeled_order[0](step * total + i) for i in mine]
        second = [self.unlabeled_order[1](step * total + i, unlike=one) for i, one in zip(mine, first, strict=True)]
        halves = (
            self._crops(first, False, "unlabeled 0", step, mine),
            self._crops(second, False, "unlabeled 1", step, mine),
        )
        boxes = [cutmix_boxes(1, crop, crop, self.settings.cutmix, self._draw("cutmix", step, i)) for i in mine]
        return halves, torch.cat([torch.zeros(0, 1, crop, crop, dtype=torch.bool), *boxes])

    def _strong(self, halves: tuple[_Crops, _Crops], step: int) -> tuple[Tensor, ...] | None:
        """Return the students' views of both halves, view by view, if the row has any, uint8 [B', 3, H, W] each."""
        how = self.settings.method.strong
        if how is None or not self.unlabeled:
            return None
        views = [torch.zeros_like(half.images) for half in how.views * halves]
        for number, (half, view) in enumerate(zip(how.views * halves, views, strict=True)):
            for i, image in enumerate(half.images):
                draw = self._draw(f"strong {number}", step, self.rank + i * self.world)
                view[i] = strong_view(image, half.valid[i], how, draw)
        return tuple(views)

    def _crops(self, places: Sequence[int], with_labels: bool, what: str, step: int, indices: range) -> _Crops:
        """Read and cut the images at `places` of the list, which stand at the global `indices` of the batch."""
        crop = self.settings.augment.crop
        images = torch.zeros(len(places), 3, crop, crop, dtype=torch.uint8)
        labels = torch.zeros(len(places), crop, crop, dtype=torch.int64)
        valid = torch.zeros(len(places), crop, crop, dtype=torch.bool)
        for i, (place, index) in enumerate(zip(places, indices, strict=True)):
            image, label = self._read(place, with_labels)
            draw = self._draw(f"augment {what}", step, index)
            images[i], labels[i], valid[i] = augment(image, label, self.settings.augment, draw)
        return _Crops(images, labels, valid, tuple(self.images.ids[place] for place in places))

    def _draw(self, purpose: str, step: int, index: int) -> torch.Generator:
        return seeding.generator(self.seed, f"{self.purpose} {purpose}", step, index)

    def _read(self, place: int, with_label: bool) -> tuple[Tensor, Tensor | None]:
        """Return a train image u8 [3, H, W] and, only if it is wanted, its label u8 [H, W]."""
        if not with_label:
            return torch.from_numpy(self.images.image(place)).permute(2, 0, 1), None
        pixels, indices = self.images.pair(place)
        return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(indices)


def _places(ids: Sequence[str], names: Sequence[str]) -> NDArray[np.int64]:
    """Return where each of `names` stands in `ids`, int64 [N]."""
    known = {name: place for place, name in enumerate(ids)}
    return np.array([known[name] for name in names], dtype=np.int64)


def training_loader(
    dataset: ImageSet,
    split: Split,
    settings: Settings,
    seed: int,
    start: int,
    stop: int,
    purpose: Purpose,
    rank: int = 0,
    world: int = 1,
    unlabeled: bool = True,
    all_labels: bool = False,
) -> Iterable[Batch]:
    """Return the batches of the steps `start` to `stop` - 1 in order.

    The arguments are those of `TrainingData`. `loading.workers` processes prepare them (0: this
    one); with a GPU they are in pinned memory.

    Raises:
        DataError: at once if there is too little to mix; at its step if an image or label is wrong or has changed.
        WorkerError: at a step, if one of these processes was killed.
    """
    data = TrainingData(dataset, split, settings, seed, purpose, rank, world, unlabeled, all_labels)
    pinned = settings.device != "cpu" and torch.cuda.is_available()
    return prepared(data, range(start, stop), settings.loading.workers, pinned)


class WholeImages:
    """Whole labeled images of one split, in fixed batches of equal size; iterate again at will.

    Args:
        dataset: where the images lie.
        split: name of the folder: dataset.val, dataset.test, or dataset.train for diagnosis.
        ids: images, in this order; every one comes exactly once over all processes.
        batch: most images of a batch; a batch ends early where the next image has another size.
        rank: of this process; it takes the batches rank, rank + world, ...; what a batch holds does
            not depend on `world`.
        world: number of processes.
        cache: decode all images once for all processes and stages (`loading.cache`), not at each iteration.
        pixels: most pixels of a batch of several images; a larger image comes alone.

    Attributes:
        ids: of all images, on any process.
        sizes: all different (height, width) of the images, on any process.

    Raises:
        DataError: if an image is missing or broken; with `cache`, as `Images`.
    """

    def __init__(
        self,
        dataset: ImageSet,
        split: str,
        ids: Sequence[str],
        batch: int,
        rank: int = 0,
        world: int = 1,
        cache: bool = False,
        pixels: int = LARGEST,
    ) -> None:
        """Look at the sizes of all images; without `cache`, nothing is decoded yet."""
        self.images = Images(dataset, split, ids, ids, cache)
        self.ids = self.images.ids
        shapes = np.array([self.images.size(place) for place in range(len(ids))], dtype=np.int64).reshape(-1, 2)
        self.sizes: tuple[Size, ...] = tuple(dict.fromkeys((h, w) for h, w in shapes.tolist()))
        self._groups = _equal_sizes(shapes, batch, pixels)[rank::world]

    def __len__(self) -> int:
        """Return the number of batches of this process."""
        return len(self._groups)

    def __iter__(self) -> Iterator[WholeBatch]:
        """Yield the batches of this process.

        Raises:
            DataError: if an image or a label is missing or wrong.
        """
        for start, stop in self._groups:
            pairs = [self.images.pair(place) for place in range(start, stop)]
            images = torch.stack([torch.from_numpy(image) for image, _ in pairs]).permute(0, 3, 1, 2)
            labels = torch.stack([torch.from_numpy(label) for _, label in pairs])
            yield WholeBatch(images.contiguous(), labels.long(), self.ids[start:stop])


def _equal_sizes(shapes: NDArray[np.int64], batch: int, pixels: int = LARGEST) -> NDArray[np.int64]:
    """Return the first place, and that after the last, of groups of consecutive images of one size, int64 [G, 2].

    A group holds at most `batch` images, and several no more than `pixels`; `shapes` is [N, 2].
    """
    changes = np.flatnonzero((shapes[1:] != shapes[:-1]).any(axis=1)) + 1
    bounds = [0, *changes.tolist(), len(shapes)]
    runs = [(start, stop) for start, stop in pairwise(bounds) if start < stop]
    steps = [memory.at_once((int(shapes[start, 0]), int(shapes[start, 1])), batch, pixels) for start, _ in runs]
    starts = [np.arange(*run, step, dtype=np.int64) for run, step in zip(runs, steps, strict=True)]
    ends = np.append(np.concatenate([np.zeros(0, dtype=np.int64), *starts]), len(shapes))
    return np.stack([ends[:-1], ends[1:]], axis=1)


def diagnosis_ids(dataset: ImageSet, split: Split, count: int) -> tuple[str, ...]:
    """Return `count` unlabeled images that do have a label file, spread evenly, or all if fewer.

    For looking at the quality of pseudo-labels only; training never reads these labels.
    """
    known = [name for name in split.unlabeled if dataset.label_path(dataset.train, name).is_file()]
    return evenly_spaced(known, count)


def preview(settings: Settings, split: Split, root: Path, seed: int) -> Batch:
    """Return the first batch of training as a notebook shows it, all images of the step.

    Raises:
        DataError: if the data set is missing or wrong.
    """
    dataset = ImageSet.open(settings, root)
    unlabeled = len(split.unlabeled) >= 2
    return TrainingData(dataset, split, settings, seed, "train", unlabeled=unlabeled)[0]
