"""The method as a drawing: how a pseudo-label gets its weight. docs/method.md in one picture, of patches and arrows.

Coordinates are inches from the lower left corner. Blue and solid is the first segmenter, red and dashed the second one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Patch, Polygon, Rectangle

from rrn.data.palette import CLASS_COLORS, Array
from rrn.plotting.style import DASHED, PAGE, SOLID, Dash, Picture, styled

HEIGHT, SIDE, REGIONS = 4.46, 0.62, 4
"""Inches of the figure and of a picture in it; regions per side of a picture."""

TOP, MIDDLE, BOTTOM, LABELED = 3.48, 2.71, 1.94, 0.46
"""Heights of the rows: branch 1, what both share, branch 2, labeled images."""

UNLABELED_TITLE = "unlabeled images: what one segmenter says is weighed by region, then the other learns it"
LABELED_TITLE = "labeled images: the segmenters learn their labels, the discriminators where the segmenters err"

IMAGES, TEACHERS, PSEUDO_LABELS, JUDGES, SCORED, KEPT, WEIGHED, LOSSES, STUDENTS = (
    *(0.5, 1.32, 2.12, 2.92, 3.7, 4.5, 5.3, 6.06, 6.78),
)
"""Centres of the columns."""

BOX, DISC = 0.23, 0.18
"""Half a network's box; radius of a loss."""

RHO = 2.86, MIDDLE - 0.22, 1.86, 0.44
"""Left, bottom, width and height of the box of rho."""

BRANCHES: tuple[tuple[str, Dash], ...] = (("#4477AA", SOLID), ("#EE6677", DASHED))
JUDGE, INK, SOFT = "#228833", "#333333", "#F3F3F3"
PHOTO = ("#D9D2C4", "#8FA98F", "#C9967A", "#8DA3BD")
LABELS = tuple(CLASS_COLORS[place] for place in (0, 3, 4, 1))
WRONG = CLASS_COLORS[6]


class Shape(NamedTuple):
    """A polygon in a unit square, or a disc if it has one corner; colour is an index."""

    colour: int
    corners: Sequence[tuple[float, float]]
    radius: float = 0.0


SCENE = (
    Shape(1, [(0, 0), (0, 0.3), (0.4, 0.42), (1, 0.22), (1, 0)]),
    Shape(2, [(0.1, 0.3), (0.46, 0.38), (0.3, 0.84)]),
    Shape(3, [(0.7, 0.66)], 0.19),
)
OTHER_SCENE = (
    Shape(1, [(0, 0), (0, 0.2), (1, 0.45), (1, 0)]),
    Shape(3, [(0.12, 0.3), (0.12, 0.72), (0.5, 0.72), (0.5, 0.3)]),
    Shape(2, [(0.72, 0.55)], 0.2),
)
MISTAKES = (
    [[(0.55, 0.02), (0.62, 0.24), (0.9, 0.22), (0.98, 0.05)], [(0.02, 0.78), (0.05, 0.97), (0.23, 0.95), (0.2, 0.8)]],
    [[(0.55, 0.02), (0.6, 0.16), (0.8, 0.2), (0.8, 0.05)], [(0.78, 0.52), (0.8, 0.74), (0.97, 0.7), (0.93, 0.52)]],
)
"""What each segmenter gets wrong in SCENE: polygons."""

SCORES = (
    np.array([[0.35, 0.8, 0.9, 0.9], [0.85, 0.7, 0.75, 0.7], [0.9, 0.75, 0.9, 0.95], [0.95, 0.9, 0.3, 0.25]]),
    np.array([[0.9, 0.8, 0.9, 0.8], [0.85, 0.7, 0.75, 0.3], [0.9, 0.8, 0.9, 0.45], [0.95, 0.9, 0.4, 0.75]]),
)
"""Of both branches, [rows, columns] from above: low where the mistakes are."""

AGREEMENT = np.array([[0.5, 1, 1, 1], [1, 0.9, 0.9, 0.5], [1, 0.9, 1, 0.6], [1, 1, 0.6, 0.5]])
KEEP = 0.5


@styled
def overview() -> Figure:
    """Draw the method: two segmenters, region discriminators, what is kept, its weight, and who learns from it."""
    fig = Picture(figsize=(PAGE, HEIGHT))
    axis = fig.add_axes((0, 0, 1, 1), xlim=(0, PAGE), ylim=(0, HEIGHT))
    axis.set_axis_off()
    with mpl.rc_context({"font.size": 6.5}):
        _panel(axis, 1.2, HEIGHT - 0.04, UNLABELED_TITLE)
        _panel(axis, 0.04, 1.14, LABELED_TITLE)
        _shared(axis)
        for branch, row in enumerate((TOP, BOTTOM)):
            _branch(axis, branch, row)
        _labeled(axis)
    return fig


# ---- parts of the method


def _shared(axis: Axes) -> None:
    """Draw what both branches share: unlabeled images, rho, and the mixed images."""
    for offset, shapes in ((0.08, OTHER_SCENE), (0.0, SCENE)):
        _scene(axis, IMAGES + offset - 0.04, MIDDLE + offset - 0.04, shapes, PHOTO)
    axis.text(IMAGES + 0.05, MIDDLE - 0.38, "$u_0$, $u_1$", va="top")
    box = FancyBboxPatch(RHO[:2], *RHO[2:], "round,pad=0,rounding_size=0.06", fc="white", ec=INK, lw=0.8)
    axis.add_patch(box)
    centre = RHO[0] + RHO[2] / 2
    axis.text(centre, MIDDLE + 0.1, r"$\rho$: diversity of the two networks", ha="center", va="center", fontsize=7)
    kinds = "of what they say: agreement, divergence\nof both scores: votes, mean, product"
    axis.text(centre, MIDDLE - 0.08, kinds, ha="center", va="center", fontsize=5.5, color=INK)
    axis.text(WEIGHED + 0.05, MIDDLE, r"$\times\,\rho$", va="center")
    _scene(axis, STUDENTS, MIDDLE, SCENE, PHOTO)
    _scene(axis, STUDENTS, MIDDLE, OTHER_SCENE, PHOTO, window=(0.4, 0.3, 0.45, 0.5))
    axis.text(STUDENTS - 0.37, MIDDLE, "CutMix\n$(1-M)\\,u_0+M\\,u_1$", ha="right", va="center")


def _branch(axis: Axes, k: int, row: float) -> None:
    """Draw the way of one segmenter's pseudo-labels to the weighted loss of the other segmenter."""
    own, other = k + 1, 2 - k
    _network(axis, TEACHERS, row, f"$f_{own}$", BRANCHES[k][0])
    _scene(axis, PSEUDO_LABELS, row, SCENE, LABELS, MISTAKES[k])
    _network(axis, JUDGES, row, f"$D_{own}$", JUDGE)
    _cells(axis, SCORED, row, SCORES[k])
    _scene(axis, KEPT, row, SCENE, LABELS, MISTAKES[k])
    _cells(axis, KEPT, row, np.where(SCORES[k] < KEEP, 0, np.nan), "binary", "......")
    _cells(axis, WEIGHED, row, np.where(SCORES[k] < KEEP, 0, 0.7 * AGREEMENT**2), "Greys")
    _loss(axis, LOSSES, row)
    _network(axis, STUDENTS, row, f"$f_{other}$", BRANCHES[1 - k][0])
    out = 1 - 2 * k  # away from the middle
    _name(axis, k, row, out)
    _connect(axis, k, row, out)


def _name(axis: Axes, k: int, row: float, out: int) -> None:
    """Write the names of a branch's parts, above the upper branch and below the lower one."""
    own, other = k + 1, 2 - k
    captions = {
        TEACHERS: "teacher",
        PSEUDO_LABELS - 0.08: f"pseudo-\nlabels $q_{own}$",
        JUDGES: "judges regions,\nmay see image",
        SCORED: f"region\nscores $s_{{{own}{own}}}$",
        KEPT: "kept: the best,\n" + rf"or $s_{{{own}{own}}}\geq\tau$",
        WEIGHED: f"weight\nmap $W_{own}$",
        STUDENTS: "student",
    }
    near, far = ("bottom", "top") if out > 0 else ("top", "bottom")
    for column, text in captions.items():
        axis.text(column, row + out * (SIDE / 2 + 0.04), text, ha="center", va=near)
    loss = rf"$\sum W_{own}\,\mathrm{{CE}}(z_{other},q_{own})$"
    axis.text(LOSSES, row - out * 0.25, loss, ha="center", va=far)
    axis.text((STUDENTS + LOSSES) / 2 - 0.02, row + 0.03, f"$z_{other}$", ha="center", va="bottom")


def _connect(axis: Axes, k: int, row: float, out: int) -> None:
    """Draw the arrows of a branch: its own in its colour, those from and to what both share in black."""
    half, bus, turn = SIDE / 2, row + out * 0.67, PSEUDO_LABELS + 0.25
    stops = [(TEACHERS, BOX), (PSEUDO_LABELS, half), (JUDGES, BOX), (SCORED, half), (KEPT, half), (WEIGHED, half)]
    for (start, before), (end, after) in itertools.pairwise([*stops, (LOSSES, DISC)]):
        _arrow(axis, [(start + before, row), (end - after, row)], *BRANCHES[k])
    _arrow(axis, [(turn, row + out * half), (turn, bus), (LOSSES, bus), (LOSSES, row + out * DISC)], *BRANCHES[k])
    note = f"$q_{k + 1}$ and $W_{k + 1}$ are mixed by $M$ like the images"
    ground = {"fc": SOFT, "ec": "none", "pad": 1}
    axis.text(SCORED + 0.1, bus, note, ha="center", va="center", color=BRANCHES[k][0], bbox=ground)
    _arrow(axis, [(STUDENTS - BOX, row), (LOSSES + DISC, row)], *BRANCHES[1 - k])
    inner = row - out * half
    ways = [
        [(IMAGES, MIDDLE + out * 0.35), (IMAGES, row), (TEACHERS - BOX, row)],
        [(PSEUDO_LABELS, inner), (PSEUDO_LABELS, MIDDLE), (RHO[0], MIDDLE)],
        [(SCORED, inner), (SCORED, MIDDLE + out * RHO[3] / 2)],
        [(RHO[0] + RHO[2], MIDDLE), (WEIGHED, MIDDLE), (WEIGHED, inner)],
        [(STUDENTS, MIDDLE + out * half), (STUDENTS, row - out * BOX)],
    ]
    for way in ways:
        _arrow(axis, way, INK)


def _labeled(axis: Axes) -> None:
    """Draw what is learnt from labeled images: the segmenters their labels, the discriminators where these err."""
    half, row = SIDE / 2, LABELED
    share = 4.9
    _scene(axis, IMAGES, row, SCENE, PHOTO)
    _scene(axis, PSEUDO_LABELS, row, SCENE, LABELS, MISTAKES[0])
    _loss(axis, JUDGES, row)
    _scene(axis, SCORED, row, SCENE, LABELS)
    _cells(axis, share, row, np.where(SCORES[0] < KEEP, SCORES[0], 1))
    for k, (colour, _) in enumerate(BRANCHES):
        _network(axis, TEACHERS, row + 0.16 * (1 - 2 * k), f"$f_{k + 1}$", colour, 0.27)
        _network(axis, LOSSES, row + 0.16 * (1 - 2 * k), f"$D_{k + 1}$", JUDGE, 0.27)
    captions = {
        IMAGES: "image $x$",
        PSEUDO_LABELS: "prediction",
        JUDGES: "cross-entropy",
        SCORED: "label $y$",
        share: "share of right pixels",
        LOSSES: "learn it",
    }
    for column, text in captions.items():
        axis.text(column, row + half + 0.03, text, ha="center", va="bottom")
    axis.text(
        LOSSES + 0.29,
        row,
        "(accuracy), or\nadversarial:\nlabels are real,\npseudo-labels fake",
        va="center",
        fontsize=5.8,
    )
    ways = [
        [(IMAGES + half, row), (TEACHERS - BOX, row)],
        [(TEACHERS + BOX, row), (PSEUDO_LABELS - half, row)],
        [(PSEUDO_LABELS + half, row), (JUDGES - DISC, row)],
        [(SCORED - half, row), (JUDGES + DISC, row)],
        [(SCORED + half, row), (share - half, row)],
        [(share + half, row), (LOSSES - BOX, row)],
    ]
    for way in ways:
        _arrow(axis, way, INK)
    below = row - half - 0.06
    _arrow(axis, [(PSEUDO_LABELS, row - half), (PSEUDO_LABELS, below), (share, below), (share, row - half)], INK)


# ---- shapes


def _panel(axis: Axes, bottom: float, top: float, title: str) -> None:
    """Draw the ground of a part of the figure, and its title."""
    box = FancyBboxPatch((0.05, bottom), PAGE - 0.1, top - bottom, "round,pad=0,rounding_size=0.08", fc=SOFT, ec="none")
    axis.add_patch(box)
    axis.text(0.12, top - 0.05, title, va="top", fontsize=7.5, fontweight="bold", color=INK)


def _network(axis: Axes, x: float, y: float, name: str, colour: str, height: float = 2 * BOX) -> None:
    """Draw a network: a box with its name."""
    corner = x - BOX, y - height / 2
    box = FancyBboxPatch(corner, 2 * BOX, height, "round,pad=0,rounding_size=0.07", fc=colour, ec=INK, lw=0.6)
    axis.add_patch(box)
    axis.text(x, y, name, ha="center", va="center", fontsize=9, color="white")


def _loss(axis: Axes, x: float, y: float) -> None:
    """Draw a cross-entropy."""
    axis.add_patch(Circle((x, y), DISC, fc="white", ec=INK, lw=0.8))
    axis.text(x, y, "CE", ha="center", va="center", fontsize=7)


def _scene(
    axis: Axes,
    x: float,
    y: float,
    shapes: Sequence[Shape],
    colours: Sequence[str],
    mistakes: Sequence[Sequence[tuple[float, float]]] = (),
    window: tuple[float, float, float, float] = (0, 0, 1, 1),
) -> None:
    """Draw a picture, or a part of it: left, bottom, width and height of the `window` in a unit square."""
    left, bottom = x - SIDE / 2, y - SIDE / 2
    corner = left + SIDE * window[0], bottom + SIDE * window[1]
    frame = Rectangle(corner, SIDE * window[2], SIDE * window[3], fc=colours[0], ec="none")
    axis.add_patch(frame)
    pieces: list[Patch] = []
    for shape in shapes:
        corners = np.array(shape.corners) * SIDE + (left, bottom)
        colour = colours[shape.colour]
        if shape.radius:
            pieces.append(Circle((corners[0, 0], corners[0, 1]), shape.radius * SIDE, fc=colour, ec="none"))
        else:
            pieces.append(Polygon(corners, fc=colour, ec="none"))
    pieces += [Polygon(np.array(corners) * SIDE + (left, bottom), fc=WRONG, ec="none") for corners in mistakes]
    for piece in pieces:
        axis.add_patch(piece)
        piece.set_clip_path(frame)
    axis.add_patch(Rectangle(corner, frame.get_width(), frame.get_height(), fill=False, ec=INK, lw=0.6))


def _cells(axis: Axes, x: float, y: float, values: Array, colours: str = "cividis", hatch: str = "") -> None:
    """Draw regions in the colours of their values, 0..1; one without a value stays what it is."""
    side = SIDE / REGIONS
    scale = mpl.colormaps[colours]
    for (line, column), value in np.ndenumerate(values):
        known = np.isfinite(value)
        place = x - SIDE / 2 + side * column, y + SIDE / 2 - side * (line + 1)
        fill = scale(float(value)) if known else "none"
        axis.add_patch(Rectangle(place, side, side, fc=fill, ec="white", lw=0.5, hatch=hatch * int(known) or None))
    axis.add_patch(Rectangle((x - SIDE / 2, y - SIDE / 2), SIDE, SIDE, fill=False, ec=INK, lw=0.6))


def _arrow(axis: Axes, points: Sequence[tuple[float, float]], colour: str, dash: Dash = SOLID) -> None:
    """Draw a way through points that ends in an arrow."""
    xs, ys = zip(*points, strict=True)
    axis.plot(xs, ys, color=colour, ls=dash, lw=1.0, marker="none", solid_joinstyle="round")
    head = {"arrowstyle": "-|>,head_width=0.26,head_length=0.5", "color": colour, "lw": 0, "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", points[-1], points[-2], arrowprops=head)
