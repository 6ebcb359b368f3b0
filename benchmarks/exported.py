"""An exported ensemble in ONNX Runtime beside the run itself: one image of 320 x 240 pixels on the CPU.

    python benchmarks/run.py exported

Random weights, fp32, 2 threads each. The run answers as `rrn.predict` asks it: `Predictor` on whole images, weights
that stay as they are. Every answer agrees to 0.0001. Ratios below 1: ONNX is faster.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from measuring import Row, alternating, ratio, row
from training import CLASSES, RESNET50, TINY, settings

from rrn.evaluation.inference import Predictor
from rrn.exporting.network import exported_program, own_answer
from rrn.exporting.onnx_file import onnx_model
from rrn.method import RRN
from rrn.prediction.exported import OnnxPass

THREADS, ROUNDS, TOLERANCE = 2, 15, 1e-4
SIZE = (240, 320)
"""Height and width."""
EMBEDDED = "embedded"
"""The network of params.yaml."""


def rows(quick: bool) -> list[Row]:
    """Measure each network, or the tiny one alone."""
    networks = {"tiny": TINY} if quick else {EMBEDDED: {}, "ResNet-50": {"model": RESNET50}}
    return [found for name, change in networks.items() for found in measured(name, change, 2 if quick else ROUNDS)]


def measured(name: str, change: dict[str, object], rounds: int) -> list[Row]:
    """Return seconds of both, and their ratio, round by round."""
    torch.set_num_threads(THREADS)
    known = settings("cps_cutmix", change)
    model = RRN(known, CLASSES, 0, pretrained=False)
    predictor = Predictor(model, known.evaluate).unchanged()
    images = torch.randint(256, (1, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        made = onnx_model(exported_program(model, "ensemble"), model.segmenters[0].mean, {})
        path.write_bytes(made.SerializeToString())
        exported = OnnxPass(path, THREADS)
    furthest = (exported(images) - own_answer(model, "ensemble", images)).abs().max()
    assert furthest <= TOLERANCE, f"{name}: ONNX differs by {furthest}"
    seconds = alternating(
        {"run": lambda: predictor.logits(images).softmax(2).mean(0), "onnx": lambda: exported(images)}, rounds
    )
    return [
        *(row(name, measure, "s", values) for measure, values in seconds.items()),
        ratio(name, "onnx / run", seconds["onnx"], seconds["run"]),
    ]
