"""Batch norm folded into the convolution before it: one pass over the activations less, the same up to rounding.

In evaluation mode batch norm is x w + b of each channel, with fixed w and b, and so a part of the convolution. Which
convolution feeds which norm is read off a pass through the network, not off names or the order of modules, so any
architecture and encoder will do; a norm without a convolution of its own stays as it is. The new weights are laid out
channels last, and so are the activations, up to the class maps, which lie plane by plane.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from segmentation_models_pytorch.base import SegmentationHead
from timm.layers import BatchNormAct2d, SyncBatchNormAct
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PLAIN = (nn.BatchNorm2d, nn.SyncBatchNorm)
WITH_ACTIVATION = (BatchNormAct2d, SyncBatchNormAct)
"""The norms that can be folded: nothing is left of the first, the dropout and activation of the second."""


class Segmented(Protocol):
    """What has segmenters."""

    segmenters: nn.ModuleList


@dataclass(frozen=True)
class Fold:
    """A convolution of a network and the norm behind it, and the convolution of its copy that does the work of both."""

    convolution: nn.Conv2d
    norm: nn.BatchNorm2d | nn.SyncBatchNorm
    both: nn.Conv2d

    @torch.no_grad()
    def renew(self) -> None:
        """Compute the weights of both from those that the two have now."""
        convolution, norm, both = self.convolution, self.norm, self.both
        assert norm.running_mean is not None and norm.running_var is not None and both.bias is not None
        factor = (norm.running_var + norm.eps).rsqrt()
        factor = factor if norm.weight is None else factor * norm.weight
        moved = -norm.running_mean if convolution.bias is None else convolution.bias - norm.running_mean
        moved = moved * factor
        torch.mul(convolution.weight, factor.view(-1, 1, 1, 1), out=both.weight.detach())
        both.bias.copy_(moved if norm.bias is None else moved + norm.bias)


class Folding:
    """Lends a model folded copies of its segmenters, which follow their weights.

    Args:
        model: whose segmenters; they themselves are never changed.
    """

    def __init__(self, model: Segmented) -> None:
        self.model = model
        self._copies, self._folds = nn.ModuleList(), list[Fold]()
        self._tensors: list[Tensor] = []

    @contextmanager
    def lent(self, height: int, width: int, unchanged: bool = False) -> Iterator[None]:
        """Let the model have folded segmenters inside, of the weights it has now, and its own again afterwards.

        Args:
            height: of the images that they will see; a pass of this size shows what can be folded.
            width: the same.
            unchanged: the caller knows that no weight has changed since they were lent before. Otherwise weights are
                computed anew: nothing tells that they have not changed, as fused optimizers do not count versions.
        """
        own = self.model.segmenters
        if not unchanged:
            self._follow(own, height, width)
        self.model.segmenters = self._copies
        try:
            yield
        finally:
            self.model.segmenters = own

    def _follow(self, segmenters: nn.ModuleList, height: int, width: int) -> None:
        """Renew the weights of the copies; make new copies where the segmenters have other tensors than before."""
        tensors = [*segmenters.parameters(), *segmenters.buffers()]
        if not self._copies or not _same(tensors, self._tensors):
            made = [folded(segmenter, height, width) for segmenter in segmenters]
            self._copies = nn.ModuleList(copied for copied, _ in made)
            self._folds = [fold for _, folds in made for fold in folds]
            self._tensors = tensors
        for fold in self._folds:
            fold.renew()


def _same(tensors: list[Tensor], others: list[Tensor]) -> bool:
    """Say whether two lists hold the very same tensors, whatever is in them."""
    return len(tensors) == len(others) and all(a is b for a, b in zip(tensors, others, strict=True))


def folded(network: nn.Module, height: int, width: int) -> tuple[nn.Module, list[Fold]]:
    """Copy a network for evaluation, batch norm to be folded into its convolutions where that is possible.

    Args:
        network: takes float images [B, 3, H, W]. It is not changed; what is not folded shares its weights.
        height: of the images that it will see.
        width: the same.

    Returns:
        The copy, and what has to be renewed before it answers.
    """
    tensors = [*network.parameters(), *network.buffers()]
    copied = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors}).eval()
    for head in copied.modules():
        if isinstance(head, SegmentationHead):
            head.get_submodule("0").register_forward_hook(_plane_by_plane)
    return copied, [_fold(network, copied, *pair) for pair in pairs(network, height, width)]


def _plane_by_plane(_: nn.Module, __: Any, maps: Tensor) -> Tensor:
    """Lay class maps out so that enlarging and comparing them is fast."""
    return maps.contiguous()


def _fold(network: nn.Module, copied: nn.Module, convolution: str, norm: str) -> Fold:
    """Take a norm out of the copy of a network, and give its convolution room for weights of its own."""
    before, after, both = (
        network.get_submodule(convolution),
        network.get_submodule(norm),
        copied.get_submodule(convolution),
    )
    assert isinstance(before, nn.Conv2d) and isinstance(after, PLAIN) and isinstance(both, nn.Conv2d)
    weight = torch.empty_like(before.weight, memory_format=torch.channels_last)
    both.weight = nn.Parameter(weight, requires_grad=False)
    both.bias = nn.Parameter(weight.new_empty(len(weight)), requires_grad=False)
    left = [part for part in ("drop", "act") if type(after) in WITH_ACTIVATION and hasattr(after, part)]
    copied.set_submodule(norm, nn.Sequential(*(copied.get_submodule(f"{norm}.{part}") for part in left)))
    return Fold(before, after, both)


def pairs(network: nn.Module, height: int, width: int) -> list[tuple[str, str]]:
    """Name the convolutions whose output goes to a batch norm and nowhere else, and these norms.

    Args:
        network: takes float images [B, 3, H, W]; it is not changed.
        height: of the images.
        width: the same.
    """
    twin = copy.deepcopy(network).to("meta", torch.float32).eval()
    with torch.no_grad(), _Trace() as trace:
        trace.use(twin(torch.empty(1, 3, height, width, device="meta")))
    convolutions = {id(m.weight): name for name, m in twin.named_modules() if isinstance(m, nn.Conv2d)}
    norms = {id(m.running_mean): name for name, m in twin.named_modules() if type(m) in PLAIN + WITH_ACTIVATION}
    return [
        (convolutions[id(weight)], norms[id(mean)])
        for weight, output, mean in trace.normalized
        if id(weight) in convolutions and id(mean) in norms and trace.once(weight, output, mean)
    ]


class _Trace(TorchDispatchMode):
    """Notes what happens in a pass: how often a tensor is used, and what batch norm gets from a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.normalized: list[tuple[Tensor, Tensor, Tensor]] = []
        """Weight of the convolution, its output, running mean of the norm."""
        self._weights: dict[int, Tensor] = {}
        self._uses: Counter[int] = Counter()
        self._held: list[Tensor] = []  # as long as a tensor is held, its id is its own

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        """Do what is asked for, and note it."""
        result = function(*arguments, **(keywords or {}))
        self.use(arguments, keywords)
        if function is torch.ops.aten.convolution.default:
            self._weights[id(result)] = arguments[1]
            self._held.append(result)
        elif function is torch.ops.aten.native_batch_norm.default:
            image, _, _, mean = arguments[:4]
            if id(image) in self._weights:
                self.normalized.append((self._weights[id(image)], image, mean))
        return result

    def use(self, *values: Any) -> None:
        """Count the tensors in values as used once more."""
        tensors = [value for value in tree_leaves(values) if isinstance(value, Tensor)]
        self._held += tensors
        self._uses.update(id(tensor) for tensor in tensors)

    def once(self, *tensors: Tensor) -> bool:
        """Say whether each tensor is used once in the pass."""
        return all(self._uses[id(tensor)] == 1 for tensor in tensors)
