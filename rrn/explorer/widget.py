"""The explorer: controls, the picture of an image, a table of its regions, and the curves of its split.

Thin: `analysis` computes, `image_view` and `split_view` draw. A control that moves changes the picture at once;
the table and the curves follow when nothing has moved for a moment.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd

from rrn.explorer import analysis, image_view, split_view
from rrn.explorer.analysis import ORDERS, Choice, Regions
from rrn.reliability.evidence import Evidence, EvidenceError
from rrn.reliability.scores import SCORES
from rrn.reliability.selection import RHOS

REST = 0.25
"""Seconds after the last move until the table and the curves follow."""

SEGMENTERS = {"1": (1,), "2": (2,), "both": (1, 2)}
KEEPS = {"the best share": "fraction", "a score of at least": "threshold"}
BLANK = image_view.encode_png(np.full((1, 1, 3), 255, np.uint8))
STYLE = """<style>
.rrn-table {max-height: 420px; overflow: auto}
.rrn-table table {border-collapse: collapse; font-size: 13px}
.rrn-table th {position: sticky; top: 0; background: var(--jp-layout-color1, white); text-align: right}
.rrn-table td, .rrn-table th {padding: 2px 10px; text-align: right}
.rrn-summary {font-size: 15px; padding: 6px 2px}
.rrn-error {color: #b00020; font-size: 15px; white-space: pre-wrap}
</style>"""


def image_view_of(regions: Regions, choice: Choice) -> image_view.ImageView:
    """Return what of the picture no rule changes; the last few are remembered."""
    return _image_view(regions, choice.id, choice.score, choice.segmenters, choice.rho != "none")


@lru_cache(maxsize=12)
def _image_view(
    regions: Regions, name: str, score: str, segmenters: tuple[int, ...], rated: bool
) -> image_view.ImageView:
    pictures = regions.source.pictures(regions.split, name)
    scores = regions.grid(name, regions.column(score), pictures.label.shape)
    return image_view.ImageView(regions.about, pictures, scores, segmenters, score, rated)


def picture(regions: Regions, choice: Choice) -> bytes:
    """Draw the chosen image as a PNG."""
    page = image_view_of(regions, choice)
    values = analysis.kept(regions, choice), analysis.weights(regions, choice)
    return image_view.encode_png(page.drawn(*(regions.grid(choice.id, each, page.size) for each in values)))


def table_html(table: pd.DataFrame) -> str:
    """Show a table of `rrn.explorer.analysis.image_regions`; what stands in it cannot act as HTML."""
    words = {"other_score": "other discriminator"}
    shown = table.assign(kept=table["kept"].map({True: "yes", False: "no"}))
    shown = shown.rename(columns=lambda name: words.get(name, name.replace("_", " ")))
    inner = shown.to_html(index=False, border=0, escape=True, float_format=lambda value: f"{value:.2f}")
    return f'<div class="rrn-table">{inner}</div>'


class Explorer(widgets.VBox):
    """The explorer of some evidence files.

    Args:
        paths: name -> file, of `rrn.explorer.analysis.found`; the first is shown.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self.paths = dict(paths)
        self.source: Evidence | None = None
        self.regions: Regions | None = None
        self._waiting: asyncio.TimerHandle | None = None
        self._quiet = False
        self._make_controls()
        self.summary, self.table = widgets.HTML(), widgets.HTML()
        self.image, self.curves = (widgets.Image(format="png", layout={"max_width": "100%"}) for _ in range(2))
        for part in (self.image, self.curves):
            part.layout.object_fit = "contain"
            part.layout.align_self = "flex-start"
        where = [self.run, self.split, self.order, self.index, self.id]
        what = [self.rule, self.keep, self.value, self.score, self.rho, self.segmenters]
        rows = [widgets.HBox(controls, layout={"flex_flow": "row wrap"}) for controls in (where, what)]
        super().__init__([widgets.HTML(STYLE), *rows, self.summary, self.image, self.curves, self.table])
        self._open(None)
        self._listen()

    def _make_controls(self) -> None:
        """Make all controls; what they offer comes with a run."""
        self.run = _dropdown("run", tuple(self.paths), 265)
        self.split = _dropdown("split", (), 130)
        self.order = _dropdown("images", ORDERS, 205)
        self.index = widgets.IntSlider(description="number", min=1, max=1, **_look(230))
        self.id = _dropdown("image", (), 190)
        self.rule = _dropdown("keep by", (), 175)
        self.keep = _dropdown("what has", tuple(KEEPS.items()), 200)
        self.value = widgets.FloatSlider(description="value", min=0, max=1, step=0.01, **_look(215))
        self.score = _dropdown("show", (), 160)
        self.rho = _dropdown("rho", RHOS, 130)
        self.segmenters = _dropdown("segmenter", tuple(SEGMENTERS.items()), 140)
        self.segmenters.value = (1, 2)

    def _listen(self) -> None:
        self.run.observe(self._open, "value")
        self.split.observe(self._open_split, "value")
        self.order.observe(self._reorder, "value")
        self.index.observe(self._turn, "value")
        self.rule.observe(self._ruled, "value")
        for control in (self.id, self.keep, self.value, self.score, self.rho, self.segmenters):
            control.observe(self._moved, "value")

    @property
    def choice(self) -> Choice:
        """What the controls say."""
        return Choice(
            *(self.id.value, self.rule.value, self.keep.value, self.value.value),
            *(self.score.value, self.rho.value, tuple(self.segmenters.value)),
        )

    # ---- what controls do

    def _open(self, _: Any) -> None:
        self._forget()
        self.source = None
        with self._shown():
            self.source = Evidence.read(self.paths[self.run.value])
            with self._silently():
                self.split.options = self.source.splits
                self.split.value = self.source.splits[0]
            self._use(Regions(self.source, self.split.value), fresh=True)

    def _open_split(self, _: Any) -> None:
        """Show another split of the same run."""
        if not self._quiet and self.source is not None:
            self._forget()
            with self._shown():
                self._use(Regions(self.source, self.split.value), fresh=False)

    def _forget(self) -> None:
        self._cancel()
        self.regions = None

    def _use(self, regions: Regions, fresh: bool) -> None:
        """Show regions; `fresh`: as their own row filters them."""
        self.regions = regions
        first = analysis.default(regions)
        with self._silently():
            if fresh:
                _offer(self.rule, {name: SCORES.get(name, "nothing (all)") for name in regions.rules}, first.by)
                _offer(self.score, {name: SCORES[name] for name in regions.scores}, first.score)
                self.rho.options, self.rho.value = regions.rhos, first.rho
                self.keep.value, self.value.value = first.keep, first.value
            self._list_images(replace(self.choice, id=first.id), None)
        self._draw()

    def _reorder(self, _: Any) -> None:
        if self.regions is not None:
            with self._shown(), self._silently():
                self._list_images(self.choice, None)
            self._moved(None)

    def _turn(self, _: Any) -> None:
        if not self._quiet:
            self.id.value = self.id.options[self.index.value - 1]

    def _ruled(self, _: Any) -> None:
        """Show the score that now decides; another one can be chosen after it."""
        if self.rule.value != "none" and not self._quiet:
            with self._silently():
                self.score.value = self.rule.value
        self._moved(None)

    def _moved(self, _: Any) -> None:
        """Draw the picture now, and the rest when nothing has moved for a moment."""
        if self._quiet or self.regions is None:
            return
        with self._shown(), self._silently():
            self.index.value = 1 + self.id.options.index(self.id.value)
            self._draw_picture()
            self._later()

    def _list_images(self, choice: Choice, name: str | None) -> None:
        """Offer the images in the chosen order, and choose one; the first if None."""
        assert self.regions is not None
        names = analysis.ordered(self.regions, choice, self.order.value)
        if names != self.id.options:
            self.id.options = names
        self.id.value = name or names[0]
        self.index.max, self.index.value = len(names), 1 + names.index(self.id.value)

    # ---- drawing

    def _draw(self) -> None:
        self._draw_picture()
        self._draw_rest()

    def _draw_picture(self) -> None:
        assert self.regions is not None
        self.value.disabled = self.keep.disabled = self.rule.value == "none"
        self.image.value = picture(self.regions, self.choice)
        said = analysis.summary(self.regions, self.choice)
        self.summary.value = f'<div class="rrn-summary">{html.escape(said)}</div>'

    def _draw_rest(self) -> None:
        """Draw the curves and the table, and sort the images as the rule now filters them."""
        assert self.regions is not None
        self._cancel()
        with self._shown(), self._silently():
            self._list_images(self.choice, self.id.value)
            self.curves.value = split_view.figure_png(split_view.split_figure(self.regions, self.choice))
            self.table.value = table_html(analysis.image_regions(self.regions, self.choice))

    def _later(self) -> None:
        """Draw the rest after a moment of rest; at once where no event loop runs."""
        self._cancel()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._draw_rest()
        else:
            self._waiting = loop.call_later(REST, self._draw_rest)

    def _cancel(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def finish(self) -> None:
        """Draw at once what waits for a moment of rest."""
        if self._waiting is not None:
            self._draw_rest()

    @contextmanager
    def _silently(self) -> Iterator[None]:
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    @contextmanager
    def _shown(self) -> Iterator[None]:
        """Show what is wrong with an evidence file as text, in place of pictures."""
        try:
            yield
        except EvidenceError as error:
            self.summary.value = f'<div class="rrn-error">{html.escape(str(error))}</div>'
            self.image.value, self.curves.value, self.table.value = BLANK, BLANK, ""


def _dropdown(description: str, options: Any, width: int) -> widgets.Dropdown:
    return widgets.Dropdown(description=description, options=options, **_look(width))


def _look(width: int) -> dict[str, dict[str, str]]:
    """Return how a control of so many pixels looks."""
    return {"layout": {"width": f"{width}px"}, "style": {"description_width": "initial"}}


def _offer(control: widgets.Dropdown, names: Mapping[str, str], value: str) -> None:
    control.options = [(words, name) for name, words in names.items()]
    control.value = value
