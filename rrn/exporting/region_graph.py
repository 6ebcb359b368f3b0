"""What a run's discriminators say of the regions of images, as an ONNX graph; the run is in evaluation mode.

It computes what `RRN.region_scores` does, from the probabilities of segmenters at the size of the image. Masks are
those of `rrn.models.discriminator` where every pixel of the image is valid, and what pads it to whole regions is not.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from rrn.exporting.network import first_segmenter, held_segmenters
from rrn.method import RRN
from rrn.models.discriminator import RegionDiscriminator
from rrn.models.relations import SUREST
from rrn.prediction.exported import BOTH, JUDGED, REGION_SCORES
from rrn.prediction.labeling import Who

PREFIX = "region_"
"""Of the names of its nodes."""
LEAST = 1e-12
"""Probabilities are held above this, before the logarithms of their divergence."""


class Nodes:
    """Nodes of an ONNX graph, which are added by calling it, and the tensors that they use."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def __call__(self, kind: str, *inputs: str | Tensor, out: str | None = None, **attributes: Any) -> str:
        """Add a node.

        Args:
            kind: of the operation, as ONNX calls it.
            inputs: names of values, or tensors that are kept in the graph.
            out: name of what it gives; None: a new one.
            attributes: of the operation.

        Returns:
            the name of what it gives.
        """
        from onnx import helper

        name = f"{PREFIX}{len(self.nodes)}"
        names = [self._kept(value) if isinstance(value, Tensor) else value for value in inputs]
        self.nodes.append(helper.make_node(kind, names, [out or name], name=name, **attributes))
        return out or name

    def _kept(self, weight: Tensor) -> str:
        from onnx import numpy_helper

        name = f"{PREFIX}weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(weight.detach().cpu().numpy(), name))
        return name


def region_graph(model: RRN, who: Who) -> Any:
    """Return an onnx.GraphProto that ends an ONNX file of a run with discriminators.

    Args:
        model: of a finished run, in evaluation mode.
        who: the ensemble, or one segmenter.

    Returns:
        from `answer`, float [K, B, C, >= H, >= W], probabilities of `held_segmenters`; `size`, int64 H and W;
        and `values`, the image as float 0..255 [B, 3, H, W]; to `probabilities`, float [B, C, H, W], and
        `region_scores`, float [B, rows, columns], of who answers: the mean of both for the ensemble. On the way are
        `both`, [K, B, C, H, W], and `judged`, [K, B, rows, columns], of each held segmenter.
    """
    from onnx import TensorProto, helper

    add, known = Nodes(), held_segmenters(model, who)
    add("Slice", "answer", torch.tensor([0, 0]), "size", torch.tensor([3, 4]), out=BOTH)
    _add_answer(add, BOTH, "probabilities", model, who)
    _add_judged(add, model, known)
    _add_answer(add, JUDGED, REGION_SCORES, model, who)
    shapes: dict[str, list[str | int | None]] = {
        "answer": [len(known), "batch", "classes", "padded_height", "padded_width"],
        "values": ["batch", 3, "height", "width"],
        "probabilities": ["batch", "classes", "height", "width"],
        REGION_SCORES: ["batch", "region_rows", "region_columns"],
        BOTH: [len(known), "batch", "classes", "height", "width"],
        JUDGED: [len(known), "batch", "region_rows", "region_columns"],
    }
    said = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    size = helper.make_tensor_value_info("size", TensorProto.INT64, [2])
    inputs, outputs = [said["answer"], size, said["values"]], [said["probabilities"], said[REGION_SCORES]]
    return helper.make_graph(add.nodes, "regions", inputs, outputs, add.weights, value_info=[said[BOTH], said[JUDGED]])


def _add_answer(add: Nodes, apart: str, out: str, model: RRN, who: Who) -> None:
    """Take from what is said of each held segmenter what who answers says."""
    known = held_segmenters(model, who)
    chosen = range(2) if who == "ensemble" else [known.index(int(who) - 1)]
    ends = torch.tensor([chosen[0]]), torch.tensor([chosen[-1] + 1])
    axis = torch.tensor([0])
    add("ReduceMean", add("Slice", apart, *ends, axis), axis, keepdims=0, out=out)


def _add_judged(add: Nodes, model: RRN, known: tuple[int, ...]) -> None:
    """Let the own discriminator of each held segmenter judge its regions."""
    judge = model.row.discriminator
    maps = BOTH if judge.maps == "soft" else _one_hot_of(add, BOTH, model.classes)
    apart = [add("Gather", maps, torch.tensor(at), axis=0) for at in range(len(known))]
    first = first_segmenter(model)
    grid = add("Div", add("Add", "size", torch.tensor(model.region - 1)), torch.tensor(model.region))
    whole = add("Mul", grid, torch.tensor(model.region))
    pads = add("Concat", torch.zeros(6, dtype=torch.int64), add("Sub", whole, "size"), axis=0)
    scores = []
    for at, k in enumerate(known):
        seen = [apart[at], apart[1 - at]] if judge.sees_both else [apart[at]]
        network: Any = model.discriminators[k]
        if isinstance(network, RegionDiscriminator):
            if judge.sees_image:
                shown = add("Div", "values", torch.tensor(255.0))
                seen.append(add("Div", add("Sub", shown, first.mean), first.std))
            logits = _convolutions(add, network, add("Pad", add("Concat", *seen, axis=1), pads), whole, grid)
        else:
            logits = _relations(add, network, seen, pads, model.region, model.classes)
        scores.append(add("Transpose", add("Sigmoid", logits), perm=[1, 0, 2, 3]))
    add("Concat", *scores, axis=0, out=JUDGED)


def _one_hot_of(add: Nodes, maps: str, classes: int) -> str:
    label = add("ArgMax", maps, axis=2, keepdims=1)
    return add("Cast", add("Equal", label, torch.arange(classes).view(-1, 1, 1)), to=1)


def _through(add: Nodes, layers: nn.Sequential, values: str) -> str:
    """Add the layers of a trunk; dropout is none."""
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            values = _convolved(add, layer, values)
        elif isinstance(layer, nn.LeakyReLU):
            values = add("LeakyRelu", values, alpha=layer.negative_slope)
        else:
            assert isinstance(layer, nn.Dropout2d)
    return values


def _convolved(add: Nodes, layer: nn.Conv2d, values: str) -> str:
    assert layer.bias is not None and not isinstance(layer.padding, str)
    pads, strides = [*layer.padding, *layer.padding], [*layer.stride]
    return add("Conv", values, layer.weight, layer.bias, strides=strides, pads=pads)


def _convolutions(add: Nodes, network: RegionDiscriminator, seen: str, whole: str, grid: str) -> str:
    """Return logits [B, 1, rows, columns] of what is padded to whole regions; see RegionDiscriminator."""
    if network.input_stride > 1:
        sides = [network.input_stride] * 2
        seen = add("AveragePool", seen, kernel_shape=sides, strides=sides, ceil_mode=1)
    features = _through(add, network.trunk, seen)
    count = add("Shape", features, start=2)
    (down, seen_down), (right, seen_right) = (_cells(add, axis, count, whole, grid) for axis in range(2))
    up, left = (add("Transpose", members, perm=[1, 0]) for members in (down, right))
    valid = add("Mul", add("Unsqueeze", seen_down, torch.tensor([1])), seen_right)
    missed = add("Cast", add("Equal", _between(add, up, valid, right), torch.tensor(0.0)), to=1)
    weight = add("Max", valid, _between(add, down, missed, left))
    total = add("Max", _between(add, up, weight, right), torch.tensor(1.0))
    mean = add("Div", _between(add, up, add("Mul", features, weight), right), total)
    return _convolved(add, network.head, mean)


def _cells(add: Nodes, axis: int, count: str, whole: str, grid: str) -> tuple[str, str]:
    """Return which cells along one side lie in which region, and which of them see a pixel of the image, as 0 or 1.

    A cell sees pixels from floor(index * whole / count) on, as in adaptive pooling.
    """
    cells, pixels, padded, regions = (
        add("Gather", sizes, torch.tensor(axis)) for sizes in (count, "size", whole, grid)
    )
    start, step = torch.tensor(0), torch.tensor(1)
    index = add("Range", start, cells, step)
    begins, region = (add("Div", add("Mul", index, length), cells) for length in (padded, regions))
    members = add("Equal", add("Unsqueeze", region, torch.tensor([1])), add("Range", start, regions, step))
    return add("Cast", members, to=1), add("Cast", add("Less", begins, pixels), to=1)


def _between(add: Nodes, rows: str, values: str, columns: str) -> str:
    return add("MatMul", add("MatMul", rows, values), columns)


def _relations(add: Nodes, network: nn.Module, seen: list[str], pads: str, side: int, classes: int) -> str:
    """Return logits [B, 1, rows, columns] of the probabilities of both segmenters; see RegionRelationNetwork."""
    label = add("ArgMax", seen[0], axis=1, keepdims=1)
    given = [add("GatherElements", maps, label, axis=1) for maps in seen]
    least = torch.tensor(torch.finfo(torch.float32).tiny)
    most = torch.tensor(-math.log(max(2, classes)))
    spread = [add("Div", _information(add, maps, add("Log", add("Max", maps, least))), most) for maps in seen]
    middle = add("Log", add("Max", add("Mul", add("Add", *seen), torch.tensor(0.5)), torch.tensor(LEAST)))
    logs = (add("Sub", add("Log", add("Max", maps, torch.tensor(LEAST))), middle) for maps in seen)
    parts = [_information(add, maps, log) for maps, log in zip(seen, logs, strict=True)]
    divergence = add("Mul", add("Add", *parts), torch.tensor(0.5))
    ones = add("Add", add("Mul", given[0], torch.tensor(0.0)), torch.tensor(1.0))
    pixels = add("Concat", *seen, *given, *spread, divergence, ones, axis=1)
    pooled = add("AveragePool", add("Pad", pixels, pads), kernel_shape=[side] * 2, strides=[side] * 2)
    share = _channels(add, pooled, 2 * classes + 5, 2 * classes + 6)
    means = add("Div", _channels(add, pooled, 0, 2 * classes + 5), share)
    rival = add("ReduceMean", _channels(add, means, 2 * classes, 2 * classes + 2), torch.tensor([1]), keepdims=1)
    sure = add("Clip", rival, torch.tensor(SUREST), torch.tensor(1 - SUREST))
    odds = add("Log", add("Div", sure, add("Sub", torch.tensor(1.0), sure)))
    trunk, head = network.get_submodule("trunk"), network.get_submodule("head")
    assert isinstance(trunk, nn.Sequential) and isinstance(head, nn.Conv2d)
    return add("Add", _convolved(add, head, _through(add, trunk, add("Concat", means, share, axis=1))), odds)


def _information(add: Nodes, maps: str, logarithms: str) -> str:
    return add("ReduceSum", add("Mul", maps, logarithms), torch.tensor([1]), keepdims=1)


def _channels(add: Nodes, values: str, first: int, last: int) -> str:
    return add("Slice", values, *(torch.tensor([number]) for number in (first, last, 1)))
