"""A model.onnx in place of a run: it says itself which run it is of, and answers through ONNX Runtime, on the CPU."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from rrn.config import SettingsError
from rrn.prediction.labeling import Who
from rrn.runs.finished import RunCard

MODEL = "model.onnx"
BOTH, JUDGED, REGION_SCORES = "both", "judged", "region_scores"
"""Values in a file with region scores: what each segmenter and each discriminator says, and the output."""
NEEDED = "onnx, onnxscript and onnxruntime are missing: `.venv/bin/pip install -e '.[export]' -c requirements.lock`"


NO_REGION_SCORES = (
    "this export has no region scores, since its run has no region discriminators, or it was made before exports had "
    "them: leave --regions out, or export the run again"
)


def find_export(path: Path) -> Path | None:
    """Return the ONNX file that a path names, itself or as the folder of an export; None: the path may be a run."""
    if path.suffix == ".onnx":
        return path
    return path / MODEL if (path / MODEL).is_file() else None


def metadata(card: RunCard, who: Who, mean: Tensor) -> dict[str, str]:
    """Return what an ONNX file says of itself; read by `ExportedModel`.

    Args:
        card: of the run.
        who: whose answer it is.
        mean: color [1, 3, 1, 1] that the encoder takes for 0, in 0..1.
    """
    return {"rrn.run": card.model_dump_json(), "rrn.segmenter": who, "rrn.mean": json.dumps(mean.flatten().tolist())}


def _part(path: Path, inputs: Sequence[str], output: str) -> bytes:
    """Return what leads in an ONNX file from some of its values to another, as a file."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise SettingsError(NEEDED) from error
    extractor = onnx.utils.Extractor(onnx.load(path))
    part: bytes = extractor.extract_model([*inputs], [output]).SerializeToString()
    return part


class OnnxPass:
    """An ONNX file that answers, on the CPU.

    Args:
        path: of an export.
        threads: of the processor; 0: as ONNX Runtime likes.
        part: names of values of the file, and of one that is computed from them, alone; None: the whole file.

    Raises:
        SettingsError: the extra `export` is not installed, or the file is no ONNX file.
    """

    def __init__(self, path: Path, threads: int = 0, part: tuple[Sequence[str], str] | None = None) -> None:
        try:
            import onnxruntime
            from onnxruntime.capi import onnxruntime_pybind11_state as errors
        except ModuleNotFoundError as error:
            raise SettingsError(NEEDED) from error
        refused = (errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf, errors.NoSuchFile)
        self._errors = (errors.Fail, errors.RuntimeException)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        contents = _part(path, *part) if part else path
        try:
            self.session = onnxruntime.InferenceSession(contents, options, providers=["CPUExecutionProvider"])
        except (*refused, errors.NotImplemented, errors.RuntimeException) as error:
            raise SettingsError(f"{path} is missing or damaged ({error}): export the run again") from error
        self.metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        self.outputs = [output.name for output in self.session.get_outputs()]
        self._alone = onnxruntime.RunOptions()
        self._alone.only_execute_path_to_fetches = True

    def __call__(self, *values: Tensor, output: str | None = None) -> Tensor:
        """Return an output, computing no other.

        Args:
            values: of all inputs, in their order: of a whole file uint8 images [B, 3, H, W].
            output: its name; None: the first, of a whole file the probabilities, float32 [B, C, H, W].

        Raises:
            torch.OutOfMemoryError: there is not enough memory.
        """
        names = [known.name for known in self.session.get_inputs()]
        inputs = {name: value.numpy() for name, value in zip(names, values, strict=True)}
        try:
            (answer,) = self.session.run([output or self.outputs[0]], inputs, self._alone)
        except self._errors as error:
            if not re.search("allocate|bad_alloc", str(error)):
                raise
            raise torch.OutOfMemoryError(str(error)) from error
        return torch.from_numpy(answer)


class ExportedModel:
    """An ONNX file that is asked as a run is: a `SegmentationModel`, with one answer where regions are not judged.

    Args:
        path: model.onnx of an export, or model_int8.onnx.
        regions: whether regions are judged; then both segmenters answer, twice the same where the file holds one.

    Attributes:
        segmenter: whose answer the file was made to be.
        answering: who of those that answer here is asked for it; the ensemble of one is that one.
        alone: whether regions are judged of one segmenter, for lack of the other.

    Raises:
        SettingsError: the extra `export` is not installed, it is no file of `python -m rrn.export`, or it has no region
            scores where they are wanted.
    """

    device = torch.device("cpu")

    def __init__(self, path: Path, regions: bool = False) -> None:
        self.answers = OnnxPass(path)
        said = self.answers.metadata
        try:
            self.card = RunCard.model_validate_json(said["rrn.run"])
            self.segmenter = TypeAdapter[Who](Who).validate_python(said["rrn.segmenter"])
            mean = torch.tensor(json.loads(said["rrn.mean"])).reshape(1, 3, 1, 1)
        except (KeyError, ValidationError) as error:
            raise SettingsError(
                f"{path} does not say which run it is of: it was not made by `python -m rrn.export`, or by another "
                "version of it; export the run again"
            ) from error
        assert self.card.networks is not None
        self.region = self.card.networks.region
        normalization = nn.Module()
        normalization.register_buffer("mean", mean)
        self.segmenters = nn.ModuleList([normalization])
        # folded copies are made of the networks of a run
        self.card = self.card.model_copy(update={"evaluate": self.card.evaluate.model_copy(update={"folded": False})})
        self.judges: OnnxPass | None = None
        self.answering: Who = self.segmenter if regions else "ensemble"
        self.alone = False
        if regions:
            if REGION_SCORES not in self.answers.outputs:
                raise SettingsError(NO_REGION_SCORES)
            self.answers = OnnxPass(path, part=(["images"], BOTH))
            self.judges = OnnxPass(path, part=(["images", BOTH], JUDGED))
            self.alone = self.answers.session.get_outputs()[0].shape[0] == 1

    def logits(self, images: Tensor) -> Tensor:
        """Return logarithms of the probabilities, float32 [1 or 2, B, C, H, W], of uint8 images [B, 3, H, W]."""
        answer = self.answers(images)
        logits = answer.clamp_min_(torch.finfo(answer.dtype).tiny).log_()
        return logits.expand(2, *logits.shape[1:]) if self.judges else logits[None]

    def region_scores(self, logits: Tensor, images: Tensor) -> Tensor | None:
        """Return probabilities [2 branches, 1, B, rows, columns] of each branch's own discriminator; or None."""
        if self.judges is None:
            return None
        asked = logits[:1] if self.alone else logits
        scores = self.judges(images, asked.softmax(2))
        return scores.expand(2, *scores.shape[1:])[:, None]

    def require(self, segmenter: Who | None, device: str) -> None:
        """Refuse options of the command line that only a run can follow.

        Raises:
            SettingsError: says what to leave out.
        """
        if segmenter not in (None, self.segmenter):
            raise SettingsError(
                f"this export was made to answer as `--segmenter {self.segmenter}`: leave --segmenter out, or export "
                f"the run again with `--segmenter {segmenter}`"
            )
        if device not in ("auto", "cpu"):
            raise SettingsError(f"--device {device}: an exported model is run on the CPU; leave --device out")
