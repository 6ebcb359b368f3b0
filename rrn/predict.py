"""Label images with a finished run: `python -m rrn.predict RUN IMAGES... OUT`.

The folder of the run is all that is needed. Images may have any size, and each is labeled alone. They are named in OUT
by their path below the folder that holds them all, without suffix; those that differ in nothing else keep theirs:

    OUT/labels/<name>.png            palette PNG: a pixel is the index of its class, shown in the colour of the class
    OUT/probabilities/<name>.npz     --probabilities: `probabilities`, float16 [C, H, W]
    OUT/overlays/<name>.png          --overlay: the image under the colours of its classes
    OUT/regions/<name>.png           --regions: the same with the regions and their scores
    OUT/regions.csv                  --regions: image, segmenter, row, column, score, confidence, agreement
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from rrn.config import Evaluate, SettingsError
from rrn.data import decoding, file_formats
from rrn.data.decoding import DataError, Pixels
from rrn.evaluation import overlay
from rrn.evaluation.inference import Predictor
from rrn.evaluation.region_tables import region_total
from rrn.method import RRN
from rrn.models import device
from rrn.plotting.style import Array, palette
from rrn.runs import finished
from rrn.runs.finished import RunCard
from rrn.runtime import atomic_io
from rrn.runtime.places import place

REGION_COLUMNS = ("image", "segmenter", "row", "column", "score", "confidence", "agreement")

NO_DISCRIMINATORS = (
    "this run has no region discriminators, so there are no region scores: leave --regions out, "
    "or name a training of a row that filters regions, such as rrn"
)

ENDINGS = f"{', '.join(file_formats.SUFFIXES[:-1])} or {file_formats.SUFFIXES[-1]}"
"""Of files in a folder that are images."""
NAMED = 10
"""Files that are left out, at most."""

Who = Literal["ensemble", "1", "2"]


@dataclass(frozen=True)
class Wanted:
    """What is asked for besides labels, and who answers; see the text at the top and `predict`."""

    segmenter: Who = "ensemble"
    probabilities: bool = False
    overlay: bool = False
    regions: bool = False


@dataclass(frozen=True)
class Regions:
    """What is known of the regions of one image, for each segmenter's own labels; float64 [2, rows, columns], 0..1.

    Attributes:
        score: of the region discriminators.
        confidence: mean of the highest probability over the pixels of a region.
        agreement: share of its pixels on which the two segmenters agree; the same for both.
    """

    score: Array
    confidence: Array
    agreement: Array


@dataclass(frozen=True)
class Prediction:
    """What the networks say of one image of H x W pixels.

    Attributes:
        probabilities: of the classes, float32 [C, H, W].
        labels: the most probable classes, uint8 [H, W].
        regions: None unless they were asked for.
    """

    probabilities: Array
    labels: Pixels
    regions: Regions | None


@torch.no_grad()
def predict(
    predictor: Predictor,
    card: RunCard,
    image: Pixels,
    segmenter: Who = "ensemble",
    with_regions: bool = False,
) -> Prediction:
    """Label one image.

    Args:
        predictor: of `predictor_of`.
        card: of the same run. If its images were resized when read, this one is too, and the answer is brought
            back to the size of the image; regions are those of the resized image.
        image: RGB uint8 [H, W, 3], of any size.
        segmenter: who answers; ensemble is the mean of both segmenters' probabilities.
        with_regions: whether the regions are wanted too.

    Raises:
        SettingsError: regions are wanted of a run without region discriminators.
    """
    read = decoding.colours(Image.fromarray(image), card.size)
    images = torch.from_numpy(read).permute(2, 0, 1)[None]
    logits = predictor.logits(images)
    both = logits.softmax(2)
    regions = _regions(predictor, logits, both, images) if with_regions else None
    chosen = both.mean(0) if segmenter == "ensemble" else both[int(segmenter) - 1]
    if chosen.shape[-2:] != image.shape[:2]:
        chosen = F.interpolate(chosen, image.shape[:2], mode="bilinear", align_corners=False)
    labels = chosen[0].argmax(0).byte()
    return Prediction(chosen[0].cpu().numpy(), labels.cpu().numpy(), regions)


def predictor_of(model: RRN, card: RunCard) -> Predictor:
    """Return what looks at images as the run's evaluation does.

    Args:
        model: of `rrn.runs.finished.load_finished`, whose weights stay as they are.
        card: the same.
    """
    return Predictor(model, protocol_of(card)).unchanged()


def protocol_of(card: RunCard) -> Evaluate:
    """Return how images are looked at: as in the run's evaluation.

    In mode pad, an image larger than the window is looked at through several; the others come out the same.
    """
    protocol = card.evaluate
    if protocol.mode != "pad":
        return protocol
    return protocol.model_copy(update={"mode": "sliding", "stride": protocol.window, "last": "shifted"})


def _regions(predictor: Predictor, logits: Tensor, probabilities: Tensor, images: Tensor) -> Regions:
    """Describe the regions of one image; logits and probabilities [2, 1, C, h, w], images uint8 [1, 3, h, w]."""
    scores = predictor.region_scores(logits, images)
    if scores is None:
        raise SettingsError(NO_DISCRIMINATORS)
    confidence, labels = probabilities.max(2)
    area = region_total(torch.ones_like(confidence), predictor.region)
    same = (labels[0] == labels[1]).expand_as(labels)
    sums = (region_total(values, predictor.region) for values in (confidence, same))
    parts = (scores[:, 0], *(total / area for total in sums))
    return Regions(*(part[:, 0].double().cpu().numpy() for part in parts))


def find_images(paths: Sequence[Path], out: Path) -> dict[str, Path]:
    """Find images and give each a name of its own.

    Args:
        paths: files, taken whatever their suffix, and folders, searched with all their subfolders for files that are
            called as images; hidden files and folders are left out.
        out: folder of the results; what lies in it is no image.

    Returns:
        name -> file, sorted: the path below the folder that holds all `paths`, without suffix; where two have the same
        name without it, both keep it.

    Raises:
        DataError: a path does not exist or lies in `out`, or there is no image.
    """
    out, places, found = out.resolve(), [], set()
    for path in paths:
        place = path.resolve() if path.is_dir() else path.parent.resolve()
        if not path.exists():
            raise DataError(f"there is no file or folder {path}: name images, or folders of images")
        if place.is_relative_to(out):
            raise DataError(f"{path} lies in {out}, where the results go: name another folder for them")
        places.append(place)
        found |= set(filter(file_formats.has_suffix, _files(place, out))) if path.is_dir() else {place / path.name}
    if not found:
        raise DataError(f"no image in {', '.join(map(str, paths))}: expected files that end in {ENDINGS}")
    common = Path(os.path.commonpath(places))
    return _named({path.relative_to(common): path for path in sorted(found)})


def _named(images: Mapping[Path, Path]) -> dict[str, Path]:
    """Name images by their path without suffix, or with it where that is the name of another one, too."""
    taken = Counter(str(path.with_suffix("")) for path in images) + Counter(map(str, images))
    bare = {path: str(path.with_suffix("")) for path in images}
    return {bare[path] if taken[bare[path]] == 1 else str(path): file for path, file in images.items()}


def left_out(paths: Sequence[Path], out: Path) -> list[Path]:
    """Return the files in folders that `find_images` leaves out for their suffix, sorted, by their paths below them."""
    folders = [path for path in paths if path.is_dir()]
    others = {
        file.relative_to(folder.resolve())
        for folder in folders
        for file in _files(folder.resolve(), out.resolve())
        if not file_formats.has_suffix(file)
    }
    return sorted(others)


def _files(folder: Path, out: Path) -> set[Path]:
    """Return the files in a folder and its subfolders, but for hidden ones and those in `out`."""
    files = {path for path in folder.rglob("*") if path.is_file() and not path.is_relative_to(out)}
    return {path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)}


def _count(paths: Sequence[Path]) -> str:
    """Say how many files are left out, and which."""
    named = ", ".join(map(str, paths[:NAMED])) + (" ..." if len(paths) > NAMED else "")
    return f"{len(paths)} {'file' if len(paths) == 1 else 'files'} left out: {named} (images end in {ENDINGS})"


class Writer:
    """Writes what was asked for of each image; a file is whole or not there.

    Args:
        out: folder of the results.
        card: of the run.
        region: side of a region in pixels of an image as it is read.
        wanted: what is asked for.
    """

    def __init__(self, out: Path, card: RunCard, region: int, wanted: Wanted) -> None:
        self.out, self.card, self.region, self.wanted = out, card, region, wanted
        self.colours = palette(len(card.classes), card.colours)
        self._stack = ExitStack()

    def __enter__(self) -> Writer:
        self.out.mkdir(parents=True, exist_ok=True)
        if self.wanted.regions:
            unfinished = self._stack.enter_context(atomic_io.file(self.out / "regions.csv"))
            table = self._stack.enter_context(unfinished.open("w", encoding="utf-8", newline=""))
            self._rows = csv.writer(table, lineterminator="\n")
            self._rows.writerow(REGION_COLUMNS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, name: str, image: Pixels, prediction: Prediction) -> None:
        """Write the files of one image, RGB uint8 [H, W, 3], and its rows of regions.csv."""
        labels = Image.fromarray(prediction.labels)
        labels.putpalette(self.colours.tobytes())
        self._picture("labels", name, labels)
        if self.wanted.probabilities:
            contents = BytesIO()
            np.savez_compressed(contents, probabilities=prediction.probabilities.astype(np.float16))
            atomic_io.write(self.out / "probabilities" / f"{name}.npz", contents.getvalue())
        if self.wanted.overlay or prediction.regions:
            blended = overlay.blended(image, prediction.labels, self.colours)
        if self.wanted.overlay:
            self._picture("overlays", name, blended)
        if prediction.regions:
            self._picture("regions", name, self._scored(blended, prediction.regions))
            self._rows.writerows(_rows(name, prediction.regions))

    def _scored(self, blended: Image.Image, regions: Regions) -> Image.Image:
        """Draw the scores of the segmenter that answered; for the ensemble the mean of both."""
        who = self.wanted.segmenter
        scores = regions.score.mean(0) if who == "ensemble" else regions.score[int(who) - 1]
        read = self.card.size or (blended.height, blended.width)
        sides = (self.region * blended.height / read[0], self.region * blended.width / read[1])
        return overlay.scored(blended, scores, sides)

    def _picture(self, kind: str, name: str, picture: Image.Image) -> None:
        """Write a PNG into the folder of its kind."""
        contents = BytesIO()
        picture.save(contents, "PNG")
        atomic_io.write(self.out / kind / f"{name}.png", contents.getvalue())


def _rows(name: str, regions: Regions) -> list[list[Any]]:
    """Return the rows of regions.csv of one image."""
    values = (regions.score, regions.confidence, regions.agreement)
    return [
        [name, segmenter + 1, row, column, *(f"{value[segmenter, row, column]:.6g}" for value in values)]
        for segmenter, row, column in np.ndindex(regions.score.shape)
    ]


def label_all(model: RRN, card: RunCard, images: Mapping[str, Path], out: Path, wanted: Wanted) -> list[str]:
    """Label images one by one, with a progress bar on stderr, and write the results.

    Args:
        model: of `rrn.runs.finished.load_finished`.
        card: the same.
        images: of `find_images`.
        out: folder of the results.
        wanted: what is asked for.

    Returns:
        what was wrong with the images that could not be labeled; the others are done.
    """
    failed, predictor = [], predictor_of(model, card)
    with Writer(out, card, model.region, wanted) as writer:
        for name, path in tqdm(images.items(), unit="image", file=sys.stderr):
            try:
                image = decoding.colours(decoding.open_upright(path), None)
                writer.write(name, image, predict(predictor, card, image, wanted.segmenter, wanted.regions))
            except DataError as error:
                failed.append(str(error))
            except torch.OutOfMemoryError:
                size = f"{image.shape[1]} x {image.shape[0]} pixels"
                failed.append(f"{path}, {size}, does not fit the memory of {model.device}: try --device cpu")
    return failed


def require_free(out: Path, force: bool) -> None:
    """Refuse a folder of results in which something lies, unless the user wants files replaced.

    Raises:
        DataError: it is a file, or holds something.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; the last argument is the folder for the results")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise DataError(f"{out} is not empty: name a new folder, or give --force to replace files of the same name")


def parser() -> argparse.ArgumentParser:
    """Return the reader of the command line."""
    reader = argparse.ArgumentParser(
        prog="python -m rrn.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("run", metavar="RUN", type=place, help="folder of a finished run: runs/NAME/train/KEY")
    reader.add_argument("images", metavar="IMAGES", type=place, nargs="+", help="image files, or folders of them")
    reader.add_argument("out", metavar="OUT", type=place, help="folder for the results, made if missing")
    reader.add_argument("--segmenter", choices=get_args(Who), default="ensemble", help="who answers")
    reader.add_argument("--probabilities", action="store_true", help="write the probabilities of the classes too")
    reader.add_argument("--overlay", action="store_true", help="write each image under the colours of its classes too")
    reader.add_argument("--regions", action="store_true", help="write the region scores too, as a table and drawn")
    reader.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda or cuda:N")
    reader.add_argument("--force", action="store_true", help="replace files in OUT")
    return reader


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 1 if nothing, or not every image, could be labeled."""
    options = parser().parse_intermixed_args(argv)
    try:
        require_free(options.out, options.force)
        if options.device.startswith("meta"):
            raise SettingsError(device.NO_DEVICE.format(options.device))
        model, card = finished.load_finished(options.run, options.device)
        images, others = find_images(options.images, options.out), left_out(options.images, options.out)
        if options.regions and not model.discriminators:
            raise SettingsError(NO_DISCRIMINATORS)
        wanted = Wanted(options.segmenter, options.probabilities, options.overlay, options.regions)
        failed = label_all(model, card, images, options.out, wanted)
    except (SettingsError, DataError, atomic_io.WriteError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error}; make room in {options.out} or name a folder that can be written", file=sys.stderr)
        return 1
    print(f"{len(images) - len(failed)} of {len(images)} images labeled: {options.out / 'labels'}")
    if others:
        print(_count(others))
    for message in failed:
        print(f"error: {message}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
