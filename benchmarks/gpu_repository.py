"""A temporary repository with settings, data and a prepared partition: what parts of the GPU measurement train in.

Its trainings are those of the pipeline (`rrn.train`), without DVC and notebooks. The embedded data are rendered, not
pulled.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from ruamel.yaml import YAML

from rrn import config
from rrn.data import splits
from rrn.data.image_set import ImageSet
from rrn.method import RRN
from rrn.preparation import partitions, shapes
from rrn.preparation.verification import verify
from rrn.runs import finished
from rrn.runs.job import Stage, job
from rrn.train import Training

PARAMS = Path(__file__).resolve().parents[1] / "params.yaml"
NAME = "gpu"
DATA = "shapes"
"""What the embedded data are called."""
FEW = {"train": 32, "test": 6}
"""Images of the small form."""
PARTITIONS = ("1of16", "1of8", "1of4", "1of2", "all")
LABELED = 8
"""Images that a partition must label, at least."""


@dataclass(frozen=True)
class Repository:
    """A repository that is ready to train in.

    Attributes:
        root: its folder.
        data: name of the data set.
        partition: that is prepared; the same images are labeled for all seeds.
    """

    root: Path
    data: str
    partition: str

    def training(self, stage: Stage, row: str | None, seed: int, changes: dict[str, Any] | None = None) -> Training:
        """Return a run that has not begun; `changes` are differences to the settings.

        Raises:
            SettingsError, DataError: as of `rrn.train.run`.
        """
        with contextlib.chdir(self.root):  # where the settings are looked for
            run = job(stage, self.partition, row, seed, self._out(stage, row, seed), changes)
            self.prepare(seed)
            return Training(run)

    def skip_warmup(self, seed: int) -> None:
        """Leave initial segmenters where the warmup of a seed would leave its own: speed does not depend on them."""
        settings = config.load(root=self.root)
        classes = self.prepare(seed).classes
        out = self._out("warmup", None, seed)
        out.mkdir(parents=True)
        finished.write_weights(RRN(settings, len(classes), seed), out)

    def prepare(self, seed: int) -> splits.Split:
        """Leave what the prepare stage would leave for a seed, and return it."""
        prepared = self.root / "runs" / NAME / "prepare"
        split = splits.read_split(prepared / self.partition)
        splits.write_split(split, prepared / f"{self.partition}-{seed}")
        return split

    def _out(self, stage: Stage, row: str | None, seed: int) -> Path:
        """Return the folder of a run."""
        key = "-".join(str(part) for part in (self.partition, row, seed) if part is not None)
        return self.root / "runs" / NAME / stage / key


@contextlib.contextmanager
def temporary(rows: tuple[str, ...], changes: dict[str, Any], data: Path | None, few: bool) -> Iterator[Repository]:
    """Lend a repository, which is gone afterwards with all that was trained in it.

    Args:
        rows: of `methods:` that will be trained.
        changes: differences to params.yaml.
        data: a folder data set, void 255, with or without a split test; None: the embedded one.
        few: a handful of the embedded images.

    Raises:
        DataError: the data set is missing or wrong; lists what is.
        SettingsError: `changes` or params.yaml are wrong.
    """
    os.environ.pop("RRN_SCRATCH", None)  # another place would outlive this one, and may hold runs of the same names
    with tempfile.TemporaryDirectory(prefix="rrn-gpu-") as folder:
        root = Path(folder)
        path = data.resolve() if data else render(root / DATA, FEW if few else shapes.SPLITS)
        scored = "test" if (path / "images" / "test").is_dir() else "val"
        names = {"train": "train", "val": scored, "test": scored}  # nothing is chosen: one look, at the last step
        found = {"kind": "folder", "path": str(path), "void": [255], "unlabeled": None, "size": None, **names}
        listed = {"methods": list(rows), "partitions": ["all"], "explore": None, "beside": []}
        values = config.merge(config.read(PARAMS), {"name": NAME, "dataset": found, "ablation": listed})
        yield Repository(root, path.name, _prepare(root, config.merge(values, changes)))


def _prepare(root: Path, values: dict[str, Any]) -> str:
    """Write the settings, verify the data and choose the labeled images; return the partition."""
    (root / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    with (root / "params.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(values, file)
    settings = config.load(root=root)
    dataset = ImageSet.open(settings, root)
    report = verify(dataset)
    report.require()
    for partition in PARTITIONS:
        split = partitions.make(dataset, settings, partition, report)
        if len(split.labeled) >= LABELED:
            break
    splits.write_split(split, root / "runs" / NAME / "prepare" / split.partition)
    return split.partition


def render(folder: Path, counts: dict[str, int]) -> Path:
    """Render the first scenes of splits of the embedded data set, and return its folder."""
    for split, count in counts.items():
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for index in range(count):
            image, label = shapes.render(split, index)
            name = f"{split}_{index:04d}"
            picture = Image.fromarray(image)
            picture.save(images / f"{name}.jpg", quality=shapes.JPEG_QUALITY, subsampling=0, optimize=True)
            Image.fromarray(label).save(labels / f"{name}.png")
    (folder / "classes.txt").write_text("\n".join(shapes.CLASSES) + "\n", encoding="utf-8")
    return folder
