"""The command line of exports: `python -m rrn.export RUN OUT`.

OUT is a new folder. It holds all that other programs need, and is made whole or not at all:

    OUT/README.md                    the model card: what was trained on what, and how good it is
    OUT/model.onnx, OUT/model.pt2    one pass, for ONNX (with region scores if the run has them) and torch.export
    OUT/model_int8.onnx              --int8: with weights and activations of 8 bits; the card says what that costs
    OUT/segmenter_1, segmenter_2     for segmentation_models_pytorch.from_pretrained, and so for the Hub
    OUT/run.json                     which run it is

Every file but that of --int8 is asked about the same images as the run itself, and must give the same probabilities
and region scores, to 0.0001. `python -m rrn.predict OUT IMAGES...` labels images with it.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, get_args

import segmentation_models_pytorch as smp
import torch
from torch import Tensor
from torch.export import ExportedProgram

from rrn.config import SettingsError
from rrn.data.decoding import DataError
from rrn.data.formats.base import require_empty
from rrn.exporting import model_card, network, onnx_file, quantization, region_graph
from rrn.exporting.model_card import CardWords
from rrn.method import RRN
from rrn.models.segmenter import MULTIPLE, Segmenter
from rrn.prediction import exported
from rrn.prediction.exported import ExportedModel
from rrn.prediction.labeling import Who
from rrn.runs import finished
from rrn.runtime import atomic_io
from rrn.runtime.places import place

TOLERANCE = 1e-4
"""By which a probability may differ."""
SIZES = ((2, 2 * MULTIPLE, 3 * MULTIPLE), (1, 50, 71))
"""Images, height and width of what an export is asked about; the second is none of `model.pt2`."""


class ExportError(RuntimeError):
    """An export does not answer as the run does."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    arguments = parser().parse_args(argv)
    try:
        words = CardWords(arguments.data, arguments.license)
        export_run(arguments.run, arguments.out, arguments.segmenter, words, arguments.int8)
    except (DataError, SettingsError, ExportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.out}: {', '.join(sorted(path.name for path in arguments.out.iterdir()))}; read README.md")
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    reader = argparse.ArgumentParser(
        prog="python -m rrn.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("run", metavar="RUN", type=place, help="folder of a finished run: runs/NAME/train/KEY")
    reader.add_argument("out", metavar="OUT", type=place, help="a new folder")
    reader.add_argument("--segmenter", choices=get_args(Who), default="ensemble", help="who answers")
    reader.add_argument("--int8", action="store_true", help="write model_int8.onnx too; needs the data of the run")
    reader.add_argument("--data", help="for the card: what it was trained on, and what its license asks for")
    reader.add_argument("--license", help="for the card: of the weights, as the Hub spells it, such as cc-by-nc-4.0")
    return reader


def export_run(run: Path, out: Path, who: Who, words: CardWords | None = None, int8: bool = False) -> None:
    """Write the folder of an export.

    Args:
        run: of a finished training.
        out: a folder that does not exist, or is empty.
        who: whose answer the single files are.
        words: for the card, what only the user knows.
        int8: whether model_int8.onnx is written.

    Raises:
        DataError: OUT holds something.
        SettingsError: RUN is no finished training, or the extra `export` is missing, or for `int8` the data of the run.
        ExportError: an export answers otherwise than the run; then nothing is written.
        OSError: the disk is full, or OUT cannot be written.
    """
    require_empty(out)
    model, card = finished.load_finished(run, "cpu")
    first = network.first_segmenter(model)
    images = quantization.images_of_run(run.resolve()) if int8 else None
    with atomic_io.folder(out.resolve()) as folder:
        program = network.exported_program(model, who)
        torch.export.save(program, folder / "model.pt2")
        said = exported.metadata(card, who, first.mean)
        (folder / exported.MODEL).write_bytes(_onnx(model, who, program, said).SerializeToString())
        for k, segmenter in enumerate(model.segmenters, start=1):
            _write_segmenter(segmenter, folder / f"segmenter_{k}")
        _require_same(model, folder, who)
        shutil.copyfile(run / finished.CARD, folder / finished.CARD)
        cost = _quantized(folder, images) if images else None
        facts = model_card.gather(run.resolve(), card)
        text = model_card.model_card(card, facts, who, _normalization(model), words or CardWords(), cost)
        (folder / "README.md").write_text(text, encoding="utf-8")


def _onnx(model: RRN, who: Who, program: ExportedProgram, said: dict[str, str]) -> Any:
    """Return model.onnx, of the same program where there are no discriminators."""
    mean = network.first_segmenter(model).mean
    if not model.discriminators:
        return onnx_file.onnx_model(program, mean, said)
    asked: Who = "ensemble" if len(network.held_segmenters(model, who)) == 2 else who
    apart = network.exported_program(model, asked, apart=True)
    return onnx_file.onnx_model(apart, mean, said, region_graph.region_graph(model, who))


def _quantized(folder: Path, images: quantization.RunImages) -> quantization.Cost:
    """Write model_int8.onnx and return what it costs."""
    full, smaller = folder / exported.MODEL, folder / quantization.MODEL
    quantization.quantize(full, smaller, images.labeled)
    return quantization.measure_cost(full, smaller, images.val)


def _write_segmenter(segmenter: Any, folder: Path) -> None:
    """Write what segmentation_models_pytorch's from_pretrained reads, without its card, which states a license."""
    segmenter.network.to(memory_format=torch.contiguous_format).save_pretrained(folder)
    (folder / "README.md").write_text(
        "One of two segmenters: `segmentation_models_pytorch.from_pretrained(FOLDER)`. The card is one folder up.\n",
        encoding="utf-8",
    )


def _normalization(model: RRN) -> str:
    """Say how images are normalized for the first segmenter and, where that differs, for the second."""
    said = []
    for segmenter in model.segmenters:
        mean, std = ([round(v, 4) for v in segmenter.get_buffer(part).flatten().tolist()] for part in ("mean", "std"))
        said.append(f"(image / 255 - {mean}) / {std}")
    return ", for the second ".join(dict.fromkeys(said))


def _require_same(model: RRN, folder: Path, who: Who) -> None:
    """Compare all that was written with the run, on images by chance.

    Raises:
        ExportError: a probability or a region score differs by more than TOLERANCE.
    """
    generator = torch.Generator().manual_seed(0)
    program = torch.export.load(folder / "model.pt2").module()
    answers = exported.OnnxPass(folder / exported.MODEL)
    judging = ExportedModel(folder / exported.MODEL, regions=True) if model.discriminators else None
    segmenters = [part for part in model.segmenters if isinstance(part, Segmenter)]
    for count, height, width in SIZES:
        images = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)
        own = network.own_answer(model, who, images)
        _require_close("model.onnx", answers(images), own)
        if judging:
            _require_same_regions(model, who, images, judging, answers(images, output=exported.REGION_SCORES))
        if height % MULTIPLE == 0 and width % MULTIPLE == 0:
            _require_close("model.pt2", program(images.float()), own)
            for k, segmenter in enumerate(segmenters, start=1):
                with redirect_stdout(StringIO()):  # it says where weights come from
                    alone = smp.from_pretrained(folder / f"segmenter_{k}").eval()
                logits = alone(segmenter.normalize(images))
                _require_close(f"segmenter_{k}", logits.softmax(1), model.logits(images)[k - 1].softmax(1))


def _require_same_regions(model: RRN, who: Who, images: Tensor, judging: ExportedModel, answer: Tensor) -> None:
    """Compare both segmenters' probabilities, and what the run says of the regions of the same ones.

    Of the same, because a discriminator may see labels, which differ where two classes are as probable.
    """
    logits, known = judging.logits(images), [*network.held_segmenters(model, who)]
    _require_close("model.onnx", logits[known].exp(), model.logits(images)[known].softmax(2))
    scores = model.region_scores(logits, images)
    assert scores is not None
    own = scores[:, 0].mean(0) if who == "ensemble" else scores[int(who) - 1, 0]
    _require_close("model.onnx", answer, own, "region scores")


def _require_close(name: str, answer: Tensor, own: Tensor, what: str = "probabilities") -> None:
    furthest = float((answer - own).detach().abs().max()) if answer.shape == own.shape else math.inf
    if not furthest <= TOLERANCE:
        raise ExportError(
            f"{name} gives {what} that differ by {furthest:.2g} from those of the run, more than {TOLERANCE}; "
            "nothing was written; please report it with run.json"
        )
