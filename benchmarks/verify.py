"""What verification and the prepare stage cost: sets of VOC's layout, 500 x 375 pixels, of growing size.

    python benchmarks/run.py verify

Each set is verified and prepared as the stages of these names do it, each by a process of its own.
Seconds; of the verification also images a second of the clock and of the processors' time (which other
programs do not change); and the peak memory of all processes together, of the verification and of the stage.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil
from measuring import Row, row
from PIL import Image

from rrn.data.formats.voc import CLASSES, color
from rrn.pipeline import presets

SIZES = [1000, 3000, 12000]
UNITS = {"images/s": "images/s", "images/core s": "images/s", "verify MB": "MB", "prepare MB": "MB"}
"""Of what is not in seconds."""
DISTINCT = 20
ROOT = Path(__file__).resolve().parents[1]
VERIFY = ("-m", "rrn.data", "verify", "--out", "runs/bench/verify")
PREPARE = ("-m", "rrn.stage", str(ROOT / "notebooks" / "1_prepare.ipynb"), "out/notebook.ipynb", "out_dir=out")
SETTINGS = ("voc", "name=bench", "split.protocol=seeded", "dataset.train=train", "dataset.val=val", "dataset.test=val")


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
    label.putpalette([channel for index in range(256) for channel in color(index)])
    return _bytes(label, "PNG")


def _bytes(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def run(repository: Path, arguments: tuple[str, ...]) -> tuple[float, float, float]:
    """Run a command; return its seconds, those of the processors, and the MB of all its processes at their peak."""
    start, peak, busy = time.perf_counter(), 0, {}
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    process = psutil.Popen(
        [sys.executable, *arguments], cwd=repository, env=environment, stdout=subprocess.DEVNULL, stderr=sys.stderr
    )
    while process.poll() is None:
        memory = 0
        for one in [process, *process.children(recursive=True)]:
            try:
                times = one.cpu_times()
                busy[one.pid] = times.user + times.system
                memory += one.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peak = max(peak, memory)
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed")
    return time.perf_counter() - start, sum(busy.values()), peak / 1e6


def costs(images: int) -> dict[str, float]:
    """Return what a set of so many images costs: seconds, images a second, and MB."""
    with tempfile.TemporaryDirectory() as folder:
        data, repository = Path(folder) / "data", Path(folder) / "repository"
        write(data, images)
        (repository / "out").mkdir(parents=True)
        (repository / "dvc.yaml").touch()
        text = presets.apply(ROOT, [*SETTINGS, f"dataset.path={data}"])
        (repository / "params.yaml").write_text(text, encoding="utf-8")
        seconds, busy, memory = run(repository, VERIFY)
        prepare = run(repository, PREPARE)
    return {
        "verify": seconds,
        "images/s": images / seconds,
        "images/core s": images / busy,
        "verify MB": memory,
        "prepare": prepare[0],
        "prepare MB": prepare[2],
    }


def rows(quick: bool) -> list[Row]:
    """Measure sets of growing size, each once."""
    return [
        row(f"{images} images", name, UNITS.get(name, "s"), [value])
        for images in ([20] if quick else SIZES)
        for name, value in costs(images).items()
    ]
