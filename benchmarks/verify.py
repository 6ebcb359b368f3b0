"""What verification costs: sets of VOC's layout, 500 x 375 pixels, of growing size, each verified twice.

    python benchmarks/verify.py --images 1000 3000 10000

Prints images a second of the clock and of the processors' time (other programs do not change the latter), the peak
memory of the largest process, and the seconds of a second verification of the same files.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from rrn.data.sets import ImageSet
from rrn.data.verify import verify
from rrn.data.voc import CLASSES, VOC, colour

DISTINCT = 20
WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def write(root: Path, images: int) -> None:
    """Write a set, nine tenths of it train: few pictures, but each file differs by the bytes behind the picture."""
    rng = np.random.default_rng(0)
    pairs = [(_photograph(rng), _label(rng)) for _ in range(DISTINCT)]
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    names = [f"2012_{number:06d}" for number in range(images)]
    for number, name in enumerate(names):
        photograph, label = pairs[number % DISTINCT]
        (root / "JPEGImages" / f"{name}.jpg").write_bytes(photograph + name.encode())
        (root / "SegmentationClass" / f"{name}.png").write_bytes(label)
    train = images * 9 // 10
    for split, ids in (("train", names[:train]), ("val", names[train:])):
        (root / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(ids), encoding="utf-8")


def _photograph(rng: np.random.Generator) -> bytes:
    """Return a JPEG of about 90 kB, as large as those of VOC."""
    coarse = np.kron(rng.integers(0, 256, (47, 63, 3)), np.ones((8, 8, 1)))[:375, :500]
    pixels = (coarse + rng.normal(0, 12, coarse.shape)).clip(0, 255).astype(np.uint8)
    return _bytes(Image.fromarray(pixels), "JPEG", quality=90)


def _label(rng: np.random.Generator) -> bytes:
    """Return a palette PNG of blocks of classes, with void between."""
    values = np.kron(rng.integers(0, len(CLASSES), (8, 10)), np.ones((47, 50)))[:375].astype(np.uint8)
    values[::47] = 255
    label = Image.fromarray(values).convert("P")
    label.putpalette([channel for index in range(256) for channel in colour(index)])
    return _bytes(label, "PNG")


def _bytes(image: Image.Image, kind: str, **options: int) -> bytes:
    """Return the file of an image."""
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def measure(root: Path) -> None:
    """Verify once, and print seconds, processor seconds and MB, as a process of its own."""
    own = frozenset(path.stem for path in (root / "SegmentationClass").iterdir())
    meaning = {index: index for index in range(len(CLASSES))} | {255: 255}
    dataset = ImageSet(root, VOC(root, CLASSES, meaning, (), "", own), None, "train", "val", "val")
    start = time.perf_counter()
    verify(dataset, root / "verified.sqlite").require()
    seconds = time.perf_counter() - start
    used = [resource.getrusage(who) for who in WHO]
    busy = sum(one.ru_utime + one.ru_stime for one in used)
    print(seconds, busy, max(one.ru_maxrss for one in used) / 1024)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 3000, 10000])
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure)
        return
    rows = []
    for images in options.images:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), images)
            command = [sys.executable, __file__, "--measure", folder]
            runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
        (seconds, busy, memory), (again, *_) = (map(float, run.split()) for run in runs)
        rows.append((images, seconds, images / seconds, images / busy, memory, again))
    columns = ["images", "seconds", "images/s", "images/core s", "MB", "again (s)"]
    print(pd.DataFrame(rows, columns=columns).to_string(index=False, float_format="%.1f"))


if __name__ == "__main__":
    main()
