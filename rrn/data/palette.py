"""Colors of classes, of whatever is drawn: label maps, figures, the explorer, overlays. No torch, no matplotlib."""

from __future__ import annotations

from colorsys import hsv_to_rgb
from typing import Any

import numpy as np
import numpy.typing as npt

from rrn.config import IGNORE_INDEX

Array = npt.NDArray[Any]

CLASS_COLORS = (
    *("#BBBBBB", "#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#222255"),
    *("#EE7733", "#44AA99", "#882255", "#999933", "#0077BB", "#DDCC77", "#117733", "#FFAABB"),
    *("#663333", "#99DDFF", "#6A4C93", "#BBCC33", "#555555"),
)
"""Of the first classes of a data set that has no colors of its own; further ones go round the hues."""


def palette(classes: int, own: npt.ArrayLike = ()) -> Array:
    """Return colors uint8 [256, 3]: of the classes 0, 1, ..., and white for everything else.

    Args:
        classes: how many there are.
        own: colors of the data set, uint8 [classes, 3]; empty: it has none, and gets ours.
    """
    colors = np.full((256, 3), 255, np.uint8)
    for index in range(min(classes, IGNORE_INDEX)):
        if index < len(CLASS_COLORS):
            colors[index] = list(bytes.fromhex(CLASS_COLORS[index][1:]))
        else:
            colors[index] = np.round(255 * np.array(hsv_to_rgb(index * 0.618034 % 1, 1, 1)))
    given = np.asarray(own, dtype=np.uint8).reshape(-1, 3)
    colors[: len(given)] = given
    return colors
