"""Label images and videos with a finished run: `python -m rrn.predict RUN IMAGES... OUT`.

RUN is the folder of a run, or of an export, or its model.onnx. Images may have any size, and each is labeled alone; one
of more than 4 million pixels in tiles. Files are named in OUT by their path below the folder that holds them all,
without suffix; those that differ in nothing else keep theirs. A frame of a video is called <video>/<number>.

    OUT/labels/<name>.png            palette PNG: a pixel is the index of its class, shown in the color of the class
    OUT/probabilities/<name>.npz     --probabilities: `probabilities`, float16 [C, H, W]
    OUT/overlays/<name>.png          --overlay: the image under the colors of its classes; of a video <name>.mp4
    OUT/regions/<name>.png           --regions: the same with the regions and their scores
    OUT/regions.csv                  --regions: image, segmenter, row, column, score, confidence, agreement
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

import pandas as pd
from tqdm import tqdm

from rrn.config import SettingsError
from rrn.data import decoding
from rrn.data.decoding import DataError, Pixels
from rrn.evaluation.inference import EvaluationShortage, SegmentationModel
from rrn.models import device
from rrn.prediction import exported, files, labeling, videos
from rrn.prediction.exported import ExportedModel
from rrn.prediction.labeling import NO_DISCRIMINATORS, SCORES, Prediction, Wanted, Who
from rrn.prediction.writing import PredictionWriter
from rrn.runs import finished
from rrn.runs.finished import RunCard
from rrn.runtime import atomic_io, csv_files
from rrn.runtime.places import place

REGION_COLUMNS = ("image", "segmenter", "row", "column", "score", *SCORES[1:])


class Labeler:
    """Labels files one by one and writes what was asked for.

    Args:
        model, card: of a run or an export.
        out: folder for the results.
        wanted: what is asked for.

    Attributes:
        tiled: how many images were labeled in tiles.
    """

    def __init__(self, model: SegmentationModel, card: RunCard, out: Path, wanted: Wanted) -> None:
        self.card, self.out, self.wanted = card, out, wanted
        self.predictor = labeling.predictor_of(model, card)
        self.writer = PredictionWriter(out, card, model.region, wanted)
        self.tiled = 0
        self._append: Callable[[pd.DataFrame], None] | None = None

    def label_all(self, found: Mapping[str, Path]) -> list[str]:
        """Label files (of `files.find_files`), with a progress bar on stderr.

        Returns:
            what was wrong with the files that could not be labeled; the others are done.
        """
        failed = []
        with ExitStack() as stack:
            if self.wanted.regions:
                self._append = stack.enter_context(csv_files.append_rows(self.out / "regions.csv", REGION_COLUMNS))
            for name, path in tqdm(found.items(), unit="file", file=sys.stderr):
                try:
                    (self._label_video if files.is_video(path) else self._label_image)(name, path)
                except DataError as error:
                    failed.append(str(error))
                except (EvaluationShortage, MemoryError) as error:
                    failed.append(f"{path} does not fit into memory: {error}")
        return failed

    def _label_image(self, name: str, path: Path) -> None:
        image = decoding.colors(decoding.open_image(path, "apply"), None)
        self.tiled += labeling.is_tiled(self.card, (image.shape[0], image.shape[1]), self.wanted)
        prediction = self._label(name, image)
        if self.wanted.overlay:
            self.writer.write_png("overlays", name, self.writer.overlay(image, prediction))

    def _label_video(self, name: str, path: Path) -> None:
        """Label the frames of a video; of one that is cut off, those that are there."""
        video, broken = videos.Video(path), None
        target = self.out / "overlays" / f"{name}{videos.ENDING}"
        with ExitStack() as stack:
            overlays = None
            try:
                for frame in tqdm(video.frames(), name, video.count, unit="frame", file=sys.stderr, leave=False):
                    prediction = self._label(f"{name}/{frame.number}", frame.picture)
                    if self.wanted.overlay:
                        overlays = overlays or stack.enter_context(videos.write_video(target))
                        overlays.add(self.writer.overlay(frame.picture, prediction), frame.seconds)
            except (DataError, EvaluationShortage, MemoryError) as error:
                broken = error  # what there is of the overlay is kept
        if broken:
            raise broken

    def _label(self, name: str, image: Pixels) -> Prediction:
        """Label an image or a frame, and write all but its overlay."""
        prediction = labeling.predict(self.predictor, self.card, image, self.wanted)
        self.writer.write(name, image, prediction)
        if self._append and prediction.regions is not None:
            self._append(prediction.regions.assign(image=name).rename(columns={"region_score": "score"}))
        return prediction


def open_model(path: Path, options: argparse.Namespace) -> tuple[SegmentationModel, RunCard]:
    """Read a run or an export, and refuse options that it cannot follow.

    Raises:
        SettingsError: it is neither, or an option is not for it.
    """
    if options.device.startswith("meta"):
        raise SettingsError(device.NO_DEVICE.format(options.device))
    if file := exported.find_export(path):
        answering = ExportedModel(file, options.regions)
        answering.require(options.segmenter, options.device)
        return answering, answering.card
    model, card = finished.load_finished(path, options.device)
    if options.regions and not model.discriminators:
        raise SettingsError(NO_DISCRIMINATORS)
    return model, card


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    reader = argparse.ArgumentParser(
        prog="python -m rrn.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument(
        "run", metavar="RUN", type=place, help="folder of a finished run, runs/NAME/train/KEY, or of an export"
    )
    reader.add_argument(
        "images", metavar="IMAGES", type=place, nargs="+", help="files of images and videos, or folders of them"
    )
    reader.add_argument("out", metavar="OUT", type=place, help="folder for the results, made if missing")
    reader.add_argument("--segmenter", choices=get_args(Who), help="who answers; if left out, the ensemble")
    reader.add_argument("--probabilities", action="store_true", help="write the probabilities of the classes too")
    reader.add_argument("--overlay", action="store_true", help="write each image under the colors of its classes too")
    reader.add_argument("--regions", action="store_true", help="write the region scores too, as a table and drawn")
    reader.add_argument("--whole", action="store_true", help="look at large images in one piece, too")
    reader.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda or cuda:N")
    reader.add_argument("--force", action="store_true", help="replace files in OUT")
    return reader


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 1 if nothing, or not every file, could be labeled."""
    options = parser().parse_intermixed_args(argv)
    try:
        files.require_free(options.out, options.force)
        model, card = open_model(options.run, options)
        found, others = files.find_files(options.images, options.out), files.left_out(options.images, options.out)
        if any(map(files.is_video, found.values())):
            videos.require_library()
        who: Who = model.answering if isinstance(model, ExportedModel) else options.segmenter or "ensemble"
        alone = isinstance(model, ExportedModel) and model.alone
        wanted = Wanted(who, options.probabilities, options.overlay, options.regions, options.whole, alone)
        labeler = Labeler(model, card, options.out, wanted)
        failed = labeler.label_all(found)
    except (SettingsError, DataError, atomic_io.WriteError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error}; make room in {options.out} or name a folder that can be written", file=sys.stderr)
        return 1
    print(f"{len(found) - len(failed)} of {len(found)} files labeled: {options.out / 'labels'}")
    if labeler.tiled:
        print(f"{labeler.tiled} of more than {labeling.LARGEST} pixels in tiles; --whole looks at them in one piece")
    if others:
        print(others)
    for message in failed:
        print(f"error: {message}", file=sys.stderr)
    return 1 if failed else 0
