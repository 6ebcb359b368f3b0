"""Padding by numbers, where timm computes it from the size of each input ("SAME", of TensorFlow).

torch.export would carry a formula of the image's size through all layers, which takes minutes, and some formulas no
file of it can hold. Where an image's sides are multiples of all strides together, the formula is a number.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from timm.layers import AvgPool2dSame, Conv2dSame
from timm.layers.pool2d_same import MaxPool2dSame
from torch import Tensor, nn

PLAIN: dict[type[nn.Module], tuple[type[nn.Module], float]] = {
    Conv2dSame: (nn.Conv2d, 0.0),
    AvgPool2dSame: (nn.AvgPool2d, 0.0),
    MaxPool2dSame: (nn.MaxPool2d, float("-inf")),
}
"""Layer of timm's -> the same layer without padding of its own, and with what it is padded."""


class FixedPadding(nn.Module):
    """A layer that pads by numbers: the same for inputs whose sides are multiples of its stride.

    Args:
        layer: one of PLAIN, with weights, stride and dilation.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer
        self.plain, self.value = PLAIN[type(layer)]
        self.padding: list[int] = []  # left, right, above, below
        for side in (1, 0):
            dilation = getattr(layer, "dilation", (1, 1))[side]
            missing = max((layer.kernel_size[side] - 1) * dilation + 1 - layer.stride[side], 0)
            self.padding += [missing // 2, missing - missing // 2]

    def forward(self, values: Tensor) -> Tensor:
        """Return what the layer gives of values [B, K, H, W]."""
        padded = F.pad(values, self.padding, value=self.value)
        answer: Tensor = self.plain.forward(self.layer, padded)
        return answer


def fix_padding(network: nn.Module) -> None:
    """Let every such layer of a network pad by numbers."""
    for name, part in list(network.named_modules()):
        if type(part) in PLAIN:
            network.set_submodule(name, FixedPadding(part))
