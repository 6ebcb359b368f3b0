"""Figures made of images.

A label map has the same colors everywhere; void is white and hatched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from rrn.config import IGNORE_INDEX
from rrn.data.palette import Array, palette
from rrn.plotting.style import COLUMN, PAGE, escape_mathtext, legend_classes, styled, subplot_grid, tight


@styled
def samples(
    images: Any, labels: Any, classes: Sequence[str], colors: ArrayLike = (), columns: int = 6, lines: int = 1
) -> Figure:
    """Draw images above their colored labels.

    Args:
        images: uint8 [N, 3, H, W] or [N, H, W, 3], array or tensor.
        labels: integers [N, H, W], 255 = void.
        classes: names.
        colors: of the classes, uint8 [C, 3]; empty: ours.
        columns: most images in a line.
        lines: most lines of images.
    """
    photos, maps = pictures(images)[: columns * lines], np.asarray(labels)[: columns * lines]
    rows: list[Row] = []
    for start in range(0, len(photos), columns):
        line = slice(start, start + columns)
        rows += [("image", list(photos[line])), ("label", list(maps[line]))]
    return _sheet(rows, classes, colors)


Row = tuple[str, list[Array]]
"""A name and images [H, W, 3], or label maps [H, W]."""


def _sheet(rows: Sequence[Row], classes: Sequence[str], colors: ArrayLike) -> Figure:
    count = max(len(items) for _, items in rows)
    height, width = rows[0][1][0].shape[:2]
    total = COLUMN if count < 4 else PAGE
    side = (total - 0.3) / count
    maps = [item for _, items in rows for item in items if item.ndim == 2]
    legend = legend_height(total, classes, maps)
    fig, axes = subplot_grid(len(rows), count, (total, 0.4 + legend + len(rows) * side * height / width))
    tight(fig)
    colors = palette(len(classes), colors)
    for line, (name, items) in zip(axes, rows, strict=True):
        line[0].set_ylabel(name)
        for axis, item in zip(line, items, strict=False):
            if item.ndim == 3:
                show(axis, item)
            else:
                show_labels(axis, item, colors)
        for axis in line[len(items) :]:
            axis.set_axis_off()
    class_legend(fig, classes, colors, maps)
    return fig


def show(axis: Axes, image: Array) -> None:
    """Draw a picture [H, W(, 3)] without ticks, in a thin frame."""
    axis.imshow(image, interpolation="none")
    frame(axis)


def frame(axis: Axes) -> None:
    """Take the ticks away and draw a thin frame."""
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(visible=True, linewidth=0.4, color="#666666")


def show_labels(axis: Axes, labels: Array, colors: Array) -> None:
    """Draw labels [H, W] in the colors of their classes, uint8 [256, 3]; void is white and hatched."""
    show(axis, colors[labels.astype(np.uint8)])
    void = labels == IGNORE_INDEX
    if void.any():
        hatch(axis, void)


def hatch(axis: Axes, mask: Array, pattern: str = "//////") -> None:
    """Hatch the pixels of a mask [H, W]."""
    values = np.pad(mask.astype(float), 1)
    places = [np.arange(-1, size + 1) for size in mask.shape]
    axis.contourf(places[1], places[0], values, [0.5, 1.5], colors="none", hatches=[pattern])
    axis.set(xlim=(-0.5, mask.shape[1] - 0.5), ylim=(mask.shape[0] - 0.5, -0.5))


def class_legend(fig: Figure, classes: Sequence[str], colors: Array, maps: Sequence[Array]) -> None:
    """Put the names and colors of the classes below the figure; of many classes, of those in its label `maps`."""
    shown, more = legend_classes(len(classes), maps)
    handles = [Patch(fc=colors[i] / 255, ec="#666666", label=escape_mathtext(classes[i])) for i in shown]
    if any((labels == IGNORE_INDEX).any() for labels in maps):
        handles.append(Patch(fc="white", ec="#666666", hatch="//////", label="void"))
    if more:
        handles.append(Patch(fc="none", ec="none", label=f"and {more} more"))
    names = [classes[i] for i in shown]
    ncols = _legend_shape(fig.get_figwidth(), names, len(handles))[1]
    fig.legend(handles=handles, loc="outside lower center", ncols=ncols)


def legend_height(width: float, classes: Sequence[str], maps: Sequence[Array]) -> float:
    """Return the inches that `class_legend` needs beyond two lines, which fit below any figure of `width` inches."""
    names = [classes[i] for i in legend_classes(len(classes), maps)[0]]
    return 0.15 * max(0, _legend_shape(width, names, len(names) + 1)[0] - 2)


def _legend_shape(width: float, names: Sequence[str], count: int) -> tuple[int, int]:
    """Return the lines and columns of a legend of `count` entries, most of them `names`, in `width` inches."""
    longest = max(map(len, names), default=0)
    fitting = max(1, min(count, int(width / (0.45 + 0.06 * longest))))
    lines = math.ceil(count / fitting)
    return lines, math.ceil(count / lines)


def pictures(values: Any) -> Array:
    """Return images uint8 [N, H, W, 3] of tensors or arrays [N, 3, H, W] or [N, H, W, 3]."""
    array = np.asarray(values)
    return array if array.shape[-1] == 3 else array.transpose(0, 2, 3, 1)
