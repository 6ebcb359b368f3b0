"""Small trees with the names, sizes and palettes of the public data sets."""

from pathlib import Path

import numpy as np
from PIL import Image

from rrn.data.formats import camvid, cityscapes, voc

FINE = [f"2007_{number:06d}" for number in range(8)]
FURTHER = [f"2008_{number:06d}" for number in range(8)]
VAL = [f"2009_{number:06d}" for number in range(3)]
CITIES = {"train": {"aachen": 5, "jena": 3}, "val": {"ulm": 2}}


def scene(rng, height, width, values, void):
    """Return an image with a stripe of its own color for each class, and its label, void at the borders."""
    shown = rng.choice(values, size=3, replace=False)
    label = np.repeat(shown, -(-width // 3))[:width][None].repeat(height, 0)
    image = np.stack([label * step % 256 for step in (37, 101, 193)], axis=-1)
    label[:2] = void
    image[:8, :8] = rng.integers(0, 256, 3)  # no two images are the same
    return Image.fromarray(image.astype(np.uint8)), label.astype(np.uint8)


def palette_png(label, colors, path):
    """Save a label as VOC does: indices with a palette."""
    image = Image.fromarray(label, mode="P")
    image.putpalette(np.resize(np.array(colors, np.uint8), (256, 3)).ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def write_voc(root: Path) -> Path:
    """Write VOCdevkit/VOC2012: FINE and FURTHER train, VAL."""
    rng = np.random.default_rng(0)
    place = root / "VOCdevkit" / "VOC2012"
    (place / "JPEGImages").mkdir(parents=True)
    for number, name in enumerate([*FINE, *FURTHER, *VAL]):
        size = (375, 500) if number % 3 else (500, 333)
        image, label = scene(rng, *size, np.arange(21), 255)
        image.save(place / "JPEGImages" / f"{name}.jpg")
        folder = voc.FURTHER if name in FURTHER else voc.FINE
        palette_png(label, [voc.color(index) for index in range(256)], place / folder / f"{name}.png")
    (place / voc.LISTS).mkdir(parents=True)
    for split, ids in {"train": FINE, "val": VAL, "train_aug": FINE + FURTHER}.items():
        (place / voc.LISTS / f"{split}.txt").write_text("\n".join(ids) + "\n")
    return root


def write_cityscapes(root: Path, kind: str = "labelIds") -> Path:
    """Write leftImg8bit and gtFine, 2048 x 1024."""
    rng = np.random.default_rng(0)
    values = np.arange(34) if kind == "labelIds" else np.arange(19)
    for split, cities in CITIES.items():
        for city, count in cities.items():
            for number in range(count):
                name = f"{city}_{number:06d}_000019"
                image, label = scene(rng, 1024, 2048, values, 0 if kind == "labelIds" else 255)
                for folder, file in (("leftImg8bit", cityscapes.IMAGE), ("gtFine", cityscapes.LABEL.format(kind=kind))):
                    (root / folder / split / city).mkdir(parents=True, exist_ok=True)
                    picture = image if folder == "leftImg8bit" else Image.fromarray(label)
                    picture.save(root / folder / split / city / f"{name}{file}", compress_level=1)
    return root


def write_camvid(root: Path, splits: dict[str, int]) -> Path:
    """Write <split>/ and <split>annot/, 480 x 360."""
    rng = np.random.default_rng(0)
    for split, count in splits.items():
        for number in range(count):
            image, label = scene(rng, 360, 480, np.arange(11), camvid.VOID)
            for folder, picture in ((split, image), (f"{split}annot", Image.fromarray(label))):
                (root / folder).mkdir(parents=True, exist_ok=True)
                picture.save(root / folder / f"0001TP_{split}{number:04d}.png", compress_level=1)
    return root
