"""Who is labeled: a prefix of a permutation, or the lists of the literature. No torch."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from rrn import config
from rrn.config import Settings
from rrn.data.decoding import DataError
from rrn.data.image_set import ImageSet, listed
from rrn.data.splits import Split
from rrn.preparation import published_lists
from rrn.preparation.report import Report


def make(dataset: ImageSet, settings: Settings, partition: str, report: Report, seed: int = 0) -> Split:
    """Choose the labeled images, as `split.protocol` says.

    Args:
        dataset: where the images lie.
        settings: `split` says who chooses.
        partition: 1of16, 662, or all.
        report: of `rrn.preparation.verification.verify`.
        seed: of the run, which permutes where `split.seed` is null.

    Raises:
        DataError: if a split is empty, val or test lacks a label, the partition asks for more than there is, or
            published lists cannot be had or do not fit the data set; if all labels of a list are void; if the partition
            is one of `ablation.partitions` and leaves fewer than 2 unlabeled images, and a row needs them.
    """
    protocol = settings.split.protocol
    choose = _seeded if protocol == "seeded" else _published
    permuted = seed if settings.split.seed is None else settings.split.seed
    labeled, unlabeled, origin = choose(dataset, settings, partition, report, permuted)
    split = Split(
        partition=partition,
        protocol=protocol,
        origin=origin,
        data=report.checksum,
        classes=dataset.classes,
        colours=dataset.layout.colors,
        labeled=tuple(sorted(labeled)),
        unlabeled=tuple(sorted(unlabeled)),
        val=tuple(dataset.require_labels(dataset.val)),
        test=tuple(dataset.require_labels(dataset.test)),
    )
    for name, folder, ids in (
        ("labeled", dataset.train, split.labeled),
        ("val", dataset.val, split.val),
        ("test", dataset.test, split.test),
    ):
        _require_pixels(report, name, folder, ids)
    _require_unlabeled(settings, split)
    return split


def _require_pixels(report: Report, name: str, folder: str, ids: tuple[str, ...]) -> None:
    """Refuse labels that are void all over: nothing can be learned from them, and no number is defined on them."""
    if np.nansum(report.shares(folder, ids)[:-1]) == 0:
        raise DataError(
            f"all pixels of the {len(ids)} {name} images are void, so nothing can be learned from them or scored on "
            "them; label some, or correct dataset.void"
        )


def _require_unlabeled(settings: Settings, split: Split) -> None:
    """Refuse, before the warmup is spent, a partition that leaves nothing to mix for rows that it is run with."""
    listed = settings.ablation
    if split.partition not in listed.partitions or len(split.unlabeled) >= 2:
        return
    rows = [row for row in listed.methods if config.in_row(settings, row).consistency]
    if rows:
        raise DataError(
            f"the partition {split.partition} leaves {len(split.unlabeled)} unlabeled images, and the rows "
            f"{', '.join(rows)} of ablation.methods need 2 different ones for CutMix: label fewer "
            "(ablation.partitions), or list only rows with consistency: false"
        )


Choice = tuple[Iterable[str], Iterable[str], str]
"""Labeled and unlabeled ids, and who chose them."""


def _seeded(dataset: ImageSet, settings: Settings, partition: str, report: Report, seed: int) -> Choice:
    """Take a prefix of one permutation, so that 1of16 lies in 1of8 lies in 1of4.

    Shares and counts are of the train images that have a label file; one without is always unlabeled.
    """
    images = dataset.ids(dataset.train)
    labelable = dataset.labeled_ids(dataset.train)
    count = _count(partition, len(labelable))
    if settings.split.stratified:
        place = {name: row for row, name in enumerate(report.ids[dataset.train])}
        order = stratified([report.pixels[dataset.train][place[name]] for name in labelable], seed)
    else:
        order = np.random.default_rng(seed).permutation(len(labelable))
    labeled = {labelable[i] for i in order[:count]}
    how = "stratified" if settings.split.stratified else "plain"
    return (
        labeled,
        set(images) - labeled,
        f"{how} permutation of the {len(labelable)} train images with labels, seed {seed}",
    )


def stratified(pixels: ArrayLike, seed: int) -> NDArray[np.int64]:
    """Order images so that every prefix shows each class about as often as all of them do.

    An image belongs to the rarest class that it shows; the images of a class, shuffled, are spread evenly over the
    order. Those that are void all over come last. Prefixes are nested, and the same seed gives the same order. [ours]

    Args:
        pixels: of each class and, last, of void, [N, C + 1].
        seed: of the shuffling.

    Returns:
        int64 [N], a permutation.
    """
    shows = np.asarray(pixels)[:, :-1] > 0
    rarest = np.where(shows.any(1), np.where(shows, shows.sum(0), np.inf).argmin(1), shows.shape[1])
    generator = np.random.default_rng(seed)
    place = np.empty(len(shows))
    for number in np.unique(rarest):
        members = generator.permutation(np.flatnonzero(rarest == number))
        place[members] = (np.arange(len(members)) + generator.random()) / len(members)
    return (place + (rarest == shows.shape[1])).argsort(kind="stable")


def _published(dataset: ImageSet, settings: Settings, partition: str, report: Report, _: int) -> Choice:
    """Take the lists of a protocol of the literature; together they must name the train images, no more and no less.

    All lists of the protocol are fetched at once: another partition adds nothing to the folder that DVC watches.
    """
    kind, protocol, folder = settings.dataset.kind, settings.split.protocol, dataset.root / "lists"
    found = published_lists.find(kind, protocol, partition)
    published_lists.fetch_all(kind, folder, protocol)
    labeled, unlabeled = (published_lists.ids(found[role], folder) for role in published_lists.ROLES)
    images, named = set(report.ids[dataset.train]), {*labeled, *unlabeled}
    if missing := sorted(named - images):
        raise DataError(
            f"{len(missing)} of the {len(named)} images of the lists of {protocol} are not in dataset.train: "
            f"{dataset.train} of {dataset.root}; name the split that the lists are of, or complete the data set:"
            f"{listed(missing)}"
        )
    if further := sorted(images - named):
        raise DataError(
            f"dataset.train: {dataset.train} has {len(further)} images that the lists of {protocol} do not name; "
            f"name the split that the lists are of:{listed(further)}"
        )
    if bare := [name for name in labeled if not dataset.label_path(dataset.train, name).is_file()]:
        raise DataError(f"{len(bare)} labeled images of {found['labeled'].origin} have no label file:{listed(bare)}")
    return labeled, unlabeled, found["labeled"].origin


def image_counts(dataset: ImageSet, split: Split) -> pd.DataFrame:
    """Return how many images each list has and, where labels differ in quality, how many are finely annotated."""
    rows = {name: getattr(split, name) for name in ("labeled", "unlabeled", "val", "test")}
    table = pd.DataFrame({"images": {name: len(ids) for name, ids in rows.items()}})
    if fine := dataset.layout.finely_annotated():
        table["finely annotated"] = [len(fine.intersection(ids)) for ids in rows.values()]
    return table


def labeled_images(dataset: ImageSet, split: Split) -> pd.DataFrame:
    """Return the labeled images, one a row: id and, where labels differ in quality, whether it is finely annotated."""
    table = pd.DataFrame({"id": split.labeled})
    if fine := dataset.layout.finely_annotated():
        table["finely annotated"] = table["id"].isin(fine)
    return table


def _count(partition: str, available: int) -> int:
    if not available:
        raise DataError("no train image has a label file, so nothing can be learned; add some to labels/<train split>")
    try:
        if partition == "all":
            return available
        if "of" not in partition:
            count = int(partition)
        else:
            part, whole = map(int, partition.split("of"))
            count = max(1, round(available * part / whole))
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise DataError(f"partition {partition!r}: expected 1of16, a number of images, or all") from error
    if not 1 <= count <= available:
        raise DataError(
            f"partition {partition!r} asks for {count} labeled images, "
            f"but {available} train images have labels; ask for 1 to {available}, or for all"
        )
    return count


def frequencies(report: Report, split: Split) -> pd.DataFrame:
    """Return how frequent the classes are: columns class, labeled, unlabeled, val; the last row is void.

    Frequencies are shares of all pixels of those images that have labels, as the files lie. The column unlabeled is
    for diagnosis: it counts labels that training never reads, and is NaN if there are none.

    Args:
        report: of the data set, from `rrn.preparation.verification`.
        split: its partition.

    Raises:
        DataError: the report is of another data set.
    """
    return pd.DataFrame(
        {
            "class": [*split.classes, "void"],
            "labeled": report.shares(report.train, split.labeled),
            "unlabeled": report.shares(report.train, split.unlabeled),
            "val": report.shares(report.val, split.val),
        }
    )
