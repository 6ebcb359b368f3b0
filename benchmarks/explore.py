"""How fast the explorer's picture follows its slider, from the callback to the bytes that go to the browser.

    python benchmarks/explore.py                          # random evidence of three sizes, two segmenters each
    python benchmarks/explore.py runs/shapes/evaluate/1of16-rrn-0/evidence.zip

Prints for each size the median and the 95th percentile over slider moves, in milliseconds, and what follows when the
slider rests: the curves and the table.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from rrn.config import Filter
from rrn.explorer.widget import Explorer
from rrn.reliability.evidence import About, EvidenceWriter, Pictures

SIZES = {"64x64": (64, 64, 16), "160x120": (120, 160, 32), "500x375": (375, 500, 80)}
"""Height, width and side of a region."""
CLASSES = tuple(f"class {index}" for index in range(8))
IMAGES = 100


def written(path: Path, height: int, width: int, region: int) -> Path:
    """Write evidence of random images: noise, which no compression makes small, under patches of labels."""
    rng = np.random.default_rng(0)
    ids = tuple(f"image_{index:03d}" for index in range(IMAGES))
    rule = Filter(by="region_score", keep="fraction", tau=0.6, fraction=0.9, start=0)
    about = About(
        name="random", partition="all", method="rrn", seed=0, classes=CLASSES, colours=(), region=region, rule=rule,
        rho="agreement", objective="accuracy", images={"val": ids[:4]},
    )  # fmt: skip
    with EvidenceWriter(path, about) as writer:
        for name in ids:
            shape = (-(-height // region), -(-width // region))
            maps = rng.integers(0, len(CLASSES), (4, *shape), np.uint8).repeat(region, 1).repeat(region, 2)
            label, *pseudo, prediction = maps[:, :height, :width]
            image = rng.integers(0, 256, (height, width, 3), np.uint8)
            writer.add(
                "val", table(rng, name, shape, region), {name: Pictures(image, label, np.stack(pseudo), prediction)}
            )
    return path


def table(rng: np.random.Generator, name: str, shape: tuple[int, int], region: int) -> pd.DataFrame:
    """Return random regions of an image."""
    segmenter, row, column = (index.ravel() for index in np.indices((2, *shape)))
    scores = ("region_score", "other_score", "product", "confidence", "certainty", "agreement", "divergence")
    values = {score: rng.random(len(row)) for score in scores}
    counts = {f"{what}:{each}": 0 for each in CLASSES for what in ("pixels", "right")}
    counts |= {"pixels": region**2, "right": rng.integers(0, region**2, len(row))}
    return pd.DataFrame({"id": name, "segmenter": segmenter + 1, "row": row, "column": column} | values | counts)


async def measured(path: Path, moves: int) -> dict[str, float]:
    """Move the slider, and return milliseconds."""
    explorer = Explorer({"random": path})
    taken = []
    for value in np.random.default_rng(0).permutation(np.linspace(0.01, 0.99, moves)):
        before = time.perf_counter()
        explorer.value.value = round(float(value), 4)
        taken.append(1000 * (time.perf_counter() - before))
        assert explorer.image.value
    before = time.perf_counter()
    explorer.finish()
    rest = 1000 * (time.perf_counter() - before)
    median, slow = np.quantile(taken, [0.5, 0.95])
    return {"median (ms)": median, "95 % (ms)": slow, "at rest (ms)": rest, "KiB": len(explorer.image.value) / 1024}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evidence", type=Path, nargs="*")
    parser.add_argument("--moves", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = {str(path): path for path in options.evidence}
        if not paths:
            paths = {name: written(Path(folder, f"{name}.zip"), *size) for name, size in SIZES.items()}
        rows = {name: asyncio.run(measured(path, options.moves)) for name, path in paths.items()}
    print(pd.DataFrame(rows).T.round(1).to_string())


if __name__ == "__main__":
    main()
