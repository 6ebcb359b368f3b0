"""A model.onnx in place of a run: it says itself which run it is of, and answers through ONNX Runtime, on the CPU."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from rrn.config import SettingsError
from rrn.prediction.labeling import Who
from rrn.runs.finished import RunCard

MODEL = "model.onnx"
NEEDED = "onnx, onnxscript and onnxruntime are missing: `.venv/bin/pip install -e '.[export]' -c requirements.lock`"


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


class OnnxPass:
    """An ONNX file that answers, on the CPU.

    Args:
        path: of an export.
        threads: of the processor; 0: as ONNX Runtime likes.

    Raises:
        SettingsError: the extra `export` is not installed, or the file is no ONNX file.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        try:
            import onnxruntime
            from onnxruntime.capi import onnxruntime_pybind11_state as errors
        except ModuleNotFoundError as error:
            raise SettingsError(NEEDED) from error
        refused = (errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf, errors.NoSuchFile)
        self._errors = (errors.Fail, errors.RuntimeException)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except (*refused, errors.NotImplemented, errors.RuntimeException) as error:
            raise SettingsError(f"{path} is missing or damaged ({error}): export the run again") from error
        self.metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map

    def __call__(self, images: Tensor) -> Tensor:
        """Return probabilities float32 [B, C, H, W] of uint8 images [B, 3, H, W].

        Raises:
            torch.OutOfMemoryError: there is not enough memory.
        """
        try:
            (answer,) = self.session.run(["probabilities"], {"images": images.numpy()})
        except self._errors as error:
            if not re.search("allocate|bad_alloc", str(error)):
                raise
            raise torch.OutOfMemoryError(str(error)) from error
        return torch.from_numpy(answer)


class ExportedModel:
    """An ONNX file that is asked as a run is: a `SegmentationModel` with one answer and no region scores.

    Args:
        path: model.onnx of an export, or model_int8.onnx.

    Raises:
        SettingsError: the extra `export` is not installed, or it is no file of `python -m rrn.export`.
    """

    device = torch.device("cpu")

    def __init__(self, path: Path) -> None:
        self.answers = OnnxPass(path)
        said = self.answers.metadata
        try:
            self.card, self.segmenter = RunCard.model_validate_json(said["rrn.run"]), said["rrn.segmenter"]
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

    def logits(self, images: Tensor) -> Tensor:
        """Return logarithms of the probabilities, float32 [1, B, C, H, W], of uint8 images [B, 3, H, W]."""
        answer = self.answers(images)
        return answer.clamp_min_(torch.finfo(answer.dtype).tiny).log_()[None]

    def region_scores(self, logits: Tensor, images: Tensor) -> Tensor | None:
        """Return None: regions are judged by the run alone."""
        return None

    def require(self, segmenter: Who | None, regions: bool, device: str) -> None:
        """Refuse options of the command line that only a run can follow.

        Raises:
            SettingsError: says what to leave out.
        """
        if segmenter not in (None, self.segmenter):
            raise SettingsError(
                f"this export was made to answer as `--segmenter {self.segmenter}`: leave --segmenter out, or export "
                f"the run again with `--segmenter {segmenter}`"
            )
        if regions:
            raise SettingsError("an exported model has no region scores: leave --regions out, or name the run itself")
        if device not in ("auto", "cpu"):
            raise SettingsError(f"--device {device}: an exported model is run on the CPU; leave --device out")
