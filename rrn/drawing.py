"""What all figures share: the style sheet, the colours of methods and classes, `save`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib import style
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import ArrayLike

from rrn.config import IGNORE_INDEX

STYLE = Path(__file__).with_name("paper.mplstyle")
COLUMN, PAGE = 3.5, 7.2
"""Widths of a figure in inches: one column of a paper, and both."""

Array = npt.NDArray[Any]
P = ParamSpec("P")

METHOD_STYLE: dict[str, tuple[str, str]] = {
    "supervised": ("#777777", "supervised"),
    "supervised_all": ("#000000", "supervised, all labels"),
    "cps": ("#66CCEE", "CPS"),
    "cps_cutmix": ("#4477AA", "CPS + CutMix"),
    "local_filter": ("#CCBB44", "local filter"),
    "rrn": ("#EE6677", "RRN"),
    "confidence_filter": ("#228833", "confidence filter"),
    "random_filter": ("#AA3377", "random filter"),
    "rrn_product": ("#EE7733", "RRN, product"),
    "rrn_mean": ("#0077BB", "RRN, mean"),
    "rrn_votes": ("#117733", "RRN, votes"),
    "rrn_divergence": ("#882255", "RRN, divergence"),
    "adversarial_filter": ("#332288", "local filter, adversarial"),
    "adversarial_rrn": ("#DDCC77", "RRN, adversarial"),
    "threshold_filter": ("#44AA99", "local filter, threshold"),
}
"""Row of params.yaml or of a preset -> colour and label, in every figure."""

OTHER_COLOURS = ("#999933", "#663333", "#6A4C93", "#99DDFF", "#FFAABB")
CLASS_COLOURS = (
    *("#BBBBBB", "#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#222255"),
    *("#EE7733", "#44AA99", "#882255", "#999933", "#0077BB", "#DDCC77", "#117733", "#FFAABB"),
    *("#663333", "#99DDFF", "#6A4C93", "#BBCC33", "#555555"),
)


class Picture(Figure):
    """A Figure that a notebook shows once, as the value of a cell, whatever the backend."""

    def _repr_png_(self) -> bytes:
        """Return the picture as Jupyter asks for it."""
        buffer = BytesIO()
        with style.context(STYLE):
            self.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
        return buffer.getvalue()


def styled(function: Callable[P, Figure]) -> Callable[P, Figure]:
    """Make a function draw with the style sheet of this package."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with style.context(STYLE):
            return function(*args, **kwargs)

    return wrapper


def save(fig: Figure, path: Path) -> tuple[Path, Path]:
    """Write `path`.png (200 dpi) and `path`.pdf (fonts embedded), without dates; return both paths.

    Args:
        fig: of a function of `rrn.figures`.
        path: without suffix; its folder is made if missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    png, pdf = (path.parent / f"{path.name}.{kind}" for kind in ("png", "pdf"))
    with style.context(STYLE):
        fig.draw_without_rendering()
        fig.set_layout_engine("none")  # both files have the layout just computed
        fig.savefig(png, metadata={"Software": None})
        fig.savefig(pdf, metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return png, pdf


def grid(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Picture, Array]:
    """Return a figure of `size` = (width, height) inches and its axes [rows, columns]."""
    fig = Picture(figsize=size, layout="constrained")
    return fig, fig.subplots(rows, columns, squeeze=False, **options)


def tight(fig: Figure) -> None:
    """Set the pictures of a figure close to each other."""
    engine = fig.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(w_pad=0.015, h_pad=0.015, wspace=0.0, hspace=0.0)


def method_style(method: str) -> tuple[str, str]:
    """Return colour and label of a method; one that METHOD_STYLE lacks gets a fixed colour."""
    place = sum(method.encode()) % len(OTHER_COLOURS)
    return METHOD_STYLE.get(method, (OTHER_COLOURS[place], method.replace("_", " ")))


def palette(classes: int, own: ArrayLike = ()) -> Array:
    """Return colours uint8 [256, 3]: of the classes 0, 1, ..., and white for everything else.

    Args:
        classes: how many there are.
        own: colours of the data set, uint8 [classes, 3]; empty: it has none, and gets ours.
    """
    colours = np.full((256, 3), 255, np.uint8)
    for index in range(min(classes, IGNORE_INDEX)):
        if index < len(CLASS_COLOURS):
            colour = to_rgb(CLASS_COLOURS[index])
        else:
            colour = mpl.colormaps["hsv"](index * 0.618034 % 1)[:3]
        colours[index] = np.round(255 * np.array(colour))
    given = np.asarray(own, dtype=np.uint8).reshape(-1, 3)
    colours[: len(given)] = given
    return colours
