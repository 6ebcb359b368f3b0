"""What verification found in a data set. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rrn.data.files import DataError


@dataclass(frozen=True)
class Report:
    """What `rrn.data.verify` found.

    Attributes:
        problems: one line each: which file, what is wrong, what to do; empty: none.
        checksum: 16 hexadecimal digits that change with the contents of any listed image or label, the lists, the
            classes, the meaning of label values and the size everything is resized to, and with nothing else.
        classes: names of the classes.
        ids: split -> its ids; none where its list cannot be read.
        pixels: split -> pixels of each class and, last, of void, int64 [N, C + 1], of the files as they lie; 0 for an
            image without a label.
        train: name of the train split; likewise `val`.
    """

    problems: tuple[str, ...]
    checksum: str
    classes: tuple[str, ...]
    ids: Mapping[str, tuple[str, ...]]
    pixels: Mapping[str, NDArray[np.int64]]
    train: str
    val: str

    def require(self) -> None:
        """Raise a DataError that lists every problem, if there is one."""
        if self.problems:
            raise DataError("\n  ".join([f"{len(self.problems)} problems in the data:", *self.problems]))

    def shares(self, split: str, names: Iterable[str]) -> NDArray[np.float64]:
        """Return the share of each class and, last, of void in the pixels of some images of a split.

        Args:
            split: its name.
            names: ids; those without labels do not count.

        Returns:
            [C + 1], summing to 1; NaN if no image has a label.

        Raises:
            DataError: an id is not in the split.
        """
        places = {name: place for place, name in enumerate(self.ids.get(split, ()))}
        chosen = list(names)
        unknown = [name for name in chosen if name not in places]
        if unknown:
            raise DataError(f"the split {split!r} has no image {', '.join(unknown[:10])}: run the prepare stage again")
        if not chosen:
            return np.full(len(self.classes) + 1, np.nan)
        counts = self.pixels[split][[places[name] for name in chosen]].sum(axis=0)
        return counts / counts.sum() if counts.any() else np.full(len(counts), np.nan)

    def summary(self) -> str:
        """Return, as a text of two tables, how many images and labels there are and how frequent the classes are."""
        counts = {s: (len(ids), int(self.pixels[s].any(axis=1).sum())) for s, ids in self.ids.items()}
        shares = pd.DataFrame({split: 100 * self.shares(split, ids) for split, ids in self.ids.items()})
        shares.index = pd.Index([*self.classes, "void"])
        table = pd.DataFrame(counts, index=["images", "labels"]).T
        return f"{table.to_string()}\n\nper cent of the labeled pixels\n{shares.to_string(float_format='%.2f')}"
