"""Figures made small enough to stand inside a page: PNG files in, data URIs out. No torch.

WebP, since with the same bytes thin colored lines stay what they are, where a palette of few colors turns them gray.
"""

from __future__ import annotations

import base64
import bisect
import functools
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

STEPS = (
    *((1.0, 60), (0.75, 50), (0.6, 40), (0.55, 30), (0.5, 25), (0.5, 15), (0.45, 15), (0.4, 12)),
    *((0.36, 10), (0.32, 8), (0.28, 6), (0.24, 4)),
)
"""Ever smaller: how much of the width stays, and the quality of the encoder, 0..100."""

SHARES = tuple(400_000 * 0.9**k for k in range(60))
"""Ever smaller: characters that one figure may take, down to 800."""

OPEN = 16
"""Figures that are kept decoded: the next step of one is tried at once."""


class PageTooLargeError(ValueError):
    """The figures do not fit, however small they are made."""


@dataclass(frozen=True)
class Inline:
    """A figure as it stands in a page: data URI, and size in pixels."""

    uri: str
    width: int
    height: int


def inline(paths: list[Path], budget: int) -> list[Inline]:
    """Return figures as data URIs that together take at most `budget` characters.

    All may take equally much; within that, each is as large as it can, so that bars stay sharp
    where photographs are made smaller.

    Raises:
        PageTooLargeError: they do not fit; says how many there are.
    """
    opened = functools.lru_cache(maxsize=OPEN)(_opened)
    shrunk = functools.cache(lambda path, step: _shrunk(opened(path), step))

    def largest(path: Path, share: float) -> Inline:
        """Return a figure at the largest of STEPS that takes at most `share`, or else at the last."""
        return shrunk(path, _step(path, share, shrunk))

    with ThreadPoolExecutor() as pool:

        def within(share: float) -> list[Inline]:
            """Return every figure at its `largest`; Pillow works on several at a time."""
            return list(pool.map(largest, paths, itertools.repeat(share)))

        place = bisect.bisect_left(SHARES, True, key=lambda share: sum(len(f.uri) for f in within(share)) <= budget)
        if place < len(SHARES):
            return within(SHARES[place])
    raise PageTooLargeError(
        f"{len(paths)} figures do not fit into {budget} characters, however small: remove folders from results/ "
        "that no one needs"
    )


def _step(path: Path, share: float, shrunk: Callable[[Path, int], Inline]) -> int:
    """Return the first of STEPS at which a figure takes at most `share` characters, or else the last."""
    steps = range(len(STEPS) - 1)
    return bisect.bisect_left(steps, True, key=lambda step: len(shrunk(path, step).uri) <= share)


def _opened(path: Path) -> Image.Image:
    """Return a figure as it lies in its file, without transparency."""
    with Image.open(path) as picture:
        return picture.convert("RGB")


def _shrunk(whole: Image.Image, step: int) -> Inline:
    """Return one figure at one of STEPS."""
    scale, quality = STEPS[step]
    size = (max(1, round(scale * whole.width)), max(1, round(scale * whole.height)))
    stream = BytesIO()
    whole.resize(size, Image.Resampling.LANCZOS).save(stream, "webp", quality=quality, method=6)
    text = base64.b64encode(stream.getvalue()).decode("ascii")
    return Inline(f"data:image/webp;base64,{text}", *size)
