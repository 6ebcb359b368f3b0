"""The files of OUT: labels as palette PNGs, probabilities, overlays, and region scores drawn."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from rrn.data.decoding import Pixels
from rrn.data.palette import Array, palette
from rrn.prediction.labeling import Prediction, Wanted
from rrn.runs.finished import RunCard
from rrn.runtime import atomic_io

OPACITY = 0.5
"""Of the colors of the classes over the image."""
READABLE = 40
"""Least side, in pixels, of a region in which a score is written."""


class PredictionWriter:
    """Writes the files of an image that were asked for, whole or not at all; `region`: its side in pixels, as read."""

    def __init__(self, out: Path, card: RunCard, region: int, wanted: Wanted) -> None:
        self.out, self.card, self.region, self.wanted = out, card, region, wanted
        self.colors = palette(len(card.classes), card.colours)

    def write(self, name: str, image: Pixels, prediction: Prediction) -> None:
        """Write the files of one image, RGB uint8 [H, W, 3]; its overlay is `overlay`, which videos have, too."""
        labels = Image.fromarray(prediction.labels)
        labels.putpalette(self.colors.tobytes())
        self.write_png("labels", name, labels)
        if prediction.probabilities is not None:
            contents = BytesIO()
            np.savez_compressed(contents, probabilities=prediction.probabilities)
            atomic_io.write(self.out / "probabilities" / f"{name}.npz", contents.getvalue())
        if prediction.regions is not None:
            self.write_png("regions", name, self._with_scores(self.overlay(image, prediction), prediction.regions))

    def overlay(self, image: Pixels, prediction: Prediction) -> Image.Image:
        """Return an image under the colors of its classes."""
        return Image.blend(Image.fromarray(image), Image.fromarray(self.colors[prediction.labels]), OPACITY)

    def write_png(self, kind: str, name: str, picture: Image.Image) -> None:
        """Write OUT/<kind>/<name>.png."""
        contents = BytesIO()
        picture.save(contents, "PNG")
        atomic_io.write(self.out / kind / f"{name}.png", contents.getvalue())

    def _with_scores(self, picture: Image.Image, regions: pd.DataFrame) -> Image.Image:
        """Draw the scores of the segmenter that answered; for the ensemble the mean of both."""
        who = self.wanted.segmenter
        asked = regions if who == "ensemble" else regions[regions["segmenter"] == int(who)]
        scores = asked.pivot_table("region_score", "row", "column").to_numpy()
        read = self.card.size or (picture.height, picture.width)
        return draw_scores(
            picture, scores, (self.region * picture.height / read[0], self.region * picture.width / read[1])
        )


def draw_scores(picture: Image.Image, scores: Array, side: tuple[float, float]) -> Image.Image:
    """Draw the borders of regions and their scores, in a picture enlarged until a score can be read.

    A region that the picture cuts off at its border may be too narrow for its score and stays without.

    Args:
        picture: RGB.
        scores: 0..1, float [rows, columns].
        side: height and width of a region in pixels of the picture.

    Returns:
        RGB, larger than the picture by a whole number.
    """
    factor = math.ceil(READABLE / min(side))
    height, width = (factor * length for length in side)
    result = picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(result)
    letters = min(height, width) / 3
    font = ImageFont.load_default(size=letters)
    for (row, column), score in np.ndenumerate(scores):
        left, top = column * width, row * height
        right, bottom = min(left + width, result.width), min(top + height, result.height)
        pen.rectangle((left, top, right, bottom), outline="white")
        text = f"{score:.2f}"
        if pen.textlength(text, font) < right - left and letters < bottom - top:
            middle = ((left + right) / 2, (top + bottom) / 2)
            pen.text(middle, text, "white", font, anchor="mm", stroke_width=1, stroke_fill="black")
    return result
