"""Who is labeled: partitions of the train images, written as split.json. No torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import TypeAdapter, ValidationError

from rrn.config import Settings
from rrn.data.files import DataError
from rrn.data.layouts import Colour
from rrn.data.report import Report
from rrn.data.sets import ImageSet

NAME = "split.json"


@dataclass(frozen=True)
class Split:
    """The images of an experiment, by id.

    Attributes:
        partition: how many train images are labeled: 1of16, 662, all.
        seed: of the permutation that chose them.
        data: checksum of the data set that was prepared; later stages depend on it in place of thousands of files.
        classes: names of the classes.
        colours: of the classes, as the data set's authors draw them; empty: none of its own.
        labeled: train images whose labels training may read.
        unlabeled: all other train images.
        val: images of the val split.
        test: images of the test split.
    """

    partition: str
    seed: int
    data: str
    classes: tuple[str, ...]
    colours: tuple[Colour, ...]
    labeled: tuple[str, ...]
    unlabeled: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse empty lists, repeated ids, and ids that are labeled and unlabeled at once."""
        for key in ("labeled", "val", "test"):
            if not getattr(self, key):
                raise DataError(f"the partition {self.partition} has no {key} image")
        for key in ("labeled", "unlabeled", "val", "test"):
            ids = getattr(self, key)
            if len(set(ids)) < len(ids):
                twice = next(name for name in ids if ids.count(name) > 1)
                raise DataError(f"the partition {self.partition} lists {twice!r} twice as {key}")
        both = sorted(set(self.labeled) & set(self.unlabeled))
        if both:
            raise DataError(
                f"the partition {self.partition} lists {len(both)} images as labeled and as "
                f"unlabeled: {', '.join(both[:10])}; remove them from one list"
            )


def make(dataset: ImageSet, settings: Settings, partition: str, report: Report) -> Split:
    """Choose the labeled images.

    They are a prefix of one seeded permutation, so that 1of16 lies in 1of8 lies in 1of4. Shares and
    counts are of the train images that have a label file; one without is always unlabeled. `report` is of
    `rrn.data.verify` and tells the checksum of the data.

    Raises:
        DataError: if a split is empty, val or test lacks a label, or the partition asks for more
            than there is.
    """
    images = dataset.ids(dataset.train)
    labelable = dataset.labeled_ids(dataset.train)
    count = _count(partition, len(labelable))
    order = np.random.default_rng(settings.split.seed).permutation(len(labelable))
    labeled = {labelable[i] for i in order[:count]}
    return Split(
        partition=partition,
        seed=settings.split.seed,
        data=report.checksum,
        classes=dataset.classes,
        colours=dataset.layout.colours,
        labeled=tuple(sorted(labeled)),
        unlabeled=tuple(name for name in images if name not in labeled),
        val=tuple(dataset.require_labels(dataset.val)),
        test=tuple(dataset.require_labels(dataset.test)),
    )


def _count(partition: str, available: int) -> int:
    """Return how many images a partition labels."""
    if not available:
        raise DataError("no train image has a label file, so nothing can be learnt; add some to labels/<train split>")
    try:
        if partition == "all":
            return available
        if "of" not in partition:
            count = int(partition)
        else:
            part, whole = map(int, partition.split("of"))
            count = max(1, round(available * part / whole))
    except (ValueError, ZeroDivisionError) as error:
        raise DataError(f"partition {partition!r}: expected 1of16, a number of images, or all") from error
    if not 1 <= count <= available:
        raise DataError(
            f"partition {partition!r} asks for {count} labeled images, "
            f"but {available} train images have labels; ask for 1 to {available}, or for all"
        )
    return count


def write(split: Split, folder: Path) -> Path:
    """Write `split` as split.json into `folder`, made if missing; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    path.write_text(json.dumps(asdict(split), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return path


def read(folder: Path) -> Split:
    """Read split.json from `folder`.

    Raises:
        DataError: if it is missing, no JSON, lacks a key, or contradicts itself.
    """
    path = folder / NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: run the prepare stage first (`dvc repro prepare`)") from error
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}): run the prepare stage again") from error
    keys = list(Split.__dataclass_fields__)
    if not isinstance(values, dict) or sorted(values) != sorted(keys):
        raise DataError(f"{path} must have exactly the keys {', '.join(keys)}: run the prepare stage again")
    try:
        return TypeAdapter(Split).validate_python(values)
    except ValidationError as error:
        raise DataError(f"{path}: {error}") from error


def frequencies(report: Report, split: Split) -> pd.DataFrame:
    """Return how frequent the classes are: columns class, labeled, unlabeled, val; the last row is void.

    Frequencies are shares of all pixels of those images that have labels, as the files lie. The column unlabeled is
    for diagnosis: it counts labels that training never reads, and is NaN if there are none.

    Args:
        report: of the data set, from `rrn.data.verify`.
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
