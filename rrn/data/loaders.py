"""What training and evaluation read: a `Batch` per step, and whole images, each exactly once.

The batch of a step is a function of (seed, stage, step): the rows of the ablation, any number of
loader workers or processes, and a resumed run see the same data, and a row that needs no unlabeled
images gets the same labeled ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rrn import draws
from rrn.config import Settings
from rrn.data.files import DataError, Size
from rrn.data.sets import ImageSet
from rrn.data.splits import Split
from rrn.data.transforms import augment, cutmix_boxes

Purpose = Literal["warmup", "train"]


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
    """

    images: Tensor
    labels: Tensor
    unlabeled: tuple[Tensor, Tensor]
    unlabeled_valid: tuple[Tensor, Tensor]
    mix: Tensor
    labeled_ids: tuple[str, ...]
    unlabeled_ids: tuple[tuple[str, ...], tuple[str, ...]]

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
        ids: images to go through; fewer than a batch repeat within it.
        seed: of the run.
        purpose: name of the order; another name, another order.
    """

    def __init__(self, ids: Sequence[str], seed: int, purpose: str) -> None:
        """Keep the arguments; nothing is drawn yet."""
        self.ids, self.seed, self.purpose = tuple(ids), seed, purpose
        self._epoch, self._order = -1, list[int]()

    def __call__(self, position: int, unlike: str | None = None) -> str:
        """Return the id at a position, or the next one of its permutation if that is `unlike`."""
        epoch, place = divmod(position, len(self.ids))
        if epoch != self._epoch:
            draw = draws.generator(self.seed, self.purpose, epoch)
            self._order = torch.randperm(len(self.ids), generator=draw).tolist()
            self._epoch = epoch
        name = self.ids[self._order[place]]
        return self.ids[self._order[(place + 1) % len(self.ids)]] if name == unlike else name


class TrainingData(Dataset[Batch]):
    """The batch of every step of a stage; `data[step]`.

    Args:
        dataset: where the images lie.
        split: who is labeled.
        settings: augment, batch, cutmix, dataset.cache.
        seed: of the run.
        purpose: warmup or train; they see different orders and crops.
        rank: of this process; it takes the images rank, rank + world, ... of a batch.
        world: number of processes.
        unlabeled: whether unlabeled images are read at all.
        all_labels: whether every train image that has a label counts as labeled (upper bound).

    Raises:
        DataError: if unlabeled images are asked for and there are fewer than 2: nothing to mix.
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
        self.dataset, self.settings, self.seed, self.purpose = dataset, settings, seed, purpose
        self.rank, self.world, self.unlabeled = rank, world, unlabeled
        labeled = dataset.labeled_ids(dataset.train) if all_labels else split.labeled
        self.labeled_order = Sampler(labeled, seed, f"{purpose} labeled order")
        self.unlabeled_order = [
            Sampler(split.unlabeled, seed, f"{purpose} unlabeled order {half}") for half in range(2)
        ]
        self._cache: dict[tuple[str, bool], tuple[Tensor, Tensor | None]] = {}

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step.

        Raises:
            DataError: if an image or a label is missing or wrong.
        """
        with _one_thread():
            labeled = self._labeled(step)
            (first, second), mix = self._unlabeled(step)
        return Batch(
            images=labeled.images,
            labels=labeled.labels,
            unlabeled=(first.images, second.images),
            unlabeled_valid=(first.valid[:, None], second.valid[:, None]),
            mix=mix,
            labeled_ids=labeled.ids,
            unlabeled_ids=(first.ids, second.ids),
        )

    def _labeled(self, step: int) -> _Crops:
        total = self.settings.batch.labeled
        mine = range(self.rank, total, self.world)
        names = [self.labeled_order(step * total + i) for i in mine]
        return self._crops(names, True, "labeled", step, mine)

    def _unlabeled(self, step: int) -> tuple[tuple[_Crops, _Crops], Tensor]:
        """Return both halves and the boxes, bool [B', 1, H, W]."""
        total, crop = self.settings.batch.unlabeled, self.settings.augment.crop
        mine = range(self.rank, total, self.world) if self.unlabeled else range(0)
        first = [self.unlabeled_order[0](step * total + i) for i in mine]
        second = [self.unlabeled_order[1](step * total + i, unlike=name) for i, name in zip(mine, first, strict=True)]
        halves = (
            self._crops(first, False, "unlabeled 0", step, mine),
            self._crops(second, False, "unlabeled 1", step, mine),
        )
        boxes = [cutmix_boxes(1, crop, crop, self.settings.cutmix, self._draw("cutmix", step, i)) for i in mine]
        return halves, torch.cat([torch.zeros(0, 1, crop, crop, dtype=torch.bool), *boxes])

    def _crops(self, names: Sequence[str], with_labels: bool, what: str, step: int, indices: range) -> _Crops:
        """Read and cut the images of `names`, which stand at the global `indices` of the batch."""
        crop = self.settings.augment.crop
        images = torch.zeros(len(names), 3, crop, crop, dtype=torch.uint8)
        labels = torch.zeros(len(names), crop, crop, dtype=torch.int64)
        valid = torch.zeros(len(names), crop, crop, dtype=torch.bool)
        for place, (name, index) in enumerate(zip(names, indices, strict=True)):
            image, label = self._read(name, with_labels)
            draw = self._draw(f"augment {what}", step, index)
            images[place], labels[place], valid[place] = augment(image, label, self.settings.augment, draw)
        return _Crops(images, labels, valid, tuple(names))

    def _draw(self, purpose: str, step: int, index: int) -> torch.Generator:
        return draws.generator(self.seed, f"{self.purpose} {purpose}", step, index)

    def _read(self, name: str, with_label: bool) -> tuple[Tensor, Tensor | None]:
        """Return a train image u8 [3, H, W] and, only if it is wanted, its label u8 [H, W]."""
        if (name, with_label) in self._cache:
            return self._cache[name, with_label]
        label = None
        if with_label:
            pixels, indices = self.dataset.pair(self.dataset.train, name)
            label = torch.from_numpy(indices)
        else:
            pixels = self.dataset.image(self.dataset.train, name)
        decoded = torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), label
        if self.settings.dataset.cache:
            self._cache[name, with_label] = decoded
        return decoded


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
) -> DataLoader[Batch]:
    """Return the batches of the steps `start` to `stop` - 1 in order.

    The arguments are those of `TrainingData`. `settings.workers` processes prepare them (0: this
    one); with a GPU they are in pinned memory.

    Raises:
        DataError: at once if there is too little to mix; at its step if an image or label is wrong.
    """
    data = TrainingData(dataset, split, settings, seed, purpose, rank, world, unlabeled, all_labels)
    return DataLoader(
        data,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=settings.workers,
        generator=torch.Generator(),  # torch's global one stays as it is
        pin_memory=settings.device != "cpu" and torch.cuda.is_available(),
    )


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
        cache: keep the decoded batches in memory for the next iteration.

    Attributes:
        ids: of all images, on any process.
        sizes: all different (height, width) of the images, on any process.

    Raises:
        DataError: if an image is missing or broken.
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
    ) -> None:
        """Look at the sizes of all images; nothing is decoded yet."""
        self.dataset, self.split, self.ids, self.cache = dataset, split, tuple(ids), cache
        shapes = [dataset.shape(split, name) for name in ids]
        self.sizes = tuple(dict.fromkeys(shapes))
        self.groups = _equal_sizes(ids, shapes, batch)[rank::world]
        self._kept: dict[int, WholeBatch] = {}

    def __len__(self) -> int:
        """Return the number of batches of this process."""
        return len(self.groups)

    def __iter__(self) -> Iterator[WholeBatch]:
        """Yield the batches of this process.

        Raises:
            DataError: if an image or a label is missing or wrong.
        """
        for place, names in enumerate(self.groups):
            batch = self._kept.get(place) or self._read(names)
            if self.cache:
                self._kept[place] = batch
            yield batch

    def _read(self, names: tuple[str, ...]) -> WholeBatch:
        pairs = [self.dataset.pair(self.split, name) for name in names]
        images = torch.stack([torch.from_numpy(image) for image, _ in pairs]).permute(0, 3, 1, 2)
        labels = torch.stack([torch.from_numpy(label) for _, label in pairs])
        return WholeBatch(images.contiguous(), labels.long(), names)


def whole_images(
    dataset: ImageSet,
    split: str,
    ids: Sequence[str],
    batch: int,
    rank: int = 0,
    world: int = 1,
    cache: bool = False,
) -> WholeImages:
    """Return whole labeled images in fixed batches; the arguments are those of `WholeImages`."""
    return WholeImages(dataset, split, ids, batch, rank, world, cache)


def _equal_sizes(ids: Sequence[str], shapes: Sequence[Size], batch: int) -> list[tuple[str, ...]]:
    """Return consecutive images in groups of one size, at most `batch` each."""
    groups: list[tuple[str, ...]] = []
    before = None
    for name, shape in zip(ids, shapes, strict=True):
        if shape == before and len(groups[-1]) < batch:
            groups[-1] = (*groups[-1], name)
        else:
            groups.append((name,))
        before = shape
    return groups


def diagnosis_ids(dataset: ImageSet, split: Split, count: int) -> tuple[str, ...]:
    """Return `count` unlabeled images that do have a label file, spread evenly, or all if fewer.

    For looking at the quality of pseudo-labels only; training never reads these labels.
    """
    known = [name for name in split.unlabeled if dataset.label_path(dataset.train, name).is_file()]
    count = min(count, len(known))
    return tuple(known[place * len(known) // count] for place in range(count))


def preview(settings: Settings, split: Split, root: Path, seed: int) -> Batch:
    """Return the first batch of training as a notebook shows it, all images of the step.

    Raises:
        DataError: if the data set is missing or wrong.
    """
    dataset = ImageSet.open(settings, root)
    unlabeled = len(split.unlabeled) >= 2
    return TrainingData(dataset, split, settings, seed, "train", unlabeled=unlabeled)[0]
