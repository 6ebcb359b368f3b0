"""What all figures share: the style sheet, the looks of methods, scores and classes, `save`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from rrn.data.palette import Array
from rrn.reliability.scores import RANKED, SCORES
from rrn.runtime import atomic_io

STYLE = Path(__file__).with_name("paper.mplstyle")
COLUMN, PAGE = 3.5, 7.2
"""Widths of a figure in inches: one column of a paper, and both."""

P = ParamSpec("P")

Dash = tuple[float, tuple[float, ...] | None]
"""A line style of matplotlib: offset, and lengths of lines and gaps in points; None is solid."""

SOLID: Dash = (0, None)
DASHED: Dash = (0, (4, 1.4))
DOTTED: Dash = (0, (1, 1.2))
MIXED: Dash = (0, (4, 1.2, 1, 1.2))
LONG: Dash = (0, (8, 1.6))
DASHES = (SOLID, DASHED, DOTTED, MIXED, LONG)
HATCHES = {"s": "", "o": "..", "D": "//", "P": "++", "X": "xx", "v": "--", "^": "||", "h": "\\\\", "p": "oo", "*": "**"}
"""Marker of a line -> hatch of a bar, so that what differs in color differs in print without color too."""


class Look(NamedTuple):
    """How a method or a score is drawn: everywhere the same, and told apart without color."""

    color: str
    label: str
    marker: str
    dash: Dash

    @property
    def hatch(self) -> str:
        """Pattern of its bars: by the marker, denser with the place of the dash in DASHES."""
        return HATCHES[self.marker] + HATCHES[self.marker][:1] * DASHES.index(self.dash)

    @property
    def line(self) -> dict[str, Any]:
        """Options of `Axes.plot` and `Axes.errorbar`."""
        return {"color": self.color, "marker": self.marker, "linestyle": self.dash}

    @property
    def bar(self) -> dict[str, Any]:
        """Options of `Axes.bar` and of a patch."""
        return {"facecolor": self.color, "edgecolor": "white", "hatch": self.hatch, "hatchcolor": "white"}


METHOD_STYLE: dict[str, Look] = {
    "supervised": Look("#777777", "supervised", "v", DOTTED),
    "supervised_all": Look("#000000", "supervised, all labels", "^", DOTTED),
    "cps": Look("#66CCEE", "CPS", "s", DASHED),
    "cps_cutmix": Look("#4477AA", "CPS + CutMix", "s", SOLID),
    "local_filter": Look("#CCBB44", "local filter", "D", DASHED),
    "rrn": Look("#EE6677", "RRN", "o", SOLID),
    "confidence_filter": Look("#228833", "confidence filter", "P", MIXED),
    "probability_filter": Look("#009988", "probability filter", "P", DASHED),
    "random_filter": Look("#AA3377", "random filter", "X", LONG),
    "cps_strong": Look("#AA4499", "CPS + CutMix, strong views", "s", LONG),
    "cps_strong_rrn": Look("#661100", "RRN, strong views", "p", LONG),
    "unimatch": Look("#BBBBBB", "UniMatch", "p", DOTTED),
    "unimatch_rrn": Look("#CC3311", "UniMatch, RRN weights", "p", MIXED),
    "agreement": Look("#6699CC", "agreement weights", "v", SOLID),
    "rrn_product": Look("#EE7733", "RRN, product", "o", DASHED),
    "rrn_mean": Look("#0077BB", "RRN, mean", "o", DOTTED),
    "rrn_votes": Look("#117733", "RRN, votes", "o", MIXED),
    "rrn_divergence": Look("#882255", "RRN, divergence", "o", LONG),
    "adversarial_filter": Look("#332288", "local filter, adversarial", "h", DASHED),
    "adversarial_rrn": Look("#DDCC77", "RRN, adversarial", "h", SOLID),
    "threshold_filter": Look("#44AA99", "local filter, threshold", "D", MIXED),
    "pretrained": Look("#C19A6B", "RRN, pretrained", "h", MIXED),
    "mixed": Look("#5D8AA8", "RRN, mixed labels", "h", LONG),
    "mixed_pair": Look("#8F9779", "RRN, mixed, both maps", "D", LONG),
    "mixed_wrong": Look("#B57EDC", "RRN, mixed, wrong up", "P", LONG),
    "probability_soft": Look("#00A86B", "soft by probability", "X", MIXED),
    "relations": Look("#E52B50", "RRN, relations", "*", SOLID),
    "relations_per_class": Look("#FF9966", "relations, per class", "*", DASHED),
    "relations_ensemble": Look("#1C39BB", "relations, ensemble", "*", DOTTED),
    "relations_negative": Look("#4B3621", "relations, negative", "*", MIXED),
    "relations_ema": Look("#CC8899", "relations, EMA", "*", LONG),
}
"""Row of params.yaml or of a preset -> its look, in every figure; marker: kind of filter, dash: its variant."""

SWEEP_ROWS = {
    "keep_50": "local filter, best 1/2",
    "keep_75": "local filter, best 3/4",
    "keep_90": "local filter, best 9/10",
    "tau_60": "local filter, s >= 0.6",
    "tau_80": "local filter, s >= 0.8",
    "tau_90": "local filter, s >= 0.9",
    "grid_2": "local filter, 2 x 2 regions",
    "grid_4": "local filter, 4 x 4 regions",
    "grid_8": "local filter, 8 x 8 regions",
    "accuracy_image_soft": "accuracy, image, soft",
    "accuracy_soft": "accuracy, no image, soft",
    "accuracy_hard": "accuracy, no image, hard",
    "adversarial_image_soft": "adversarial, image, soft",
    "adversarial_soft": "adversarial, no image, soft",
    "adversarial_hard": "adversarial, no image, hard",
}
"""Row of a sweep -> its label. No eye tells so many colors apart: those of different sweeps share a few; marker and
dash are their own."""

SCORE_STYLE: dict[str, Look] = {
    "region_score": Look("#EE6677", "region score", "o", SOLID),
    "product": Look("#AA3377", "product of both", "p", DASHED),
    "confidence": Look("#228833", "confidence", "P", MIXED),
    "probability": Look("#66CCEE", "probability", "X", DASHED),
    "certainty": Look("#CCBB44", "certainty", "D", LONG),
    "agreement": Look("#4477AA", "agreement", "s", DOTTED),
}
"""Score of pseudo-labels -> its look, in every figure; one that has none of its own here gets one below."""

OTHER_COLORS = ("#999933", "#663333", "#6A4C93", "#99DDFF", "#FFAABB", "#005F73")
"""As many as the largest sweep has rows."""


def _add_looks(looks: dict[str, Look], labels: Mapping[str, str], markers: Sequence[str]) -> None:
    """Give what is labeled and has no look the next pair of marker and dash that is free."""
    taken = {(look.marker, look.dash) for look in looks.values()}
    free = [(marker, dash) for dash in DASHES for marker in markers if (marker, dash) not in taken]
    missing = [name for name in labels if name not in looks]
    for place, (name, pair) in enumerate(zip(missing, free, strict=False)):
        looks[name] = Look(OTHER_COLORS[place % len(OTHER_COLORS)], labels[name], *pair)


_add_looks(METHOD_STYLE, SWEEP_ROWS, [marker for marker in HATCHES if marker != "*"])
_own = {look.marker for look in SCORE_STYLE.values()}
_add_looks(SCORE_STYLE, {name: SCORES[name] for name in RANKED}, [marker for marker in HATCHES if marker not in _own])

MOST_NAMED = 40
"""Classes that a legend has room for."""

CLASSES_A_LINE = 25
"""Classes that an axis as wide as a page has room for."""


class Picture(Figure):
    """A Figure that a notebook shows once, as the value of a cell, whatever the backend."""

    def _repr_png_(self) -> bytes:
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
        fig: of a function of `rrn.plotting.figures` or `rrn.paper.comparisons`.
        path: without suffix; its folder is made if missing.
    """
    png, pdf = (path.parent / f"{path.name}.{kind}" for kind in ("png", "pdf"))
    with style.context(STYLE):
        fig.draw_without_rendering()
        fig.set_layout_engine("none")  # both files have the layout just computed
        with atomic_io.atomic_path(png) as unfinished:
            fig.savefig(unfinished, format="png", metadata={"Software": None})
        with atomic_io.atomic_path(pdf) as unfinished:
            fig.savefig(unfinished, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return png, pdf


def subplot_grid(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Picture, Array]:
    """Return a figure of `size` = (width, height) inches and its axes [rows, columns]."""
    fig = Picture(figsize=size, layout="constrained")
    return fig, fig.subplots(rows, columns, squeeze=False, **options)


def tight(fig: Figure) -> None:
    """Set the pictures of a figure close to each other."""
    engine = fig.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(w_pad=0.015, h_pad=0.015, wspace=0.0, hspace=0.0)


def known(table: pd.DataFrame, names: Mapping[str, str]) -> dict[str, str]:
    """Return those names, column -> label, whose column exists and holds something."""
    return {k: v for k, v in names.items() if k in table and table[k].notna().any()}


def mean_band(axis: Axes, x: ArrayLike, values: Array, look: Look, **options: Any) -> None:
    """Draw a curve: the mean over seeds of values [seeds, places], and a band of one standard deviation."""
    table = pd.DataFrame(values)
    mean, deviation = table.mean().to_numpy(), table.std().to_numpy()
    axis.plot(x, mean, **{**look.line, **options})
    if np.isfinite(deviation).any():
        axis.fill_between(x, mean - deviation, mean + deviation, color=look.color, alpha=0.2, lw=0)


def legend_below(fig: Figure, looks: Sequence[Look], *more: Line2D) -> None:
    """Put the legend of lines below the figure: looks, and whatever else is drawn."""
    handles = [*(Line2D([], [], **look.line, label=look.label) for look in looks), *more]
    longest = max(len(str(handle.get_label())) for handle in handles)
    fitting = max(1, int(fig.get_figwidth() / (0.5 + 0.05 * longest)))
    ncols = math.ceil(len(handles) / math.ceil(len(handles) / fitting))
    fig.legend(handles=handles, loc="outside lower center", ncols=ncols, handlelength=2.6)


def escape_mathtext(name: str) -> str:
    """Return a name of a class for matplotlib, which else sets what stands between two dollars as a formula."""
    return name.replace("$", r"\$")


def wrap_classes(classes: Sequence[str]) -> list[list[str]]:
    """Break classes into lines of at most CLASSES_A_LINE, each as long as the others or one shorter."""
    count = max(1, math.ceil(len(classes) / CLASSES_A_LINE))
    return [part.tolist() for part in np.array_split(np.array(classes, dtype=object), count)]


def name_ticks(fig: Figure, axis: Axes) -> None:
    """Turn long class names so that they do not touch each other."""
    fig.draw_without_rendering()
    names = [text.get_text() for text in axis.get_xticklabels()]
    inches = axis.get_window_extent().width / fig.dpi / max(1, len(names))
    if max(map(len, names), default=0) * 0.065 > inches:
        axis.tick_params(axis="x", rotation=35)
        for text in axis.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")


def method_style(method: str) -> Look:
    """Return the look of a method; one that METHOD_STYLE lacks gets a fixed one, by its name."""
    place = sum(method.encode())
    color = OTHER_COLORS[place % len(OTHER_COLORS)]
    marker = list(HATCHES)[place % len(HATCHES)]
    return METHOD_STYLE.get(method, Look(color, method.replace("_", " "), marker, DASHES[place % len(DASHES)]))


def legend_classes(classes: int, maps: Sequence[Array]) -> tuple[list[int], int]:
    """Return the classes that a legend names, and how many it leaves out.

    All of them, if there is room for them; else those to be seen, the most frequent MOST_NAMED of them.

    Args:
        classes: how many there are.
        maps: label maps that are drawn, integers [H, W].
    """
    if classes <= MOST_NAMED:
        return list(range(classes)), 0
    pixels = sum(np.bincount(labels[labels < classes].ravel(), minlength=classes) for labels in maps)
    seen = np.flatnonzero(pixels)
    frequent = seen[np.argsort(-np.asarray(pixels)[seen], kind="stable")]
    return sorted(frequent[:MOST_NAMED].tolist()), len(frequent[MOST_NAMED:])
