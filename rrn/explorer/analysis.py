"""Which pseudo-labels are kept, and are they right? What the explorer computes from an evidence.zip. No torch.

Everything starts from the regions of one split (`Regions`) and a `Choice`; functions return arrays, tables or text.
`image_view` draws one image, `split_view` the whole split, `widget` is where a person chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rrn.config import JUDGED
from rrn.reliability import evidence, selection
from rrn.reliability.evidence import Evidence, EvidenceError
from rrn.reliability.measures import EVERYTHING, classes_of, of_class, risk_coverage
from rrn.reliability.scores import LATER, RANKED, SCORES
from rrn.reliability.selection import RHOS, Flags, Floats, Places

ORDERS = ("by id", "worst filtered", "most wrong kept", "most disagreement")
COUNTED = ("split", "id", "segmenter", "row", "column", *(name for name in SCORES if name not in LATER))
COUNTED += ("divergence", "pixels", "right")
"""Columns that a region table must have, of whatever age."""


@dataclass(frozen=True)
class Choice:
    """What a person chose: which regions are kept, and what is looked at.

    Attributes:
        id: of the image.
        by: the score that decides, one of `rrn.reliability.scores.RANKED`; none: everything is kept.
        keep: threshold (a score of at least `value`) | fraction (the best `value` of all regions of the segmenter).
        value: 0..1.
        score: that is shown, one of `rrn.reliability.scores.SCORES`.
        rho: what rates the regions, one of `rrn.reliability.selection.RHOS`.
        segmenters: 1, 2 or both.
    """

    id: str
    by: str = "none"
    keep: str = "fraction"
    value: float = 0.9
    score: str = "confidence"
    rho: str = "none"
    segmenters: tuple[int, ...] = (1, 2)


class Regions:
    """The regions of one split of an evidence file; what no choice changes is computed once.

    Args:
        source: the file.
        split: one of its splits.

    Attributes:
        table: its rows of the split, float columns where there are scores.
        images: ids that have pictures.
        scores, rhos: what this file offers of SCORES and RHOS; without discriminators, or an older one, it offers less.

    Raises:
        EvidenceError: there is no such split, it has no regions, or lacks a column.
    """

    def __init__(self, source: Evidence, split: str) -> None:
        self.source, self.about, self.split, self.images = source, source.about, split, source.ids(split)
        if missing := [name for name in COUNTED if name not in source.regions]:
            raise EvidenceError(f"{source.path}: {evidence.REGIONS} lacks {', '.join(missing)}: evaluate the run again")
        self.table = source.regions[source.regions["split"] == split].reset_index(drop=True)
        if not self.images or self.table.empty:
            raise EvidenceError(f"{source.path} shows no image of {split}: set log.evidence in params.yaml")
        self.scores = tuple(name for name in SCORES if name in self.table and self.table[name].notna().all())
        lacking = {*LATER, *JUDGED} - {*(JUDGED if "region_score" in self.scores else ()), *self.scores}
        self.rhos = tuple(name for name in RHOS if name not in lacking)
        self._ranks: dict[str, Places] = {}

    @property
    def rules(self) -> tuple[str, ...]:
        """Rules that this run offers."""
        return ("none", *(name for name in RANKED if name in self.scores))

    @cached_property
    def segmenter(self) -> Places:
        """Segmenter of each region, 1 | 2 [R]."""
        return self.table["segmenter"].to_numpy(np.int64)

    @cached_property
    def _places(self) -> dict[str, Places]:
        return {str(name): np.asarray(rows) for name, rows in self.table.groupby("id").indices.items()}

    def rows(self, name: str) -> Places:
        """Return which rows of the table are of an image; none if all its pixels are void."""
        return self._places.get(name, np.zeros(0, np.int64))

    def of(self, segmenters: Sequence[int]) -> Flags:
        """Return which rows are of some segmenters [R]."""
        return np.isin(self.segmenter, segmenters)

    def column(self, name: str) -> Floats:
        """Return a column of the table [R].

        Raises:
            EvidenceError: it is a score that this run does not have, or that the file is too old for.
        """
        if name in SCORES and name not in self.scores:
            older, blind = "the file is older, evaluate the run again", "this run trained no discriminators"
            why = blind if name in self.table else older
            raise EvidenceError(f"{self.source.path} has no {SCORES[name]}: {why}")
        return self.table[name].to_numpy(np.float64)

    def rank(self, score: str) -> Places:
        """Return how many regions of the same segmenter are better [R], as `rrn.reliability.selection.rank_scores`."""
        if score not in self._ranks:
            self._ranks[score] = selection.rank_scores(self.column(score), self.segmenter)
        return self._ranks[score]

    def grid(self, name: str, values: npt.ArrayLike, size: tuple[int, int]) -> Floats:
        """Lay values [R] of an image of `size` = (height, width) on its grid: [2, rows, columns], NaN if all void."""
        shape = (-(-length // self.about.region) for length in size)
        result = np.full((2, *shape), np.nan)
        rows = self.rows(name)
        row, column = (self.table[side].to_numpy()[rows] for side in ("row", "column"))
        if len(rows) and (row.max() >= result.shape[1] or column.max() >= result.shape[2]):
            raise EvidenceError(
                f"{self.source.path}: {name!r} has a region outside of its picture: evaluate the run again"
            )
        result[self.segmenter[rows] - 1, row, column] = np.asarray(values, dtype=np.float64)[rows]
        return result


def found(root: Path, name: str = "") -> dict[str, Path]:
    """Find the evidence files of a repository: what git ships before what lies in runs/, then by name.

    Args:
        root: folder that holds results/ and runs/.
        name: of params.yaml; files of that name come first.

    Returns:
        folder relative to `root` -> file.

    Raises:
        EvidenceError: there is none.
    """
    places = "results/row-pictures/*", "results/*", "runs/*/evaluate/*"
    patterns = [f"{place}/{evidence.NAME}" for place in places]  # results/*: of earlier versions
    paths = [path.relative_to(root) for pattern in patterns for path in sorted(root.glob(pattern))]
    if not paths:
        raise EvidenceError(
            f"there is no {evidence.NAME} in {root}/results or {root}/runs: run `make repro`, "
            "or `git checkout HEAD -- results`"
        )
    paths.sort(key=lambda path: name not in path.parts[1:3])
    return {path.parent.as_posix(): root / path for path in paths}


def default(regions: Regions) -> Choice:
    """Return what is shown first: the row's own rule, or the nearest that can be explored, on the first image."""
    rule, rho = regions.about.rule, regions.about.rho
    by = rule.by if rule.by in regions.rules else "none"
    own = "region_score" if "region_score" in regions.scores else "confidence"
    keep, value = {
        "threshold": ("threshold", rule.tau),
        "fraction": ("fraction", rule.fraction),
        "soft": ("fraction", 1.0),  # all are kept
    }[rule.keep]
    rho = rho if by != "none" and rho in regions.rhos else "none"
    return Choice(regions.images[0], by, keep, value, own if by == "none" else by, rho)


def kept(regions: Regions, choice: Choice) -> Flags:
    """Return which regions are kept, bool [R], of both segmenters."""
    if choice.by == "none":
        return np.ones(len(regions.table), dtype=bool)
    if choice.keep == "threshold":
        return regions.column(choice.by) >= choice.value
    return selection.best_fraction(regions.rank(choice.by), regions.segmenter, choice.value)


def weights(regions: Regions, choice: Choice) -> Floats:
    """Return the weight W of every region [R], of both segmenters, over all images of the split in place of a batch."""
    chosen = kept(regions, choice)
    if choice.rho == "none":
        return chosen.astype(np.float64)
    return selection.weigh_regions(regions.table, chosen, rho(regions, choice))


def rho(regions: Regions, choice: Choice) -> Floats:
    """Rate every region by the diversity of the two networks [R], at least 0: `choice.rho`, other than none.

    A discriminator votes for a region from the threshold of the region score on, the row's own `tau` without one.
    """
    if choice.rho in JUDGED:
        regions.column("region_score")  # or say that there is none
    elif choice.rho in LATER:
        regions.column(choice.rho)
    own = choice.by == "region_score" and choice.keep == "threshold"
    return selection.rate_regions(regions.table, choice.rho, choice.value if own else regions.about.rule.tau)


# ---- images


def ordered(regions: Regions, choice: Choice, order: str) -> tuple[str, ...]:
    """Return the images that have pictures in an order of ORDERS, as the rule filters the chosen segmenters.

    worst filtered: share of the wrong pixels that is kept + share of the right pixels that is dropped, a rule that
    knows nothing has 1; most wrong kept: share of the valid pixels that is wrong and kept; most disagreement: share of
    them on which the segmenters differ. Ties by id.
    """
    names = sorted(regions.images)
    if order == "by id":
        return tuple(names)
    values = _badness(regions, choice).reindex(names)[order].fillna(0)
    return tuple(sorted(names, key=lambda name: (-round(float(values[name]), 9), name)))


def _badness(regions: Regions, choice: Choice) -> pd.DataFrame:
    """Return for each image what ORDERS sort by, most first."""
    right, wrong = regions.column("right"), regions.column("pixels") - regions.column("right")
    chosen, pixels = kept(regions, choice), right + wrong
    counts = {
        "right": right,
        "wrong": wrong,
        "wrong kept": wrong * chosen,
        "right dropped": right * ~chosen,
        "differing": pixels * (1 - regions.column("agreement")),
    }
    of = regions.of(choice.segmenters)
    sums = pd.DataFrame(counts)[of].groupby(regions.table["id"][of]).sum()
    total = sums["right"] + sums["wrong"]
    worst = [(sums[part] / sums[part.split()[0]]).fillna(0) for part in ("wrong kept", "right dropped")]
    values = (worst[0] + worst[1], sums["wrong kept"] / total, sums["differing"] / total)
    return pd.DataFrame(dict(zip(ORDERS[1:], values, strict=True)))


def image_regions(regions: Regions, choice: Choice) -> pd.DataFrame:
    """Describe the regions of the chosen image and segmenters, the least right first, ties by place.

    Returns:
        segmenter, row, column, the scores of this run, accuracy (0..1), kept (bool), weight.
    """
    rows = regions.rows(choice.id)
    rows = rows[regions.of(choice.segmenters)[rows]]
    table = regions.table.iloc[rows][["segmenter", "row", "column", *regions.scores]].assign(
        accuracy=(regions.column("right") / regions.column("pixels"))[rows],
        kept=kept(regions, choice)[rows],
        weight=weights(regions, choice)[rows],
    )
    return table.sort_values(["accuracy", "segmenter", "row", "column"], ignore_index=True)


def summary(regions: Regions, choice: Choice) -> str:
    """Say in one line how many regions of the image are kept and how right they are, and the same of the file."""
    own = np.zeros(len(regions.table), dtype=bool)
    own[regions.rows(choice.id)] = True
    every = f"all {regions.table['id'].nunique()} images of {regions.split} in this file"
    return f"This image: {_said(regions, choice, own)} · {every}: {_said(regions, choice, np.ones_like(own))}"


def _said(regions: Regions, choice: Choice, of: Flags) -> str:
    """Say how many of some regions [R] are kept, and how right they are."""
    of, chosen = of & regions.of(choice.segmenters), kept(regions, choice)
    pixels, right = regions.column("pixels"), regions.column("right")
    parts = [f"kept {(of & chosen).sum()} of {of.sum()} regions"]
    for name, part in (("kept", of & chosen), ("dropped", of & ~chosen)):
        if part.any():
            parts.append(f"{100 * right[part].sum() / pixels[part].sum():.0f} % of the {name} pixels are right")
    return ", ".join(parts)


# ---- the whole split


def class_table(regions: Regions, choice: Choice) -> pd.DataFrame:
    """Compare what is kept and dropped of each class of pseudo-labels, everything first.

    Returns:
        class, pixels, kept (share of the pixels), accuracy, accuracy_kept, accuracy_dropped; shares 0..1, NaN of none.
    """
    of, chosen = regions.of(choice.segmenters), kept(regions, choice)
    rows: list[dict[str, Any]] = []
    for name in (EVERYTHING, *classes_of(regions.table)):
        pixels, right = (regions.column(column) for column in of_class(name))
        counts = [(pixels[part].sum(), right[part].sum()) for part in (of, of & chosen, of & ~chosen)]
        accuracies = [hits / total if total else np.nan for total, hits in counts]
        total, among = counts[0][0], counts[1][0]
        row = {"class": name, "pixels": int(total), "kept": among / total if total else np.nan}
        rows.append(row | dict(zip(("accuracy", "accuracy_kept", "accuracy_dropped"), accuracies, strict=True)))
    return pd.DataFrame(rows)


@lru_cache(maxsize=16)
def coverage_curves(regions: Regions, segmenters: tuple[int, ...]) -> pd.DataFrame:
    """Return the curves of the scores that can decide, regions kept from the best score down.

    Returns:
        score, coverage and accuracy of what is kept (0..1).
    """
    of, parts = regions.of(segmenters), []
    pixels, right = regions.column("pixels")[of], regions.column("right")[of]
    for score in regions.rules[1:]:
        coverage, risk = risk_coverage(regions.column(score)[of], pixels, right)
        parts.append(pd.DataFrame({"score": score, "coverage": coverage, "accuracy": 1 - risk}))
    return pd.concat(parts, ignore_index=True)


def shown_counts(regions: Regions, choice: Choice) -> tuple[Floats, Floats, Floats]:
    """Return of the regions of the chosen segmenters the score that is shown, the pixels, and the right ones."""
    of = regions.of(choice.segmenters)
    return regions.column(choice.score)[of], regions.column("pixels")[of], regions.column("right")[of]


def histogram(regions: Regions, choice: Choice, bins: int = 25) -> pd.DataFrame:
    """Count the pixels of the chosen segmenters by the score that is shown.

    Returns:
        low, high (borders of a bin), right, wrong (pixels).
    """
    score, pixels, right = shown_counts(regions, choice)
    place = np.clip((score * bins).astype(np.int64), 0, bins - 1)
    counts = [np.bincount(place, values, bins) for values in (right, pixels - right)]
    edges = np.arange(bins + 1) / bins
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "right": counts[0], "wrong": counts[1]})
