"""Batch norm folded into convolutions: the same answers, whatever the network, and the network itself as it was."""

import copy

import pytest
import tiny
import torch
from timm.layers import BatchNormAct2d, SyncBatchNormAct, convert_sync_batchnorm
from torch import nn

from rrn import config
from rrn.models import folding
from rrn.models.folding import PLAIN, WITH_ACTIVATION, Folding, pairs
from rrn.models.segmenter import Segmenter

NORMS = PLAIN + WITH_ACTIVATION


def statistics(network, seed=0):
    """Give all norms weights and statistics that matter."""
    draw = torch.Generator().manual_seed(seed)
    for norm in network.modules():
        if isinstance(norm, NORMS):
            channels = norm.num_features
            norm.running_mean.copy_(torch.randn(channels, generator=draw) / 5)
            norm.running_var.copy_(torch.rand(channels, generator=draw) + 0.5)
            if norm.weight is not None:
                norm.weight.data.copy_(torch.rand(channels, generator=draw) + 0.5)
                norm.bias.data.copy_(torch.randn(channels, generator=draw) / 5)
    return network


def images(height=64, width=96, seed=0):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


def norms(network):
    return [module for module in network.modules() if isinstance(module, NORMS)]


def folded(network, height, width):
    """Return the folded copy, ready to answer."""
    found, folds = folding.folded(network, height, width)
    for fold in folds:
        fold.renew()
    return found


@torch.no_grad()
def require_same(network, left):
    """The folded network answers as the network does; `left` norms are left."""
    network = statistics(network).double().eval()
    found = folded(network, 64, 96)
    expected = network(images().double())
    assert expected.std() > 1e-6
    torch.testing.assert_close(found(images().double()), expected, rtol=1e-9, atol=1e-9 * float(expected.std()))
    assert len(norms(found)) == left


# ---- Networks of every kind


@pytest.mark.parametrize(
    ("architecture", "encoder", "left"),
    [
        ("DeepLabV3Plus", "tu-test_efficientnet", 0),  # norm and activation are one module
        ("DeepLabV3Plus", "tu-resnet10t", 0),
        ("DeepLabV3", "tu-resnet10t", 0),
        ("Unet", "resnet18", 0),
        ("FPN", "tu-test_efficientnet", 0),
        ("PSPNet", "tu-mobilenetv3_small_050", 0),
        ("Linknet", "resnet18", 5),  # behind transposed convolutions
    ],
)
def test_the_norms_of_a_segmenter_are_folded(architecture, encoder, left):
    model = {"architecture": architecture, "encoder": encoder, "output_stride": 16, "decoder_channels": 8}
    settings = tiny.settings(changes={"model": {**model, "atrous_rates": [1, 2, 3], "weights": None}})
    require_same(Segmenter(settings.model, 3), left)


def test_synchronized_norms_are_folded():
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), BatchNormAct2d(4)]
    network = convert_sync_batchnorm(nn.Sequential(*layers))
    assert [type(norm) for norm in norms(network)] == [nn.SyncBatchNorm, SyncBatchNormAct]
    require_same(network, left=0)
    require_same(nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(*layers)), left=0)  # forgets the activation


def test_checkpointed_and_compiled_networks_are_folded():
    network = tiny.model("cps").segmenters[0]
    network.get_submodule("network.encoder.model").set_grad_checkpointing(True)
    network.network.compile(backend="eager")
    require_same(network, left=0)


class Used(nn.Module):
    """A convolution and a norm that do not belong to each other alone, in the way that `how` says."""

    def __init__(self, how):
        super().__init__()
        self.how, self.convolution, self.norm = how, nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, seen):
        found = self.convolution(seen)
        if self.how == "kept":
            return self.norm(found) + found
        if self.how == "changed":
            return self.norm(found.mul_(2))
        if self.how == "both returned":
            return self.norm(found), found
        if self.how == "norm first":
            return self.convolution(self.norm(found).relu())
        if self.how == "norm twice":
            return self.norm(self.norm(found).relu())
        return self.norm(found) + self.convolution(found.relu()) + self.convolution.weight.sum()


@pytest.mark.parametrize("how", ["kept", "changed", "norm first", "norm twice", "convolution twice"])
def test_what_serves_others_too_stays_as_it_is(how):
    require_same(Used(how), left=1)


def test_a_convolution_that_is_an_answer_itself_stays():
    assert pairs(Used("both returned"), 8, 8) == []


@pytest.mark.parametrize(
    "layers",
    [
        [nn.BatchNorm2d(3)],
        [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)],
        [nn.ConvTranspose2d(3, 4, 2, 2), nn.BatchNorm2d(4)],
    ],
)
def test_a_norm_without_a_convolution_before_it_stays(layers):
    require_same(nn.Sequential(*layers), left=1)


def test_a_norm_of_the_batch_itself_stays():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    assert pairs(network, 8, 8) == []
    assert torch.equal(folded(network, 8, 8)(images()), network(images()))


def test_layers_of_every_make_are_folded():
    layers = [nn.Conv2d(3, 6, 3, 2, 1, groups=3, bias=False), nn.BatchNorm2d(6, affine=False), nn.ReLU()]
    layers += [nn.Conv2d(6, 4, 3, dilation=2, padding=2, padding_mode="reflect"), nn.BatchNorm2d(4, eps=0.1)]
    network = nn.Sequential(*layers)
    assert pairs(network, 16, 16) == [("0", "1"), ("3", "4")]
    require_same(network, left=0)


# ---- The network that trains


def test_folding_leaves_the_network_alone():
    network = statistics(tiny.model("cps").segmenters[0])
    before, modules = copy.deepcopy(network.state_dict()), list(network.named_modules())
    found = folded(network, 64, 64)
    assert network.training and all(module.training for module in network.modules())
    assert all(a is b and name == same for (name, a), (same, b) in zip(network.named_modules(), modules, strict=True))
    after = network.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in network.parameters())
    assert not found.training and found.mean is network.mean
    shared = {id(parameter) for parameter in network.parameters()}
    head = found.network.segmentation_head[0]
    assert id(head.weight) in shared  # no norm follows it


@torch.no_grad()
def test_class_maps_are_enlarged_plane_by_plane():
    network = Segmenter(tiny.settings("cps").model, 3, pretrained=False).to(memory_format=torch.channels_last).eval()
    given = images(32, 32).to(memory_format=torch.channels_last)
    assert network.network(given).is_contiguous(memory_format=torch.channels_last)
    assert folded(network, 32, 32).network(given).is_contiguous()


def test_folded_weights_are_channels_last():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()).eval()
    found = folded(network, 8, 8)(images())
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert not network(images()).is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def lent_logits(lender, seen):
    with lender.lent(*seen.shape[-2:]):
        return lender.model.logits(seen)


def byte_images():
    return torch.randint(256, (2, 3, 40, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def change_a_norm(model):
    norms(model.segmenters[1])[3].running_var.mul_(3)


@torch.no_grad()
def change_a_convolution(model):
    next(m for m in model.segmenters[0].modules() if isinstance(m, nn.Conv2d)).weight.add_(0.1)


def load_others(model):
    model.load_state_dict(statistics(tiny.model("cps", seed=1), seed=1).state_dict())


def move(model):
    model.to(torch.float64)


@pytest.mark.parametrize("change", [change_a_norm, change_a_convolution, load_others, move])
def test_folded_segmenters_follow_the_weights(change):
    model, seen = statistics(tiny.model("cps")), byte_images()
    lender = Folding(model)
    first = lent_logits(lender, seen)
    torch.testing.assert_close(first, model.logits(seen), rtol=1e-4, atol=1e-5)
    change(model)
    second = lent_logits(lender, seen)
    torch.testing.assert_close(second, model.logits(seen), rtol=1e-4, atol=1e-5)
    assert change is move or (second - first).abs().max() > 1e-4


@pytest.mark.parametrize("options", [{}, {"foreach": True}, {"fused": True}])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_an_optimizer_cannot_change_weights_unseen(kind, options):
    model = tiny.model("cps").eval()
    lender, seen = Folding(model), byte_images()
    optimizer = kind(model.segmenters.parameters(), lr=0.001, **options)
    before = lent_logits(lender, seen)
    for segmenter in model.segmenters:
        segmenter(torch.randn(2, 3, 32, 32)).square().sum().backward()  # in evaluation mode: no statistics change
    optimizer.step()
    after = lent_logits(lender, seen)
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, model.logits(seen), rtol=1e-4, atol=1e-5)


def test_copies_are_made_once():
    model = tiny.model("cps")
    lender = Folding(model)
    with lender.lent(40, 48):
        first = list(model.segmenters)
    model.logits(byte_images())
    with lender.lent(64, 64):
        assert all(a is b for a, b in zip(first, model.segmenters, strict=True))


def test_a_model_has_its_own_segmenters_back():
    model = tiny.model("rrn")
    own, lender = model.segmenters, Folding(model)
    names = [name for name, _ in model.named_parameters()]
    with pytest.raises(ZeroDivisionError), lender.lent(32, 32):
        assert model.segmenters is not own and not norms(model.segmenters)
        raise ZeroDivisionError
    assert model.segmenters is own and [name for name, _ in model.named_parameters()] == names
    assert model.training and all(module.training for module in model.modules())


def test_the_setting_is_off_by_default():
    assert not config.resolve(config.read(tiny.PARAMS), None, {}).evaluate.folded
