"""Predicted classes laid on a photograph, pixel by pixel, and the scores of its regions. No torch, no matplotlib."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rrn.plotting.style import Array

OPACITY = 0.5
"""Of the colours of the classes over the photograph."""

READABLE = 40
"""Least side, in pixels, of a region in which a score is written."""


def blended(image: Array, labels: Array, colours: Array) -> Image.Image:
    """Lay the colours of the classes on a photograph.

    Args:
        image: RGB uint8 [H, W, 3].
        labels: classes, uint8 [H, W].
        colours: of the classes, uint8 [256, 3].

    Returns:
        RGB, W x H.
    """
    return Image.blend(Image.fromarray(image), Image.fromarray(colours[labels]), OPACITY)


def scored(picture: Image.Image, scores: Array, side: tuple[float, float]) -> Image.Image:
    """Draw the borders of regions and their scores, in a picture enlarged until a score can be read.

    A region that the picture cuts off at its border may be too narrow for its score and stays without.

    Args:
        picture: of `blended`.
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
        corner = (column * width, row * height)
        end = (min(corner[0] + width, result.width), min(corner[1] + height, result.height))
        pen.rectangle((*corner, *end), outline="white")
        text = f"{score:.2f}"
        if pen.textlength(text, font) < end[0] - corner[0] and letters < end[1] - corner[1]:
            middle = ((corner[0] + end[0]) / 2, (corner[1] + end[1]) / 2)
            pen.text(middle, text, "white", font, anchor="mm", stroke_width=1, stroke_fill="black")
    return result
