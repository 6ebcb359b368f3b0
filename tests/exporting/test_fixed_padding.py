"""Padding by numbers is padding by formula, for the sizes that an export is asked about."""

import pytest
import torch
from timm.layers import AvgPool2dSame, Conv2dSame
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn

from rrn.exporting.fixed_padding import FixedPadding, fix_padding

LAYERS = [
    *(
        Conv2dSame(3, 4, kernel, stride, dilation=d)
        for kernel, stride, d in [(3, 2, 1), (5, 2, 1), (1, 2, 1), (3, 1, 2)]
    ),
    *(Conv2dSame(3, 4, (3, 5), (2, 1)), Conv2dSame(3, 3, 2, 2, groups=3, bias=False)),
    *(AvgPool2dSame(2, 1), AvgPool2dSame(3, 2), MaxPool2dSame(3, 2), MaxPool2dSame(2, 2)),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("size", [(8, 8), (2, 6), (32, 64)])
def test_it_is_the_same_for_sides_that_are_multiples_of_the_stride(layer, size):
    values = torch.randn(2, 3, *size) - 3  # below 0, so that a pooling of zeros would show
    torch.testing.assert_close(FixedPadding(layer)(values), layer(values), atol=0, rtol=0)


def test_every_such_layer_is_found_and_no_other():
    network = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Sequential(Conv2dSame(3, 3, 3, 2), nn.MaxPool2d(2)))
    fix_padding(network)
    assert [type(part) for part in (network[0], *network[1])] == [nn.Conv2d, FixedPadding, nn.MaxPool2d]
