"""The embedded data set: small rendered scenes of seven materials on a neutral ground.

A scene is a pure function of (DATA_SEED, split, index). A class is a *material*: a range of hues together with a
texture. Ranges overlap on purpose, so that neither hue nor texture alone tells the class:

* brick and clay share their hue and differ in texture, and so do grass and moss;
* water and awning share their stripes and differ in hue, with an overlap; so do clay and gravel with their grains;
* distractors wear the hue of a class without its texture (flat paint, checks) and belong to the background.

Only sums, products, comparisons and square roots are used (no sine, no exponential), so that the pixels do not hang
on the platform's mathematical library.

Typical use::

    python -m rrn.preparation.shapes data/shapes      # what ships
    python -m rrn.data render --out build/shapes      # that, and as many more as `dataset.scenes` says
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from rrn.preparation import textures

DATA_SEED = 20
SIZE = 64
SPLITS = {"train": 512, "val": 96, "test": 128}
CLASSES = ("background", "brick", "clay", "grass", "moss", "water", "awning", "gravel")
JPEG_QUALITY = 90

# Per material: texture, lowest and highest hue (in turns of the color wheel), lowest and highest saturation.
MATERIALS = {
    "brick": ("brick", -0.06, 0.09, 0.35, 0.90),
    "clay": ("grain", -0.08, 0.07, 0.35, 0.90),
    "grass": ("blades", 0.15, 0.37, 0.30, 0.90),
    "moss": ("clumps", 0.22, 0.46, 0.30, 0.90),
    "water": ("stripes", 0.46, 0.66, 0.30, 0.90),
    "awning": ("stripes", 0.62, 0.86, 0.30, 0.90),
    "gravel": ("grain", 0.06, 0.20, 0.10, 0.60),
}


def render(split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Renders one scene.

    Args:
        split: "train", "val" or "test".
        index: Number of the scene within its split.

    Returns:
        The image, uint8 [SIZE, SIZE, 3], and its labels, uint8 [SIZE, SIZE], values 0 .. len(CLASSES) - 1.
    """
    rng = np.random.default_rng([DATA_SEED, list(SPLITS).index(split), index])
    image = _ground(rng)
    labels = np.zeros((SIZE, SIZE), dtype=np.uint8)
    for name in _cast(rng):
        field = _outline(rng)
        image = _cast_shadow(rng, image, field)
        inside = field < 1.0
        surface = _distractor(rng) if name == "background" else _material(rng, name)
        image = np.where(inside[..., None], surface * _relief(rng, field)[..., None], image)
        labels[inside] = CLASSES.index(name)
    return _develop(rng, image), labels


def write_shapes(root: Path) -> None:
    """Writes the whole data set in the ``folder`` layout.

    Args:
        root: Target folder; ``images/<split>/<id>.jpg``, ``labels/<split>/<id>.png`` and ``classes.txt`` go there.
    """
    for split, count in SPLITS.items():
        for index in range(count):
            _write_scene(root, split, index)
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")


def write_scenes(shipped: Path, root: Path, counts: Mapping[str, int]) -> None:
    """Write a data set of other sizes: scenes that ship are copied, those beyond them rendered.

    Args:
        shipped: the data set that ships.
        root: Target folder, as of ``write_shapes``.
        counts: Scenes by split; of a split that it does not name, as many as ship.
    """
    for split, known in SPLITS.items():
        for index in range(counts.get(split, known)):
            if index < known:
                for name in _files(split, index):
                    (root / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(shipped / name, root / name)
            else:
                _write_scene(root, split, index)
    shutil.copyfile(shipped / "classes.txt", root / "classes.txt")


def _files(split: str, index: int) -> tuple[str, str]:
    """Names the image and the label of a scene, relative to the data set."""
    return f"images/{split}/{split}_{index:04d}.jpg", f"labels/{split}/{split}_{index:04d}.png"


def _write_scene(root: Path, split: str, index: int) -> None:
    """Renders a scene into its two files."""
    files = [root / name for name in _files(split, index)]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
    image, label = render(split, index)
    Image.fromarray(image).save(files[0], quality=JPEG_QUALITY, subsampling=0, optimize=True)
    Image.fromarray(label).save(files[1], optimize=True)


def _cast(rng: np.random.Generator) -> list[str]:
    """Draws what stands in the scene, from back to front: four to six materials and up to two distractors."""
    names = [str(name) for name in rng.choice(CLASSES[1:], size=rng.integers(4, 7), replace=False)]
    names += ["background"] * int(rng.integers(0, 3))
    return [names[i] for i in rng.permutation(len(names))]


def _outline(rng: np.random.Generator) -> np.ndarray:
    """Draws a shape as a field, float64 [SIZE, SIZE], that is below 1 inside: ellipse, box or triangle, dented."""
    x, y = textures.grid(SIZE)
    cx, cy = rng.uniform(0.12, 0.88, size=2)
    ux, uy = textures.direction(rng)
    a, b = rng.uniform(0.16, 0.32, size=2)
    s, t = ((x - cx) * ux + (y - cy) * uy) / a, ((y - cy) * ux - (x - cx) * uy) / b
    kind = rng.integers(0, 3)
    if kind == 0:
        field = s * s + t * t
    elif kind == 1:
        field = np.maximum(np.abs(s), np.abs(t)) * 1.1
    else:
        field = np.maximum(np.maximum(s * 0.9 + t * 0.5, t * 0.5 - s * 0.9), -t) * 1.1
    dents = rng.uniform(0.0, 0.7) * (textures.value_noise(rng, SIZE, 5) - 0.5)
    return field + dents


def _material(rng: np.random.Generator, name: str) -> np.ndarray:
    """Paints a whole plane with one material; float64 [SIZE, SIZE, 3], about 0 .. 1."""
    texture, low, high, dull, vivid = MATERIALS[name]
    hue, saturation, value = (
        rng.uniform(low, high),
        rng.uniform(dull, vivid),
        rng.uniform(0.45, 0.95),
    )
    pattern = textures.TEXTURES[texture](rng, SIZE)
    drift = 0.03 * (textures.value_noise(rng, SIZE, 4) - 0.5)
    depth = rng.uniform(0.45, 0.80)
    return textures.hsv_to_rgb(hue + drift, saturation * (1.0 - 0.3 * pattern), value * (1.0 - depth * pattern))


def _distractor(rng: np.random.Generator) -> np.ndarray:
    """Paints a plane that belongs to the background: flat paint or checks of any hue; float64 [SIZE, SIZE, 3]."""
    hue, saturation, value = rng.uniform(0.0, 1.0), rng.uniform(0.1, 0.9), rng.uniform(0.3, 0.95)
    pattern = textures.checks(rng, SIZE) if rng.uniform() < 0.5 else np.zeros((SIZE, SIZE))
    return textures.hsv_to_rgb(hue + 0.0 * pattern, saturation * (1.0 - pattern), value * (1.0 - 0.3 * pattern))


def _ground(rng: np.random.Generator) -> np.ndarray:
    """Paints the ground: dull, with soft patches of two tones; float64 [SIZE, SIZE, 3]."""
    patches = textures.value_noise(rng, SIZE, int(rng.integers(3, 9)))
    hue, saturation = rng.uniform(0.0, 1.0), rng.uniform(0.0, 0.25)
    low, high = rng.uniform(0.25, 0.60), rng.uniform(0.50, 0.95)
    return textures.hsv_to_rgb(hue + 0.1 * patches, saturation + 0.0 * patches, low + (high - low) * patches)


def _relief(rng: np.random.Generator, field: np.ndarray) -> np.ndarray:
    """Shades a shape: light from one side and a darker rim; float64 [SIZE, SIZE], about 0.6 .. 1.2."""
    x, y = textures.grid(SIZE)
    ux, uy = textures.direction(rng)
    slope = rng.uniform(0.0, 0.8) * ((x - 0.5) * ux + (y - 0.5) * uy)
    rim = rng.uniform(0.0, 0.3) * np.clip(field, 0.0, 1.0) ** 2
    return 1.0 + slope - rim


def _cast_shadow(rng: np.random.Generator, image: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Darkens the image, float64 [SIZE, SIZE, 3], beside the shape that will stand on it."""
    shift = rng.integers(-4, 5, size=2)
    shadow = np.clip(1.4 - np.roll(field, shift, axis=(0, 1)), 0.0, 1.0)
    return image * (1.0 - rng.uniform(0.0, 0.5) * shadow)[..., None]


def _develop(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Takes the photograph: light falling off, a color cast, a little blur, noise; uint8 [SIZE, SIZE, 3]."""
    x, y = textures.grid(SIZE)
    ux, uy = textures.direction(rng)
    light = rng.uniform(0.75, 1.15) * (1.0 + rng.uniform(0.0, 0.9) * ((x - 0.5) * ux + (y - 0.5) * uy))
    image = image * light[..., None] * rng.uniform(0.85, 1.15, size=3)
    image = textures.soften(image, rng.uniform(0.0, 0.6))
    noise = rng.uniform(-1.0, 1.0, size=image.shape) + rng.uniform(-1.0, 1.0, size=image.shape)
    image = image + rng.uniform(0.01, 0.05) * noise
    return np.clip(np.floor(image * 255.0 + 0.5), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python -m rrn.preparation.shapes DIR   (writes the embedded data set into DIR)")
    write_shapes(Path(sys.argv[1]))
