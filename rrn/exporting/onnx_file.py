"""The pass as an ONNX file: uint8 images of any size in, probabilities and region scores out.

Needs the extra `export`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from rrn.config import SettingsError
from rrn.models.segmenter import MULTIPLE
from rrn.prediction.exported import NEEDED

OPSET, IR = 20, 10
BEFORE = """
<ir_version: {ir}, opset_import: ["" : {opset}]>
before (uint8[batch, 3, height, width] images)
=> (float[batch, 3, rows, columns] padded, int64[2] size, float[batch, 3, height, width] values)
<int64[2] multiple = {{{multiple}, {multiple}}}, int64[6] none = {{0, 0, 0, 0, 0, 0}}>
{{
  size = Shape <start = 2, end = 4> (images)
  missing = Neg (size)
  added = Mod (missing, multiple)
  pads = Concat <axis = 0> (none, added)
  values = Cast <to = 1> (images)
  centered = Sub (values, color)
  filled = Pad (centered, pads)
  padded = Add (filled, color)
}}
"""
"""Pads with the encoder's mean color, which normalization turns into 0, on the right and below."""
AFTER = """
<ir_version: {ir}, opset_import: ["" : {opset}]>
after (float[batch, classes, rows, columns] answer, int64[2] size)
=> (float[batch, classes, height, width] probabilities)
<int64[2] start = {{0, 0}}, int64[2] axes = {{2, 3}}>
{{
  probabilities = Slice (answer, start, size, axes)
}}
"""


def onnx_model(program: ExportedProgram, mean: Tensor, said: Mapping[str, str], regions: Any = None) -> Any:
    """Return an onnx.ModelProto: uint8 `images` [B, 3, H, W] -> float `probabilities` [B, C, H, W].

    Args:
        program: of `exported_program`.
        mean: color [1, 3, 1, 1] that the encoder takes for 0, in 0..1.
        said: what the file says of itself, `exported.metadata`.
        regions: of `region_graph`, for a program whose segmenters are apart; None: there are no region scores.

    Raises:
        SettingsError: the extra `export` is not installed.
    """
    if not all(find_spec(name) for name in ("onnx", "onnxscript")):
        raise SettingsError(NEEDED)
    import onnx
    from onnx import compose, helper, numpy_helper, parser

    logging.getLogger("torch.onnx").setLevel(logging.WARNING)
    made = torch.onnx.export(
        program, input_names=["padded"], output_names=["answer"], opset_version=OPSET, dynamo=True, verbose=False
    )
    assert made is not None
    core = made.model_proto
    core.ir_version = IR
    words = {"ir": IR, "opset": OPSET, "multiple": MULTIPLE}
    before, after = (parser.parse_model(text.format(**words)) for text in (BEFORE, AFTER))
    before.graph.initializer.append(numpy_helper.from_array((255 * mean).cpu().numpy(), "color"))
    if regions is not None:
        after = helper.make_model(regions, ir_version=IR, opset_imports=after.opset_import)
    joined = compose.merge_models(before, core, [("padded", "padded")])
    passed, outputs = ([value.name for value in values] for values in (after.graph.input, after.graph.output))
    model = compose.merge_models(joined, after, [(name, name) for name in passed], outputs=outputs)
    del model.opset_import[1:]  # each of the three parts brought the same
    model.producer_name = "rrn"
    helper.set_model_props(model, dict(said))
    onnx.checker.check_model(model)
    return model
