"""A tiny data set and settings that fit it, for the tests of the data."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rrn import config
from rrn.config import Settings
from rrn.data.image_set import ImageSet
from rrn.data.splits import Split
from rrn.preparation import partitions
from rrn.preparation.report import Report
from rrn.preparation.verification import verify

REPOSITORY = Path(__file__).resolve().parents[2]
CLASSES = ("ground", "disc", "square")
SPLITS = {"train": 16, "val": 4, "test": 3}
HEIGHT, WIDTH, CROP = 20, 28, 24


def write_folder(root: Path, splits: dict[str, int] | None = None) -> Path:
    """Write random images and labels in the folder layout; every label has 4 void pixels."""
    rng = np.random.default_rng(0)
    for split, count in (splits or SPLITS).items():
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            name = f"{split}{i:03d}"
            pixels = rng.integers(1, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            label = rng.integers(0, len(CLASSES), (HEIGHT, WIDTH), dtype=np.uint8)
            label[0, :4] = 255
            Image.fromarray(pixels).save(root / "images" / split / f"{name}.jpg", quality=95)
            Image.fromarray(label).save(root / "labels" / split / f"{name}.png")
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    return root


def png(bits: int, kind: int, width: int, height: int, row: bytes | None = None) -> bytes:
    """Return a PNG of equal rows, black if not given; `kind` as in its header: 0 gray, 2 RGB, 3 palette, 4, 6 alpha."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    row = bytes((width * channels * bits + 7) // 8) if row is None else row
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    chunks = {b"IHDR": header, b"PLTE": bytes(3 * 2 ** min(bits, 8)), b"IDAT": zlib.compress((b"\0" + row) * height)}
    written = b"".join(_chunk(name, data) for name, data in chunks.items() if name != b"PLTE" or kind == 3)
    return b"\x89PNG\r\n\x1a\n" + written + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    """Return a part of a PNG: its length, its name, what it holds, and their checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def small_settings(path: Path, **changes: dict[str, Any]) -> Settings:
    """Return the settings of params.yaml with small crops and batches; `changes` by section."""
    base: dict[str, dict[str, Any]] = {
        "dataset": {
            "kind": "folder",
            "path": str(path),
            "void": (255,),
            "unlabeled": None,
            "size": None,
        },
        "augment": {"crop": CROP, "scales": (0.75, 1.5), "flip": True, "jitter": 0.2},
        "batch": {"labeled": 4, "unlabeled": 4},
        "loading": {"workers": 0, "cache": True},
        "cutmix": {"boxes": 3, "area": (0.25, 0.5)},
    }
    settings = config.load(root=REPOSITORY).model_copy(update={"device": "cpu"})
    for section in base.keys() | changes.keys():
        values = {**base.get(section, {}), **changes.get(section, {})}
        changed = getattr(settings, section).model_copy(update=values)
        settings = settings.model_copy(update={section: changed})
    return settings


def verified(dataset: ImageSet) -> Report:
    """Return the report of a data set."""
    return verify(dataset, workers=1)


def partitioned(dataset: ImageSet, settings: Settings, partition: str) -> Split:
    """Choose the labeled images of a data set."""
    return partitions.make(dataset, settings, partition, verified(dataset))
