"""What an import costs: a COCO file of 1,000 images of 640 x 480 pixels, each with 20 polygons of 30 points.

    python benchmarks/run.py importing

Seconds of the processors (s), and MB at the peak, of `python -m rrn.data import coco`, a process of its own.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
from measuring import Row, row
from PIL import Image
from verify import run

POLYGONS, POINTS, CLASSES = 20, 30, 8
WIDTH, HEIGHT = 640, 480


def write(folder: Path, images: int) -> Path:
    """Write images and their polygons, and return the JSON file."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8)).resize((WIDTH, HEIGHT))
    (folder / "images").mkdir(parents=True)
    for number in range(images):
        picture.save(folder / "images" / f"{number:04d}.jpg")
    content = {
        "images": [{"id": n, "file_name": f"{n:04d}.jpg", "height": HEIGHT, "width": WIDTH} for n in range(images)],
        "annotations": [
            {"id": n, "image_id": n // POLYGONS, "category_id": n % CLASSES, "segmentation": [polygon(rng)]}
            for n in range(images * POLYGONS)
        ],
        "categories": [{"id": n, "name": f"class {n}"} for n in range(CLASSES)],
    }
    (folder / "polygons.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "polygons.json"


def polygon(rng: np.random.Generator) -> list[float]:
    """Return x and y of points around a center."""
    center = rng.uniform((40, 40), (WIDTH - 40, HEIGHT - 40))
    angles, radii = np.sort(rng.uniform(0, 2 * np.pi, POINTS)), rng.uniform(10, 60, POINTS)
    around = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]
    return (center + around).ravel().round(1).tolist()


def rows(quick: bool) -> list[Row]:
    """Measure one import."""
    images = 10 if quick else 1000
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder) / "source", images)
        words = (
            "-m",
            "rrn.data",
            "import",
            "coco",
            str(file),
            str(Path(folder) / "out"),
            "--split",
            "train=0.8,val=0.2",
        )
        _, busy, memory = run(Path(folder), words)
    return [row(f"{images} images", "import", "s", [busy]), row(f"{images} images", "import MB", "MB", [memory])]
