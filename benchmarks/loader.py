"""What the loader reads a second on one core, beside plain PIL with float transforms of whole images, and its memory.

    python benchmarks/run.py loader

JPEGs of 500 x 375 pixels, crops of 321, scales 0.5 to 2; a batch is as many labeled images as of each unlabeled half.
The rival decodes, makes a float tensor of the whole image, shifts its colors, resizes it to the random scale (without
antialiasing, the cheaper way), pads, cuts, mirrors and normalizes. Ours cuts first, works on bytes, and leaves the
normalizing to the device. Memory: what one worker alone holds after many steps, 1,000 ids beside 100,000.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Row, alternating, apart, ratio, row
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

from rrn import config
from rrn.data.batches import TrainingData, training_loader
from rrn.data.formats.folder import Folder
from rrn.data.image_set import ImageSet
from rrn.data.splits import Split

HEIGHT, WIDTH, CROP, SCALES = 375, 500, 321, (0.5, 2.0)
MEAN, STD = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1), torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
CLASSES = 21
FEW, MANY = 1_000, 100_000
SIDE, LABELED = 8, 16  # pixels of an image's side, and labeled images, where only the length of the lists matters


@dataclass(frozen=True)
class OneFile(Folder):
    """Any number of ids, whose images and labels are one file each."""

    def image_path(self, split: str, name: str) -> Path:
        """Return the one image."""
        return self.root / "image.jpg"

    def label_path(self, split: str, name: str) -> Path:
        """Return the one label."""
        return self.root / "label.png"


def rows(quick: bool) -> list[Row]:
    """Measure images a second and memory; `quick`: small images, few of them, short lists."""
    return [*speed(quick), *memory(quick)]


def speed(quick: bool) -> list[Row]:
    """Measure images a second on one core, without workers: ours, ours out of the cache, and the plain loader."""
    torch.set_num_threads(1)
    shrunk = 5 if quick else 1
    height, width, crop, batch, rounds = HEIGHT // shrunk, WIDTH // shrunk, CROP // shrunk, 4, 2 if quick else 40
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        names = write_images(root, 8 if quick else 64, height, width)
        split = split_of(names[::4], [name for name in names if name not in names[::4]])
        ways = {"ours": False, "ours, decoded images kept": True}
        loaders: dict[str, Callable[[int], Any]] = {}
        for case, kept in ways.items():
            settings = settings_of(root, crop, batch, kept)
            loaders[case] = TrainingData(ImageSet.open(settings, root), split, settings, 0, "train").__getitem__
        loaders["plain"] = Plain(root, split, crop, batch).__getitem__
        seconds = alternating({case: each_step(load) for case, load in loaders.items()}, rounds)
    images = 3 * batch
    found = [
        row(case, "images a second of one core", "images/s", [images / s for s in seconds[case]]) for case in seconds
    ]
    return found + [ratio(case, "images a second : plain", seconds["plain"], seconds[case]) for case in ways]


def each_step(load: Callable[[int], Any]) -> Callable[[], Any]:
    """Return what loads the next step each time it is called."""
    steps = iter(range(1_000_000))
    return lambda: load(next(steps))


def memory(quick: bool) -> list[Row]:
    """Measure what one worker alone holds at both lengths of the lists, and the difference."""
    counts, steps, rounds = ((100, 20_000), 20, 1) if quick else ((FEW, MANY), 2_000, 2)
    ways = {"decoding": False} if quick else {"decoding": False, "decoded images kept": True}
    found = []
    for case, kept in ways.items():
        held = {count: [apart(private_bytes, count, steps, kept) / 1e6 for _ in range(rounds)] for count in counts}
        found += [row(f"{case}, {count} ids", "memory of a worker alone", "MB", held[count]) for count in counts]
        more = [many - few for few, many in zip(*held.values(), strict=True)]
        found.append(row(f"{case}, {counts[1]} ids", f"memory of a worker beyond that of {counts[0]} ids", "MB", more))
    return found


def private_bytes(count: int, steps: int, kept: bool) -> int:
    """Return the bytes that only the worker of a loader holds after `steps` steps over `count` ids.

    Pages of files that it has mapped are not among them: the kernel may take these back, and shares them.
    """
    multiprocessing.set_start_method("fork", force=True)  # as in a training; this process was spawned
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_pair(root / "image.jpg", root / "label.png", SIDE, SIDE, np.random.default_rng(0))
        settings = settings_of(root, SIDE, 4, kept, workers=1)
        layout = OneFile(root, ("a",) * CLASSES, {value: value for value in range(CLASSES)}, (), "", "train", None)
        dataset = ImageSet(root, layout, None, "train", "val", "val", root / "decoded")
        names = [f"2008_{place:06d}" for place in range(count)]
        loader = training_loader(dataset, split_of(names[:LABELED], names[LABELED:]), settings, 0, 0, steps, "train")
        for step, _ in enumerate(loader):
            if step == steps - 3:  # the worker still lives: it is two steps ahead
                (worker,) = multiprocessing.active_children()
                held = Path(f"/proc/{worker.pid}/smaps_rollup").read_text(encoding="ascii")
        return 1024 * sum(int(line.split()[1]) for line in held.splitlines() if line.startswith("Private_Dirty"))


class Plain:
    """The same batches in the plain way; draws differ."""

    def __init__(self, root: Path, split: Split, crop: int, batch: int) -> None:
        self.root, self.split, self.crop, self.batch = root, split, crop, batch
        self.draw = np.random.default_rng(0)

    def __getitem__(self, step: int) -> list[Tensor]:
        """Return labeled images, their labels, and both unlabeled halves: float32 [B, 3, H, W] and int64 [B, H, W]."""
        labeled = [self._crop(self._name(self.split.labeled), True) for _ in range(self.batch)]
        halves = [
            torch.stack([self._crop(self._name(self.split.unlabeled), False)[0] for _ in range(self.batch)])
            for _ in range(2)
        ]
        return [torch.stack([image for image, _ in labeled]), torch.stack([label for _, label in labeled]), *halves]

    def _name(self, names: tuple[str, ...]) -> str:
        return names[int(self.draw.integers(len(names)))]

    def _crop(self, name: str, labeled: bool) -> tuple[Tensor, Tensor]:
        decoded = Image.open(self.root / "images/train" / f"{name}.jpg").convert("RGB")
        image = torch.from_numpy(np.array(decoded)).permute(2, 0, 1).contiguous().float() / 255
        image = self._jitter(image)
        scale = self.draw.uniform(*SCALES)
        size = [round(side * scale) for side in image.shape[1:]]
        image = interpolate(image[None], size, mode="bilinear")[0]
        right, below = (max(0, self.crop - side) for side in reversed(size))
        image = pad(image, (0, right, 0, below))
        top, left = (int(self.draw.integers(side - self.crop + 1)) for side in image.shape[1:])
        cut = slice(top, top + self.crop), slice(left, left + self.crop)
        image, label = (image[:, *cut] - MEAN) / STD, torch.zeros(0)
        if labeled:
            whole = torch.from_numpy(np.array(Image.open(self.root / "labels/train" / f"{name}.png"))).float()
            whole = interpolate(whole[None, None], size, mode="nearest")[0, 0].long()
            label = pad(whole, (0, right, 0, below), value=config.IGNORE_INDEX)[cut]
        return (image.flip(-1), label.flip(-1)) if self.draw.random() < 0.5 else (image, label)

    def _jitter(self, image: Tensor) -> Tensor:
        brightness, contrast, saturation = self.draw.uniform(0.8, 1.2, 3)
        image = (image * brightness).clamp(0, 1)
        image = ((image - image.mean()) * contrast + image.mean()).clamp(0, 1)
        gray = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
        return (gray + (image - gray) * saturation).clamp(0, 1)


def write_images(root: Path, count: int, height: int, width: int) -> list[str]:
    """Write photographs of noise on smooth colors, with labels, in the folder layout; return their ids."""
    (root / "classes.txt").write_text("\n".join(f"class {index}" for index in range(CLASSES)), encoding="utf-8")
    folders = [root / kind / "train" for kind in ("images", "labels")]
    for folder in folders:
        folder.mkdir(parents=True)
    draw, names = np.random.default_rng(0), [f"{place:04d}" for place in range(count)]
    for name in names:
        write_pair(folders[0] / f"{name}.jpg", folders[1] / f"{name}.png", height, width, draw)
    return names


def write_pair(image: Path, label: Path, height: int, width: int, draw: np.random.Generator) -> None:
    """Write one photograph and its label."""
    smooth = Image.fromarray(draw.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height))
    noisy = np.asarray(smooth, dtype=np.int16) + draw.integers(-12, 13, (height, width, 3), dtype=np.int16)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(image, quality=90)
    classes = Image.fromarray(draw.integers(0, CLASSES, (6, 8), dtype=np.uint8))
    classes.resize((width, height), Image.Resampling.NEAREST).save(label)


def split_of(labeled: list[str], unlabeled: list[str]) -> Split:
    """Return a partition of the train images; nothing else of it is looked at."""
    names = tuple(labeled), tuple(unlabeled), tuple(labeled), tuple(labeled)
    return Split("1of4", "seeded", "", "", tuple(f"class {i}" for i in range(CLASSES)), (), *names)


def settings_of(root: Path, crop: int, batch: int, kept: bool, workers: int = 0) -> config.Settings:
    """Return settings of the data set in `root`."""
    changes = {
        "device": "cpu",
        "loading": {"workers": workers, "cache": kept},
        "dataset": {"kind": "folder", "path": str(root), "void": [255], "unlabeled": None, "size": None},
        "augment": {"crop": crop, "scales": SCALES, "flip": True, "jitter": 0.2},
        "batch": {"labeled": batch, "unlabeled": batch},
    }
    settings = config.load()
    for section, values in changes.items():
        whole = getattr(settings, section).model_copy(update=values) if isinstance(values, dict) else values
        settings = settings.model_copy(update={section: whole})
    return settings
