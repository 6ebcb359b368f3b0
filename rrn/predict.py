"""Label images with a finished run: `python -m rrn.predict RUN IMAGES... OUT`.

The folder of the run is all that is needed. Images may have any size, and each is labeled alone. They are named in OUT
by their path below the folder that holds them all, without suffix; those that differ in nothing else keep theirs:

    OUT/labels/<name>.png            palette PNG: a pixel is the index of its class, shown in the color of the class
    OUT/probabilities/<name>.npz     --probabilities: `probabilities`, float16 [C, H, W]
    OUT/overlays/<name>.png          --overlay: the image under the colors of its classes
    OUT/regions/<name>.png           --regions: the same with the regions and their scores
    OUT/regions.csv                  --regions: image, segmenter, row, column, score, confidence, agreement
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from rrn.config import Evaluate, SettingsError
from rrn.data import decoding, file_formats
from rrn.data.batches import WholeBatch
from rrn.data.decoding import DataError, Pixels
from rrn.data.palette import Array, palette
from rrn.evaluation.inference import Predictor
from rrn.evaluation.region_tables import predict_batch, region_table
from rrn.method import RRN
from rrn.models import device
from rrn.runs import finished
from rrn.runs.finished import RunCard
from rrn.runtime import atomic_io, csv_files
from rrn.runtime.places import place

SCORES = ("region_score", "confidence", "agreement")
REGION_COLUMNS = ("image", "segmenter", "row", "column", "score", *SCORES[1:])

NO_DISCRIMINATORS = (
    "this run has no region discriminators, so there are no region scores: leave --regions out, "
    "or name a training of a row that filters regions, such as rrn"
)

ENDINGS = f"{', '.join(file_formats.SUFFIXES[:-1])} or {file_formats.SUFFIXES[-1]}"
"""Of files in a folder that are images."""
NAMED = 10
"""Files that are left out, at most."""
OPACITY = 0.5
"""Of the colors of the classes over the image."""
READABLE = 40
"""Least side, in pixels, of a region in which a score is written."""

Who = Literal["ensemble", "1", "2"]


@dataclass(frozen=True)
class Wanted:
    """What is asked for besides labels, and who answers; see the text at the top and `predict`."""

    segmenter: Who = "ensemble"
    probabilities: bool = False
    overlay: bool = False
    regions: bool = False


@dataclass(frozen=True)
class Prediction:
    """What the networks say of one image of H x W pixels.

    Attributes:
        probabilities: of the classes, float32 [C, H, W].
        labels: the most probable classes, uint8 [H, W].
        regions: their region table, with SCORES alone; None unless it was asked for.
    """

    probabilities: Array
    labels: Pixels
    regions: pd.DataFrame | None


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
    read = torch.from_numpy(decoding.colors(Image.fromarray(image), card.size))
    unlabeled = torch.zeros(1, *read.shape[:2], dtype=torch.int64)  # no pixel is void
    answer = predict_batch(predictor, WholeBatch(read.permute(2, 0, 1)[None], unlabeled, ("",)))
    regions = region_table(predictor, answer, (), SCORES) if with_regions else None
    if regions is not None and regions["region_score"].isna().any():
        raise SettingsError(NO_DISCRIMINATORS)
    both = answer.probabilities
    chosen = both.mean(0) if segmenter == "ensemble" else both[int(segmenter) - 1]
    if chosen.shape[-2:] != image.shape[:2]:
        chosen = F.interpolate(chosen, image.shape[:2], mode="bilinear", align_corners=False)
    labels = chosen[0].argmax(0).byte()
    return Prediction(chosen[0].cpu().numpy(), labels.cpu().numpy(), regions)


def predictor_of(model: RRN, card: RunCard) -> Predictor:
    """Return what looks at images as the run's evaluation does, with weights that stay as they are."""
    return Predictor(model, protocol_of(card)).unchanged()


def protocol_of(card: RunCard) -> Evaluate:
    """Return how images are looked at: as in the run's evaluation.

    In mode pad, an image larger than the window is looked at through several; the others come out the same.
    """
    protocol = card.evaluate
    if protocol.mode != "pad":
        return protocol
    return protocol.model_copy(update={"mode": "sliding", "stride": protocol.window, "last": "shifted"})


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
    taken = Counter(str(path.with_suffix("")) for path in images) + Counter(map(str, images))
    bare = {path: str(path.with_suffix("")) for path in images}
    return {bare[path] if taken[bare[path]] == 1 else str(path): file for path, file in images.items()}


def left_out(paths: Sequence[Path], out: Path) -> list[Path]:
    """Return the files in folders that `find_images` leaves out for their suffix, sorted, by their paths below them."""
    folders = [path.resolve() for path in paths if path.is_dir()]
    files = {file.relative_to(folder) for folder in folders for file in _files(folder, out.resolve())}
    return sorted(file for file in files if not file_formats.has_suffix(file))


def _files(folder: Path, out: Path) -> set[Path]:
    files = {path for path in folder.rglob("*") if path.is_file() and not path.is_relative_to(out)}
    return {path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)}


def _count(paths: Sequence[Path]) -> str:
    named = ", ".join(map(str, paths[:NAMED])) + (" ..." if len(paths) > NAMED else "")
    return f"{len(paths)} {'file' if len(paths) == 1 else 'files'} left out: {named} (images end in {ENDINGS})"


class PredictionWriter:
    """Writes the files of an image that were asked for, whole or not at all; `region`: its side in pixels, as read."""

    def __init__(self, out: Path, card: RunCard, region: int, wanted: Wanted) -> None:
        self.out, self.card, self.region, self.wanted = out, card, region, wanted
        self.colors = palette(len(card.classes), card.colours)

    def write(self, name: str, image: Pixels, prediction: Prediction) -> None:
        """Write the files of one image, RGB uint8 [H, W, 3]."""
        labels = Image.fromarray(prediction.labels)
        labels.putpalette(self.colors.tobytes())
        self._write_png("labels", name, labels)
        if self.wanted.probabilities:
            contents = BytesIO()
            np.savez_compressed(contents, probabilities=prediction.probabilities.astype(np.float16))
            atomic_io.write(self.out / "probabilities" / f"{name}.npz", contents.getvalue())
        blended = Image.blend(Image.fromarray(image), Image.fromarray(self.colors[prediction.labels]), OPACITY)
        if self.wanted.overlay:
            self._write_png("overlays", name, blended)
        if prediction.regions is not None:
            self._write_png("regions", name, self._with_scores(blended, prediction.regions))

    def _with_scores(self, picture: Image.Image, regions: pd.DataFrame) -> Image.Image:
        """Draw the scores of the segmenter that answered; for the ensemble the mean of both."""
        who = self.wanted.segmenter
        both = regions["region_score"].to_numpy().reshape(2, regions["row"].max() + 1, -1)
        scores = both.mean(0) if who == "ensemble" else both[int(who) - 1]
        read = self.card.size or (picture.height, picture.width)
        return draw_scores(
            picture, scores, (self.region * picture.height / read[0], self.region * picture.width / read[1])
        )

    def _write_png(self, kind: str, name: str, picture: Image.Image) -> None:
        contents = BytesIO()
        picture.save(contents, "PNG")
        atomic_io.write(self.out / kind / f"{name}.png", contents.getvalue())


def draw_scores(picture: Image.Image, scores: Array, side: tuple[float, float]) -> Image.Image:
    """Draw the borders of regions and their scores, in a picture enlarged until a score can be read.

    A region that the picture cuts off at its border may be too narrow for its score and stays without.

    Args:
        picture: RGB.
        scores: 0..1, float [rows, columns].
        side: height and width of a region in pixels of the picture.

    Returns:
        RGB, larger than the picture by a whole number.
    """
    factor = math.ceil(READABLE / min(side))
    height, width = (factor * length for length in side)
    result = picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(result)
    letters = min(height, width) / 3
    font = ImageFont.load_default(size=letters)
    for (row, column), score in np.ndenumerate(scores):
        left, top = column * width, row * height
        right, bottom = min(left + width, result.width), min(top + height, result.height)
        pen.rectangle((left, top, right, bottom), outline="white")
        text = f"{score:.2f}"
        if pen.textlength(text, font) < right - left and letters < bottom - top:
            middle = ((left + right) / 2, (top + bottom) / 2)
            pen.text(middle, text, "white", font, anchor="mm", stroke_width=1, stroke_fill="black")
    return result


def label_all(model: RRN, card: RunCard, images: Mapping[str, Path], out: Path, wanted: Wanted) -> list[str]:
    """Label images (of `find_images`) one by one, with a progress bar on stderr, and write the results.

    Returns:
        what was wrong with the images that could not be labeled; the others are done.
    """
    failed, predictor = [], predictor_of(model, card)
    writer = PredictionWriter(out, card, model.region, wanted)
    with csv_files.append_rows(out / "regions.csv", REGION_COLUMNS) if wanted.regions else nullcontext() as append:
        for name, path in tqdm(images.items(), unit="image", file=sys.stderr):
            try:
                image = decoding.colors(decoding.open_upright(path), None)
                prediction = predict(predictor, card, image, wanted.segmenter, wanted.regions)
                writer.write(name, image, prediction)
                if append and prediction.regions is not None:
                    append(prediction.regions.assign(image=name).rename(columns={"region_score": "score"}))
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
    """Return the parser of the command line."""
    reader = argparse.ArgumentParser(
        prog="python -m rrn.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("run", metavar="RUN", type=place, help="folder of a finished run: runs/NAME/train/KEY")
    reader.add_argument("images", metavar="IMAGES", type=place, nargs="+", help="image files, or folders of them")
    reader.add_argument("out", metavar="OUT", type=place, help="folder for the results, made if missing")
    reader.add_argument("--segmenter", choices=get_args(Who), default="ensemble", help="who answers")
    reader.add_argument("--probabilities", action="store_true", help="write the probabilities of the classes too")
    reader.add_argument("--overlay", action="store_true", help="write each image under the colors of its classes too")
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
