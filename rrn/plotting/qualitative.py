"""The qualitative figure: what methods make of the images on which they differ most. No torch.

The evaluate stage may draw its one run with it, the ablation stage draws all methods of a partition.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rrn.config import IGNORE_INDEX
from rrn.data.palette import Array, palette
from rrn.plotting.pictures import class_legend, frame, hatch, legend_height, show, show_labels
from rrn.plotting.style import PAGE, method_style, styled, subplot_grid, tight
from rrn.reliability.evidence import Evidence, Pictures
from rrn.reliability.selection import kept_regions

NARROW = 0.55
"""Columns below so many inches have upright titles, which would overlap otherwise."""

SEGMENTER = 1
"""Whose region scores and kept regions are shown."""

APART = 2
"""Images that are shown lie at least one in (APART * their count) of all images apart, in the order of ids."""


def most_different(evidences: Mapping[str, Evidence], split: str = "test", count: int = 4) -> list[str]:
    """Choose the images on which methods differ most, by rule.

    The rule: of the images whose pictures every method has, those with the largest standard deviation, over methods, of
    the share of pixels that the prediction gets right (void left out); ties by id. Images near one that is chosen
    already, in the order of ids, are passed over: in a video they would show the same scene again.

    Args:
        evidences: method -> evidence.
        split: of the images.
        count: of images wanted; there may be fewer.

    Returns:
        ids, the most different first.

    Raises:
        ValueError: no image is in all evidences.
    """
    common = set.intersection(*(set(evidence.ids(split)) for evidence in evidences.values()))
    if not common:
        raise ValueError(
            f"the evidence of {', '.join(evidences)} has no {split} image in common; run `dvc repro evaluate`"
        )
    names = sorted(common)
    spreads = np.zeros(len(names))
    if len(evidences) > 1:  # alone, nothing to differ from: all are tied
        for place, name in enumerate(names):
            pictures = [evidence.pictures(split, name) for evidence in evidences.values()]
            spreads[place] = np.std([_accuracy(shown) for shown in pictures])
    apart = len(names) // (APART * count)
    chosen: list[int] = []
    for place in np.argsort(-spreads, kind="stable").tolist():
        if len(chosen) < count and all(abs(place - other) >= apart for other in chosen):
            chosen.append(place)
    return [names[place] for place in chosen]


def _accuracy(pictures: Pictures) -> float:
    """Return the share of right pixels of a prediction; 0 if all are void."""
    valid = pictures.label != IGNORE_INDEX
    return float((pictures.prediction == pictures.label)[valid].sum() / max(1, valid.sum()))


@styled
def qualitative(
    evidences: Mapping[str, Evidence], split: str = "test", count: int = 4, focus: str | None = None
) -> Figure:
    """Draw the images on which methods differ most, what is kept of one method's pseudo-labels, and all predictions.

    Columns: image, label, then of one method, which the title names, pseudo-labels 1 and 2, region scores and kept
    regions of segmenter 1; then the prediction of every method. Dropped regions are white and dotted.

    Args:
        evidences: method -> evidence, of the same data set.
        split: of the images.
        count: of images, chosen by `most_different`.
        focus: the method whose pseudo-labels are shown; by default `rrn`, else the first that drops regions by their
            scores, else the first.
    """
    focus = focus or _focus(evidences)
    evidence = evidences[focus]
    names = most_different(evidences, split, count)
    regions = _regions(evidence, split)
    colors = palette(len(evidence.about.classes), evidence.about.colours)
    scored = bool(regions["region_score"].notna().any())
    titles = ["image", "label", "pseudo-label 1", "pseudo-label 2"]
    titles += ["region score 1"] * scored + ["kept of 1"]
    titles += [method_style(method).label for method in evidences]
    shown = [evidence.pictures(split, name) for name in names]
    tall = [pictures.label.shape[0] / pictures.label.shape[1] for pictures in shown]
    side = (PAGE - 0.5 * scored) / len(titles)
    narrow = side < NARROW
    maps = [labels for pictures in shown for labels in (pictures.label, *pictures.pseudo_labels)]
    maps += [other.pictures(split, name).prediction for other in evidences.values() for name in names]
    legend = legend_height(PAGE, evidence.about.classes, maps)
    height = 0.7 + 0.8 * narrow + legend + side * sum(tall)
    fig, axes = subplot_grid(len(names), len(titles), (PAGE, height), height_ratios=tall)
    tight(fig)
    for name, pictures, line in zip(names, shown, axes, strict=True):
        _row(list(line), pictures, regions[regions["id"] == name], evidence.about.region, colors, scored)
        for axis, other in zip(line[-len(evidences) :], evidences.values(), strict=True):
            show_labels(axis, other.pictures(split, name).prediction, colors)
    for axis, title in zip(axes[0], titles, strict=True):
        lines = textwrap.wrap(title, 16 if narrow else max(11, int(17 * side)))
        axis.set_title("\n".join(lines), fontsize=6.5, rotation=90 * narrow)
    if scored:
        fig.colorbar(axes[0, 4].images[0], ax=axes, aspect=30, pad=0.01, label="region score")
    fig.suptitle(f"pseudo-labels of: {method_style(focus).label}, seed {evidence.about.seed}", fontsize=8)
    class_legend(fig, evidence.about.classes, colors, maps)
    return fig


def _focus(evidences: Mapping[str, Evidence]) -> str:
    """Return the method whose pseudo-labels are shown if nobody chooses."""
    scored = [method for method, evidence in evidences.items() if evidence.about.rule.by == "region_score"]
    return "rrn" if "rrn" in evidences else [*scored, *evidences][0]


def _regions(evidence: Evidence, split: str) -> pd.DataFrame:
    table = evidence.regions
    part = table[(table["split"] == split) & (table["segmenter"] == SEGMENTER)]
    return part.assign(kept=kept_regions(part, evidence.about.rule))


def _row(
    axes: Sequence[Axes], pictures: Pictures, regions: pd.DataFrame, side: int, colors: Array, scored: bool
) -> None:
    show(axes[0], pictures.image)
    maps = [pictures.label, *pictures.pseudo_labels]
    for axis, labels in zip(axes[1:4], maps, strict=True):
        show_labels(axis, labels, colors)
    size = pictures.label.shape
    if scored:
        axes[4].imshow(_spread(regions, "region_score", size, side), vmin=0, vmax=1, interpolation="none")
        _lines(axes[4], size, side)
        frame(axes[4])
    stays = _spread(regions, "kept", size, side) > 0
    axis = axes[4 + scored]
    show(axis, np.where(stays[..., None], colors[maps[SEGMENTER]], 255).astype(np.uint8))
    hatch(axis, ~stays, "....")
    _lines(axis, size, side, "#444444")


def _spread(regions: pd.DataFrame, column: str, size: tuple[int, ...], side: int) -> npt.NDArray[np.float64]:
    """Give every pixel of an image of `size` the value of its region; NaN in a region that has no valid pixel."""
    values = np.full([-(-length // side) for length in size], np.nan)
    values[regions["row"], regions["column"]] = regions[column]
    rows, columns = (np.arange(length) // side for length in size)
    return values[rows[:, None], columns]


def _lines(axis: Axes, size: tuple[int, ...], side: int, color: str = "white") -> None:
    width = min(0.4, 4 / (max(size) / side))
    for draw, length in ((axis.axhline, size[0]), (axis.axvline, size[1])):
        for place in range(side, length, side):
            draw(place - 0.5, color=color, lw=width)
