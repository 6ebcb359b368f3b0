"""What one run made of some images, in a file that anything can look into: evidence.zip. No torch.

    evidence.json                 which run, its classes, its rule, and which images have pictures (`About`)
    regions.csv                   a row per split, image, segmenter and region, of `rrn.evaluation.region_tables`
    <split>/<number>/image.jpg    the image; beside it label.png, pseudo_label_1.png, pseudo_label_2.png and
                                  prediction.png (ensemble): class indices in the colors of the classes, 255 = void

The evaluate stage writes it, the explorer and the figures of the paper read it; the same run gives the same bytes.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import Field, ValidationError

from rrn.config import Filter
from rrn.data.decoding import Pixels
from rrn.data.palette import palette
from rrn.data.splits import evenly_spaced
from rrn.runtime import atomic_io
from rrn.settings.limits import Byte, PositiveInt, Section

NAME = "evidence.zip"
ABOUT, REGIONS = "evidence.json", "regions.csv"
MAPS = ("label", "pseudo_label_1", "pseudo_label_2", "prediction")
LIMIT = 900_000
"""Bytes of a file that is small enough for git."""

WANTED, THINNINGS = 8, (1, 2, 4, 8)
"""Images of a split below which pictures are thinned out, if they are too large for `LIMIT`, and by how much."""

BROKEN = (zipfile.BadZipFile, zlib.error, KeyError, EOFError, OSError, NotImplementedError)
"""What reading a damaged archive raises."""


class EvidenceError(ValueError):
    """A file is no evidence, or does not hold what is asked for."""


class About(Section):
    """Which run, and how it filters.

    Attributes:
        name, partition, method, seed: of the run.
        classes: names; the index of a name is its class.
        colours: of the classes, as the authors of the data set draw them; empty: none of its own.
        region: side of a region in pixels.
        rule: the row's filter.
        rho: what rates the regions that are kept.
        objective: of the discriminators; None without.
        images: split -> ids of the images that have pictures.
    """

    name: str
    partition: str
    method: str
    seed: int
    classes: tuple[str, ...] = Field(min_length=1)
    # the key of files, spelled as in the first of them
    colours: tuple[tuple[Byte, Byte, Byte], ...]
    region: PositiveInt
    rule: Filter
    rho: str
    objective: Literal["adversarial", "accuracy"] | None
    images: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Pictures:
    """One image: image uint8 [H, W, 3], label, prediction uint8 [H, W], pseudo_labels uint8 [2, H, W]; 255 = void."""

    image: Pixels
    label: Pixels
    pseudo_labels: Pixels
    prediction: Pixels

    def thinned(self, step: int) -> Pictures:
        """Return every so many pixels of each; the image averaged over what is left out."""
        image = np.asarray(Image.fromarray(self.image).reduce(step))
        maps = (self.label, self.pseudo_labels, self.prediction)
        return Pictures(image, *(np.ascontiguousarray(values[..., ::step, ::step]) for values in maps))


class EvidenceWriter:
    """Writes evidence.zip as the images come; memory holds one batch and the region tables.

    Args:
        path: of the file, which is there when all is written; its folder is made if missing.
        about: which run, and which images get pictures.

    Raises:
        atomic_io.WriteError: the disk is full, or the folder may not be written.
    """

    def __init__(self, path: Path, about: About) -> None:
        self.path, self.about = path, about
        self._tables: list[pd.DataFrame] = []
        self._stack = ExitStack()

    def __enter__(self) -> EvidenceWriter:
        unfinished = self._stack.enter_context(atomic_io.atomic_path(self.path))
        with atomic_io.explain_os_error(self.path):
            self._archive = self._stack.enter_context(zipfile.ZipFile(unfinished, "w"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            _finish(self._archive, self.about, pd.concat(self._tables, ignore_index=True))

    def add(self, split: str, table: pd.DataFrame, pictures: Mapping[str, Pictures]) -> None:
        """Write a batch of a split: its region table, and those of its pictures, by id, that are wanted."""
        self._tables.append(table.assign(split=split))
        wanted = self.about.images[split]
        colors = palette(len(self.about.classes), self.about.colours)
        for name in (name for name in pictures if name in wanted):  # in their order: a set has another in each process
            for member, contents in _files(pictures[name], colors).items():
                _store(self._archive, f"{split}/{wanted.index(name)}/{member}", contents)


class Evidence:
    """What one run made of some images.

    Args:
        path: of evidence.zip.
        about: of the run.
        regions: split, and the columns of `rrn.evaluation.region_tables.region_table`.
    """

    def __init__(self, path: Path, about: About, regions: pd.DataFrame) -> None:
        self.path, self.about, self.regions = path, about, regions

    @classmethod
    def read(cls, path: Path) -> Evidence:
        """Read a file; pictures are read when they are asked for.

        Raises:
            EvidenceError: it is none.
        """
        if not path.is_file():
            raise EvidenceError(
                f"there is no {path}: run `dvc repro evaluate`, or `git checkout` it where git holds it"
            )
        try:
            with zipfile.ZipFile(path) as archive:
                about = About.model_validate_json(archive.read(ABOUT))
                with archive.open(REGIONS) as file:
                    names = {"id": str, "split": str}
                    columns = pd.read_csv(file, dtype=names, keep_default_na=False, na_values=[""])
            regions = columns.copy()  # one array a type, not one a column: more than 100 are slow, and pandas warns
            _require_sound(regions)
        except (*BROKEN, ValidationError, ValueError) as error:
            raise EvidenceError(f"{path} is not what the evaluate stage writes ({error}): run it again") from error
        return cls(path, about, regions)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that are described."""
        return tuple(self.about.images)

    def last(self) -> pd.DataFrame:
        """Return the regions of the last split: that of the test images, or of val where these are."""
        return self.regions[self.regions["split"] == self.splits[-1]]

    def ids(self, split: str) -> tuple[str, ...]:
        """Return the images of a split that have pictures."""
        if split not in self.about.images:
            raise EvidenceError(f"{self.path} has no split {split!r}; it has {', '.join(self.splits)}")
        return self.about.images[split]

    def pictures(self, split: str, name: str) -> Pictures:
        """Return the pictures of an image.

        Raises:
            EvidenceError: there are none.
        """
        ids = self.ids(split)
        if name not in ids:
            raise EvidenceError(f"{self.path} has no pictures of {name!r} in {split}; it has {len(ids)} others")
        folder = f"{split}/{ids.index(name)}"
        try:
            with zipfile.ZipFile(self.path) as archive:
                image = _picture(archive, f"{folder}/image.jpg")
                maps = np.stack([_picture(archive, f"{folder}/{member}.png") for member in MAPS])
            if image.shape != (*maps.shape[1:], 3):
                raise ValueError(f"an image of shape {image.shape} with maps of shape {maps.shape[1:]}")
        except (*BROKEN, ValueError) as error:
            raise EvidenceError(f"{self.path}: the pictures of {name!r} are damaged ({error})") from error
        return Pictures(image, maps[0], maps[1:3], maps[3])

    def pack(self, path: Path, splits: Sequence[str], limit: int = LIMIT) -> int:
        """Write the pictures of some splits and the regions that they show, as many as `limit` bytes hold.

        Where these are fewer than `WANTED` images a split, pictures are thinned out by a whole number.

        Returns:
            how many images of a split are left, at most; 0: no split is named or holds any, and nothing is written.

        Raises:
            EvidenceError: not one fits.
        """
        most = max((len(self.ids(split)) for split in splits), default=0)
        for thinning in (n for n in THINNINGS if self.about.region % n == 0):
            count = self._fitting(splits, most, thinning, limit)
            if count >= min(WANTED, most) or thinning == THINNINGS[-1]:
                break
        if most and not count:
            raise EvidenceError(f"{self.path}: not one image fits {limit} bytes; set ablation.explore: null")
        if count:
            atomic_io.write(path, self._packed(splits, count, thinning))
        return count

    def _fitting(self, splits: Sequence[str], most: int, thinning: int, limit: int) -> int:
        """Return how many images of a split fit, by halving."""
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            fits = len(self._packed(splits, middle, thinning)) <= limit
            low, high = (middle, high) if fits else (low, middle - 1)
        return low

    def _packed(self, splits: Sequence[str], count: int, thinning: int) -> bytes:
        """Return a file with `count` images of some splits, every so many pixels of them."""
        images = {split: evenly_spaced(self.ids(split), count) for split in splits}
        shown = pd.concat([self._of(split, ids) for split, ids in images.items()], ignore_index=True)
        about = self.about.model_copy(update={"images": images, "region": self.about.region // thinning})
        stream = BytesIO()
        with zipfile.ZipFile(stream, "w") as target:
            for split, ids in images.items():
                for place, name in enumerate(ids):
                    thinned = self.pictures(split, name).thinned(thinning)
                    for member, contents in _files(thinned, palette(len(about.classes), about.colours)).items():
                        _store(target, f"{split}/{place}/{member}", contents)
            _finish(target, about, shown)
        return stream.getvalue()

    def _of(self, split: str, ids: Sequence[str]) -> pd.DataFrame:
        return self.regions[(self.regions["split"] == split) & self.regions["id"].isin(ids)]


def _require_sound(regions: pd.DataFrame) -> None:
    """Raise ValueError where a region table cannot be one."""
    texts = ("split", "id")
    if missing := [name for name in (*texts, "segmenter", "row", "column", "pixels", "right") if name not in regions]:
        raise ValueError(f"{REGIONS} lacks {', '.join(missing)}")
    wrong = [str(name) for name in regions.select_dtypes(exclude="number") if name not in texts]
    if wrong:
        raise ValueError(f"{REGIONS} has no numbers in {', '.join(wrong)}")
    if not regions["segmenter"].isin((1, 2)).all() or (regions[["row", "column"]] < 0).any(axis=None):
        raise ValueError(f"{REGIONS} has a segmenter other than 1 and 2, or a negative place")


def _files(pictures: Pictures, colors: Pixels) -> dict[str, bytes]:
    """Encode the pictures of one image: file name -> contents."""
    maps = (pictures.label, *pictures.pseudo_labels, pictures.prediction)
    files = {"image.jpg": _encoded(Image.fromarray(pictures.image), "JPEG", quality=90)}
    for kind, values in zip(MAPS, maps, strict=True):
        indices = Image.fromarray(values)
        indices.putpalette(colors.tobytes())
        files[f"{kind}.png"] = _encoded(indices, "PNG", optimize=True)
    return files


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _finish(archive: zipfile.ZipFile, about: About, regions: pd.DataFrame) -> None:
    """Write what stands once in a file."""
    leading = ["split", *(column for column in regions if column != "split")]
    table = regions[leading].to_csv(index=False, float_format="%.6g", lineterminator="\n")
    _store(archive, REGIONS, table.encode(), zipfile.ZIP_DEFLATED)
    _store(archive, ABOUT, about.model_dump_json(indent=1).encode(), zipfile.ZIP_DEFLATED)


def _store(archive: zipfile.ZipFile, name: str, contents: bytes, how: int = zipfile.ZIP_STORED) -> None:
    """Write a file without date and owner, so that the same contents give the same bytes."""
    member = zipfile.ZipInfo(name)
    member.compress_type = how
    archive.writestr(member, contents)


def _picture(archive: zipfile.ZipFile, name: str) -> Pixels:
    """Read a picture: RGB [H, W, 3], or indices [H, W] of a palette."""
    with archive.open(name) as file:
        return np.asarray(Image.open(file, formats=("JPEG", "PNG")))
