"""Patterns on a square plane, for the embedded data set (rrn.preparation.shapes).

Every pattern is float64 [size, size] with values 0 (bare surface) .. 1 (darkest line or grain) and draws its own
scale and direction. Nothing here calls the platform's mathematical library but for square roots, which are exact.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Texture = Callable[[np.random.Generator, int], np.ndarray]


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pixels' x and y, both float64 [size, size] in 0 .. 1."""
    steps = (np.arange(size) + 0.5) / size
    return np.broadcast_to(steps, (size, size)), np.broadcast_to(steps[:, None], (size, size))


def direction(rng: np.random.Generator) -> tuple[float, float]:
    """Draws a unit vector (of nearly uniform direction) without trigonometry."""
    x, y = (float(v) for v in rng.uniform(-1.0, 1.0, size=2))
    length = float(np.sqrt(x * x + y * y)) + 1e-9
    return x / length, y / length


def value_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Draws smooth noise: random values on a grid of cells x cells, joined smoothly.

    Args:
        rng: Source of the values.
        size: Width and height in pixels.
        cells: Cells along one side; more cells, finer noise.

    Returns:
        float64 [size, size], 0 .. 1.
    """
    values = rng.uniform(size=(cells + 1, cells + 1))
    at = (np.arange(size) + 0.5) / size * cells
    low = at.astype(np.int64)
    part = at - low
    part = part * part * (3.0 - 2.0 * part)
    rows = values[low] * (1.0 - part)[:, None] + values[low + 1] * part[:, None]
    return rows[:, low] * (1.0 - part) + rows[:, low + 1] * part


def hsv_to_rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Converts hue (in turns), saturation and value, each float64 [H, W], into RGB, float64 [H, W, 3]."""
    turns = hue[..., None] * 6.0 + np.array([0.0, 4.0, 2.0])
    ramp = np.clip(np.abs(turns % 6.0 - 3.0) - 1.0, 0.0, 1.0)
    return value[..., None] * (1.0 - saturation[..., None] * (1.0 - ramp))


def soften(image: np.ndarray, amount: float) -> np.ndarray:
    """Blurs float64 [H, W, 3] with a 3 x 3 binomial kernel, mixed in by ``amount`` (0: not at all, 1: fully)."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    tall = (padded[:-2] + 2.0 * padded[1:-1] + padded[2:]) / 4.0
    blurred = (tall[:, :-2] + 2.0 * tall[:, 1:-1] + tall[:, 2:]) / 4.0
    return image * (1.0 - amount) + blurred * amount


def brick(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draws courses of bricks: dark joints, every second course shifted by half a brick."""
    s, t = _turned(rng, size)
    height = rng.uniform(4.0, 8.0)
    course = t / height
    across = s / (height * rng.uniform(1.6, 2.4)) + 0.5 * (np.floor(course) % 2.0)
    joint = rng.uniform(0.22, 0.32)
    return ((course % 1.0 < joint) | (across % 1.0 < joint / 1.8)).astype(np.float64)


def stripes(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draws soft parallel stripes, a little wavy."""
    _, t = _turned(rng, size)
    wave = 4.0 * value_noise(rng, size, 4)
    phase = (t + wave) / rng.uniform(4.0, 9.0) % 1.0
    return _sharpen(1.0 - np.abs(2.0 * phase - 1.0), rng.uniform(1.0, 3.0))


def checks(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draws a checkerboard."""
    s, t = _turned(rng, size)
    width = rng.uniform(3.0, 7.0)
    return (np.floor(s / width) + np.floor(t / width)) % 2.0


def blades(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draws thin upright blades: noise that is fine from left to right and long from top to bottom."""
    fine = rng.uniform(size=(size // int(rng.integers(6, 11)) + 1, size))
    rows = np.minimum(np.arange(size) * fine.shape[0] // size, fine.shape[0] - 1)
    shifts = rng.integers(0, size, size=size)
    streaks = fine[(rows[:, None] + shifts[None, :]) % fine.shape[0], np.arange(size)[None, :]]
    return _sharpen(streaks, 2.0)


def clumps(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draws round clumps: noise of middle scale with firm edges."""
    return _sharpen(value_noise(rng, size, int(rng.integers(9, 16))), 4.0)


def grain(rng: np.random.Generator, size: int) -> np.ndarray:
    """Scatters dark grains of one to three pixels over a bare surface."""
    share = rng.uniform(0.08, 0.25)
    cell = int(rng.integers(1, 4))
    side = -(-size // cell)
    dots = (rng.uniform(size=(side, side)) < share).astype(np.float64)
    return dots.repeat(cell, axis=0).repeat(cell, axis=1)[:size, :size]


def _turned(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns pixel coordinates along and across a random direction, shifted at random; each float64 [size, size]."""
    x, y = grid(size)
    ux, uy = direction(rng)
    shift = rng.uniform(0.0, 50.0, size=2)
    return (x * ux + y * uy) * size + shift[0], (y * ux - x * uy) * size + shift[1]


def _sharpen(pattern: np.ndarray, strength: float) -> np.ndarray:
    """Raises the contrast of a 0 .. 1 pattern around its middle."""
    return np.clip((pattern - 0.5) * strength + 0.5, 0.0, 1.0)


TEXTURES: dict[str, Texture] = {
    "brick": brick,
    "stripes": stripes,
    "blades": blades,
    "clumps": clumps,
    "grain": grain,
}
