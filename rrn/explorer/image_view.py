"""The explorer's picture of one image, drawn as one array: fast, for it follows a slider. No torch, no matplotlib axes.

An `ImageView` holds what no rule changes: image, label, pseudo-labels, scores, legends. `ImageView.drawn` adds what is
kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from rrn.config import IGNORE_INDEX
from rrn.data.decoding import Pixels
from rrn.data.palette import Array, palette
from rrn.plotting.style import legend_classes
from rrn.reliability.evidence import About, Pictures
from rrn.reliability.scores import SCORES
from rrn.reliability.selection import Flags, Floats

PANEL, LARGEST = 160, 400
"""Sides in pixels that a panel has at least, if enlarged by a whole number, and at most, if it is thinned out."""

WIDTH = 1240
"""Of a view on which letters have the sizes below; on a wider one they grow with it, as it is shown smaller."""
TITLE, SMALL, TINY, GAP = 15, 13, 10, 14
HEAVIEST = 2.0
"""Weight that has the darkest color."""

ERRORS = {
    "right, kept": (0, 75, 155),
    "right, dropped": (160, 200, 240),
    "wrong, kept": (230, 85, 0),
    "wrong, dropped": (255, 213, 155),
    "void": (255, 255, 255),
}
"""Colors of the error map: blue is right, orange is wrong, strong is kept; told apart by all eyes and in gray."""

GRID = (90, 90, 90)
INK, PAPER, FAINT = (30, 30, 30), (255, 255, 255), (170, 170, 170)


def _shades(name: str, low: float = 0.0, high: float = 1.0) -> Pixels:
    """Return 256 colors of a map of matplotlib, uint8 [256, 3]."""
    return np.round(255 * mpl.colormaps[name](np.linspace(low, high, 256))[:, :3]).astype(np.uint8)


SCORE_SHADES, WEIGHT_SHADES = _shades("cividis"), _shades("Greens", 0.12, 0.95)


def encode_png(picture: Pixels) -> bytes:
    """Return a picture [H, W, 3] as a PNG, quickly rather than small."""
    stream = BytesIO()
    Image.fromarray(picture).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def scale(height: int, width: int) -> tuple[int, int]:
    """Return by which whole numbers an image is thinned out (every n-th pixel) and then enlarged."""
    step = -(-max(height, width) // LARGEST)
    return step, max(1, -(-PANEL * step // max(height, width)))


def error_codes(right: Flags, void: Flags, keeps: Flags) -> Pixels:
    """Return the place in ERRORS of every pixel, of three bool [H, W]: right, void, in a region that is kept."""
    codes = 2 * (~right).astype(np.uint8) + (~keeps).astype(np.uint8)
    return np.where(void, np.uint8(4), codes)


class ImageView:
    """One image, large enough to be read, and all that no rule changes.

    Args:
        about: classes, their colors, and the side of a region.
        pictures: of the image.
        scores: of its regions, 0..1 [2, rows, columns]; NaN: no valid pixel.
        segmenters: one row of panels for each.
        score: name of the scores, one of `rrn.reliability.scores.SCORES`.
        rated: whether weights other than 0 and 1 are to come.

    Attributes:
        size: height and width of the image itself.
    """

    def __init__(
        self, about: About, pictures: Pictures, scores: Floats, segmenters: Sequence[int], score: str, rated: bool
    ) -> None:
        self.about, self.segmenters = about, tuple(segmenters)
        self.titles = SCORES[score], "weight W of" if rated else "kept of"
        height, width = self.size = pictures.label.shape
        self.step, self.factor = scale(height, width)
        thin = (slice(None, None, self.step),) * 2
        self.label, self.pseudo_labels = pictures.label[thin], pictures.pseudo_labels[(slice(None), *thin)]
        self._maps = self.label, *self.pseudo_labels, pictures.prediction[thin]
        self.void = self.label == IGNORE_INDEX
        self.right = self.pseudo_labels == self.label
        self._region_rows, self._region_columns = (
            np.arange(0, length, self.step) // about.region for length in (height, width)
        )
        self._place()
        self._base = Image.new("RGB", self._size, PAPER)
        self._pen = ImageDraw.Draw(self._base)
        self._lay_out(pictures, pictures.image[thin], pictures.prediction[thin], scores)

    def _place(self) -> None:
        """Decide where everything stands: `_size`, the corners of panels."""
        height, width = (self.factor * length for length in self.label.shape)
        self.panel = (width, height)
        self.unit = max(1.0, (6 * width + 7 * GAP) / WIDTH)
        self.gap, self.title, small, tiny = (round(self.unit * length) for length in (GAP, TITLE, SMALL, TINY))
        self.column = max(width, round(150 * self.unit)) + self.gap
        self.head = round(1.6 * self.title)
        self.line = round(1.5 * small)
        self.fonts = ImageFont.load_default(self.title), ImageFont.load_default(small)
        self.tiny = ImageFont.load_default(tiny)
        self._names = self._wrapped()
        lines = max(len(ERRORS), len(self._names))
        self._bottom = len(self.segmenters) * (self.head + height + self.gap // 2)
        self._size = (6 * self.column + self.gap, self._bottom + (lines + 1) * self.line)

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """Return the left upper corner of a panel."""
        return self.gap + column * self.column, self.head + row * (self.head + self.panel[1] + self.gap // 2)

    def _wrapped(self) -> list[list[tuple[str, int]]]:
        """Break the legend of the classes and void into lines below the first three panels: (name, left)."""
        lines: list[list[tuple[str, int]]] = [[]]
        left, room = 0, 3 * self.column - self.gap
        shown, more = legend_classes(len(self.about.classes), self._maps)
        names = [self.about.classes[place] for place in shown] + ["void"] * bool(self.void.any())
        names += [f"and {more} more"] * bool(more)
        for name in names:
            need = round(self.fonts[1].getlength(name)) + 2 * self.line
            if left and left + need > room:
                lines.append([])
                left = 0
            lines[-1].append((name, left))
            left += need
        return lines

    def _lay_out(self, pictures: Pictures, image: Pixels, prediction: Pixels, scores: Floats) -> None:
        colors = palette(len(self.about.classes), self.about.colours)
        differ = np.where(self.pseudo_labels[0] != self.pseudo_labels[1], np.uint8(60), np.uint8(255))
        left = (
            [("image", image), ("label", colors[self.label])],
            [("both together", colors[prediction]), ("1 and 2 differ", np.stack([differ] * 3, axis=-1))],
        )
        for row, k in enumerate(self.segmenters):
            panels = [*left[row], (f"pseudo-label {k}", colors[self.pseudo_labels[k - 1]])]
            shades = SCORE_SHADES[_shade(scores[k - 1])]
            shades[np.isnan(scores[k - 1])] = 255
            panels.append((f"{self.titles[0]} {k}", self._spread(shades)))
            for column, (title, small) in enumerate(panels):
                self._title(row, column, title)
                self._base.paste(Image.fromarray(self._large(small, column == 3)), self.corner(row, column))
                self._frame(self._pen, row, column)
            self._numbers(self._pen, self.corner(row, 3), scores[k - 1], shades)
            for column in (3, 4, 5):
                self._count(self.corner(row, column))
            self._title(row, 4, f"{self.titles[1]} {k}")
            self._title(row, 5, f"errors of {k}")
        self._legends(colors)

    def _spread(self, values: Array) -> Array:
        """Give every pixel what its region has: [rows, columns, ...] -> [H, W, ...]."""
        return values[self._region_rows[:, None], self._region_columns]

    def _large(self, small: Array, grid: bool) -> Array:
        """Enlarge an array [H, W, ...], and draw the borders of regions if wanted."""
        large = small.repeat(self.factor, 0).repeat(self.factor, 1)
        if grid:
            rows, columns = self._borders
            large[rows], large[:, columns] = GRID, GRID
        return large

    @property
    def _borders(self) -> tuple[Array, Array]:
        """Return the rows and columns of an enlarged panel at which a region begins, but the first."""
        rows, columns = (np.setdiff1d(edges, (0, edges[-1])) for edges in self._edges)
        return rows, columns

    @property
    def _edges(self) -> tuple[Array, Array]:
        """Return the rows and columns of an enlarged panel at which each region begins, and the end of the last.

        A region of which a thinned out picture shows no pixel ends where it begins.
        """
        rows, columns = (
            self.factor * np.searchsorted(line, np.arange(-(-length // self.about.region) + 1))
            for line, length in zip((self._region_rows, self._region_columns), self.size, strict=True)
        )
        return rows, columns

    def _count(self, corner: tuple[int, int]) -> None:
        """Number the rows of regions left of a panel, and the columns below it, as the table does; some, if close."""
        (left, top), (rows, columns) = corner, self._edges
        room = self.tiny.getlength("00") * 1.3
        every = max(1, round(np.ceil(room / min(np.diff(rows).max(), np.diff(columns).max()))))
        for number, middle in enumerate((rows[:-1] + rows[1:]) / 2):
            if number % every == 0:
                self._pen.text((left - 3, top + middle), str(number), GRID, self.tiny, anchor="rm")
        for number, middle in enumerate((columns[:-1] + columns[1:]) / 2):
            if number % every == 0:
                self._pen.text((left + middle, top + self.panel[1] + 2), str(number), GRID, self.tiny, anchor="mt")

    def _title(self, row: int, column: int, text: str) -> None:
        """Write what a panel shows above it, cut off where it would touch the next."""
        left, top = self.corner(row, column)
        room, font = self.column - self.gap // 2, self.fonts[0]
        if font.getlength(text) > room:
            font = ImageFont.load_default(self.title * room / font.getlength(text))
        self._pen.text((left, top - self.title * 0.35), text, INK, font, anchor="ls")

    def _frame(self, pen: ImageDraw.ImageDraw, row: int, column: int) -> None:
        left, top = self.corner(row, column)
        pen.rectangle((left - 1, top - 1, left + self.panel[0], top + self.panel[1]), outline=FAINT)

    def _numbers(self, pen: ImageDraw.ImageDraw, corner: tuple[int, int], values: Floats, shades: Pixels) -> None:
        """Write the value of each region into it, where there is room."""
        edges = self._edges
        font, room = self.fonts[1], self.fonts[1].getlength("0.00")
        for (row, column), value in np.ndenumerate(values):
            (top, bottom), (left, right) = edges[0][row : row + 2], edges[1][column : column + 2]
            if np.isfinite(value) and right - left > 1.1 * room and bottom - top > self.line * 0.8:
                dark = shades[row, column].astype(float) @ (0.299, 0.587, 0.114) < 128
                place = (corner[0] + (left + right) / 2, corner[1] + (top + bottom) / 2)
                pen.text(place, f"{value:.2f}", PAPER if dark else INK, font, anchor="mm")

    def _legends(self, colors: Pixels) -> None:
        top, font = self._bottom + self.line // 2, self.fonts[1]
        shown = dict(zip(self.about.classes, colors.tolist(), strict=False)) | {"void": PAPER}
        for number, line in enumerate(self._names):
            for name, left in line:
                self._swatch((self.gap + left, top + number * self.line), name, tuple(shown.get(name, PAPER)))
        for number, (name, color) in enumerate(ERRORS.items()):
            self._swatch((self.corner(0, 5)[0], top + number * self.line), name, color)
        for column, shades, ends in ((3, SCORE_SHADES, ("0", "1")), (4, WEIGHT_SHADES, ("0", f"{HEAVIEST:g} or more"))):
            left, width = self.corner(0, column)[0], self.column - 2 * self.gap
            bar = shades[np.arange(width) * 256 // width][None].repeat(round(0.7 * self.line), 0)
            self._base.paste(Image.fromarray(bar), (left, top))
            for text, place, anchor in ((ends[0], left, "la"), (ends[1], left + width, "ra")):
                self._pen.text((place, top + self.line * 0.9), text, INK, font, anchor=anchor)
        left, top = self.corner(0, 4)[0], top + 2 * self.line
        self._base.paste(Image.fromarray(_hatched(self.line, self.line)), (left, top))
        self._pen.rectangle((left, top, left + self.line - 1, top + round(0.7 * self.line)), outline=FAINT)
        self._pen.rectangle((left, top + round(0.7 * self.line) + 1, left + self.line, top + self.line), fill=PAPER)
        self._pen.text((left + 1.4 * self.line, top), "dropped", INK, font, anchor="la")

    def _swatch(self, corner: tuple[int, int], name: str, color: tuple[int, ...]) -> None:
        side = round(0.7 * self.line)
        self._pen.rectangle((*corner, corner[0] + side, corner[1] + side), fill=color, outline=FAINT)
        self._pen.text((corner[0] + 1.4 * side, corner[1]), name, INK, self.fonts[1], anchor="la")

    def drawn(self, keeps: Floats, weights: Floats) -> Pixels:
        """Return the view with what is kept.

        Args:
            keeps: 1 kept, 0 dropped, NaN no valid pixel [2, rows, columns].
            weights: W of the regions, the same shape.

        Returns:
            RGB [H, W, 3].
        """
        view = self._base.copy()
        pen = ImageDraw.Draw(view)
        table = np.array(list(ERRORS.values()), dtype=np.uint8)
        for row, k in enumerate(self.segmenters):
            chosen, weight = keeps[k - 1] == 1, weights[k - 1]
            codes = error_codes(self.right[k - 1], self.void, self._spread(chosen))
            shades = WEIGHT_SHADES[_shade(weight / HEAVIEST)]
            heat = self._large(self._spread(shades), False)
            dropped = self._large(self._spread(~chosen), False)
            heat = np.where(dropped[..., None], _hatched(*heat.shape[:2]), heat)
            rows, columns = self._borders
            heat[rows], heat[:, columns] = GRID, GRID
            for column, panel in ((4, heat), (5, self._large(table[codes], True))):
                view.paste(Image.fromarray(panel), self.corner(row, column))
                self._frame(pen, row, column)
            if not np.isin(weight[chosen], (0, 1)).all():
                self._numbers(pen, self.corner(row, 4), np.where(chosen, weight, np.nan), shades)
        return np.asarray(view)


def _shade(values: Floats) -> npt.NDArray[np.int64]:
    """Return the place of values 0..1 in 256 shades; the last above, the first of NaN."""
    return np.clip(np.nan_to_num(values) * 256, 0, 255).astype(np.int64)


def _hatched(height: int, width: int) -> Pixels:
    """Return a white area with thin diagonal lines [H, W, 3]."""
    lines = (np.arange(height)[:, None] + np.arange(width)) % 8 < 1
    return np.where(lines[..., None], np.uint8(190), np.full((height, width, 3), 255, np.uint8))
