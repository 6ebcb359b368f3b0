import pytest
import tiny
import torch
from safetensors.torch import save_file
from tiny import same, state
from torch import nn

from rrn.config import SettingsError
from rrn.models import regions
from rrn.models.discriminator import RegionDiscriminator
from rrn.models.modes import evaluating, frozen, teaching
from rrn.models.segmenter import Segmenter


def judge(channels=(6, 6, 6), input_stride=1, sees_image=True, dropout=0.5, classes=3):
    values = tiny.settings("local_filter").method.discriminator
    changes = {"channels": channels, "input_stride": input_stride, "sees_image": sees_image, "dropout": dropout}
    torch.manual_seed(0)
    return RegionDiscriminator(values.model_copy(update=changes), classes).eval()


def inputs(size, classes=3, batch=1):
    draw = torch.Generator().manual_seed(1)
    maps = torch.rand(batch, classes, size, size, generator=draw).softmax(1)
    images = torch.randn(batch, 3, size, size, generator=draw)
    return maps, images, torch.ones(batch, 1, size, size)


@pytest.mark.parametrize(
    ("crop", "grid", "channels", "stride"),
    [
        (96, 4, (4, 4), 4),
        (96, 3, (4, 4, 4, 4), 1),
        (321, 3, (4, 4, 4, 4), 1),
        (321, 3, (4, 4, 4), 4),
        (512, 4, (2, 2, 2, 2), 1),
        (800, 5, (2, 2, 2, 2), 1),
    ],
)
def test_any_pixel_can_change_its_own_region(crop, grid, channels, stride):
    # the gradient of a region's score by each of its pixels is nowhere zero: a pixel that convolution, pooling or the
    # head had lost would have gradient exactly 0
    network = judge(channels, stride)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):  # positive weights: contributions cannot cancel
            layer.weight.data.abs_()
    maps, images, valid = inputs(crop)
    maps.requires_grad_()
    images.requires_grad_()
    logits, _ = network(maps, images, valid, crop // grid)
    owner = regions.cells(crop, grid)
    for row in {0, grid // 2, grid - 1}:
        for column in {0, grid // 2, grid - 1}:
            gradients = torch.autograd.grad(logits[0, row, column], (maps, images), retain_graph=True)
            own = (owner[:, None] == row) & (owner[None] == column)
            for gradient in gradients:
                assert (gradient[0][:, own] != 0).all(), (row, column)


@pytest.mark.parametrize(("crop", "grid"), [(96, 4), (321, 3), (512, 4), (800, 5)])
def test_a_corner_pixel_changes_the_score_of_its_region(crop, grid):
    network = judge((2, 2, 2, 2)).double()
    maps, images, valid = (v.double() for v in inputs(crop))
    with torch.no_grad():
        before, _ = network(maps, images, valid, crop // grid)
        for y, x in [(0, 0), (0, crop - 1), (crop - 1, 0), (crop - 1, crop - 1), (crop // 2, crop - 1)]:
            changed = maps.clone()
            changed[0, :, y, x] = torch.tensor([1.0, 0.0, 0.0]).double()
            after, _ = network(changed, images, valid, crop // grid)
            row, column = y * grid // crop, x * grid // crop
            assert before[0, row, column] != after[0, row, column], (y, x)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_void_changes_nothing(stride):
    network = judge(input_stride=stride)
    maps, images, valid = inputs(64)
    valid[:, :, :20, 30:] = 0
    before = network(maps, images, valid, 32)
    maps, images = maps.clone(), images.clone()
    maps[:, :, :20, 30:], images[:, :, :20, 30:] = 7.0, -9.0
    for mine, other in zip(before, network(maps, images, valid, 32), strict=True):
        assert torch.equal(mine, other)


def test_a_region_without_a_valid_pixel_has_no_features():
    maps, images, valid = inputs(64)
    valid[:, :, :32, :32] = 0
    _, features = judge()(maps, images, valid, 32)
    assert (features[0, :, 0, 0] == 0).all() and (features[0, :, 1, 1] != 0).any()


def test_valid_pixels_that_lie_in_cells_of_a_neighbor_change_their_own_region():
    # 10 cells a side for 4 regions of 20 pixels: columns 20 to 23 belong to region 1 and lie in a cell of region 0
    network = judge((4, 4), input_stride=2)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):  # positive weights: contributions cannot cancel
            layer.weight.data.abs_()
    maps, images, _ = inputs(80)
    valid = torch.zeros(1, 1, 80, 80)
    valid[..., :10], valid[..., 20:24] = 1, 1
    maps.requires_grad_()
    images.requires_grad_()
    logits, features = network(maps, images, valid, 20)
    assert (features[0, :, 0, 1] != 0).all() and (features[0, :, 0, 2:] == 0).all()
    for gradient in torch.autograd.grad(logits[0, 0, 1], (maps, images)):
        assert (gradient[0, :, :20, 20:24] != 0).all()
        assert (gradient[0, valid[0].expand_as(gradient[0]) == 0] == 0).all()


def test_a_discriminator_may_be_blind_to_the_image():
    maps, images, valid = inputs(64)
    for sees in (True, False):
        network = judge(sees_image=sees)
        same = torch.equal(network(maps, images, valid, 32)[0], network(maps, -images, valid, 32)[0])
        assert same != sees


def test_the_released_trunk():
    network = judge((64, 128, 256, 512), classes=21)
    convolutions = [m for m in network.trunk if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.kernel_size, c.stride) for c in convolutions] == [
        (n, (4, 4), (2, 2)) for n in (24, 64, 128, 256)
    ]
    assert sum(isinstance(m, nn.Dropout2d) for m in network.trunk) == 3
    assert [m.negative_slope for m in network.trunk if isinstance(m, nn.LeakyReLU)] == [0.2] * 4


def segmenter(**changes):
    torch.manual_seed(0)
    return Segmenter(tiny.settings().model.model_copy(update=changes), 3)


@pytest.mark.parametrize("size", [(32, 32), (40, 57)])
def test_a_segmenter_takes_any_size(size):
    network = segmenter().eval()
    images = torch.randint(256, (2, 3, *size), dtype=torch.uint8)
    with torch.no_grad():
        assert network(network.normalize(images)).shape == (2, 3, *size)


def test_normalization_is_that_of_the_encoder_and_never_of_the_batch():
    network = segmenter()
    mean, std = (network.network.encoder.model.pretrained_cfg[key] for key in ("mean", "std"))
    torch.testing.assert_close(network.mean.flatten(), torch.tensor(mean))
    torch.testing.assert_close(network.std.flatten(), torch.tensor(std))
    white = torch.full((1, 3, 4, 4), 255, dtype=torch.uint8)
    batch = torch.cat([white, torch.zeros_like(white)])
    torch.testing.assert_close(network.normalize(batch)[:1], network.normalize(white))
    torch.testing.assert_close(network.normalize(white)[0, :, 0, 0], (1 - torch.tensor(mean)) / torch.tensor(std))


def test_teacher_passes_leave_statistics_alone_and_dropout_off():
    network = segmenter().train()
    assert any(isinstance(m, nn.Dropout) and m.p > 0 for m in network.modules())
    images = torch.randn(2, 3, 32, 32)
    before, modes = state(network), [m.training for m in network.modules()]
    answers = {}
    for statistics in ("batch", "running"):
        with torch.no_grad(), teaching(network, statistics):
            answers[statistics] = network(images)
            assert torch.equal(answers[statistics], network(images))
    assert same(before, state(network)) and modes == [m.training for m in network.modules()]
    assert not torch.equal(answers["batch"], answers["running"])
    with torch.no_grad():
        assert torch.equal(answers["running"], network.eval()(images))
        network.train()(images)
    assert not same(before, state(network)), "a training pass does change the statistics"


def test_modes_and_gradients_come_back_after_an_error():
    network = segmenter().train()
    for context in (teaching(network, "batch"), evaluating(network), frozen(network)):
        with pytest.raises(KeyError), context:
            raise KeyError
    assert all(m.training for m in network.modules())
    assert all(p.requires_grad for p in network.parameters())
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(m.track_running_stats for m in norms)


@pytest.mark.parametrize("name", ["DeepLab9", "encoders", "from_pretrained", "create_model", "__name__"])
def test_only_an_architecture_is_one_and_no_other_name_of_the_package(name):
    with pytest.raises(
        SettingsError,
        match=rf"architecture: segmentation_models_pytorch has no '{name}' \(DeepLab",
    ):
        segmenter(architecture=name)


@pytest.mark.parametrize(
    ("encoder", "reason"),
    [
        ("tu-test_vit", "Unsupported model downsampling pattern"),
        ("tu-test_mambaout", "got an unexpected keyword argument 'output_stride'"),
        ("tu-vgg11", "DeepLabV3Plus does not take it"),
    ],
)
def test_an_encoder_that_cannot_be_built_is_named(encoder, reason):
    with pytest.raises(SettingsError, match=f"model.encoder: '{encoder}' cannot be built: .*{reason}"):
        segmenter(encoder=encoder)


@pytest.mark.parametrize(
    ("encoder", "near"),
    [
        ("resnet999", "did you mean 'resnet50' or"),
        ("tu-resnet_50", "did you mean 'tu-resnet50'"),
        ("mobilenet_v9", "did you mean 'mobilenet_v2'"),
        ("nothing_alike", "tu-NAME is any of timm's, such as tu-resnet50"),
    ],
)
def test_an_encoder_that_does_not_exist_is_answered_with_those_that_do(encoder, near):
    with pytest.raises(SettingsError, match=f"model.encoder: there is no '{encoder}'; {near}"):
        segmenter(encoder=encoder)


@pytest.mark.parametrize(
    ("architecture", "encoder"),
    [("UPerNet", "tu-swin_tiny_patch4_window7_224"), ("DPT", "tu-vit_tiny_patch16_224"), ("Segformer", "mit_b0")],
)
def test_encoders_that_are_made_for_one_size_take_any(architecture, encoder):
    network = segmenter(architecture=architecture, encoder=encoder).to("meta").eval()
    for size in ((64, 64), (97, 130), (224, 224)):
        assert network(torch.zeros(1, 3, *size, device="meta")).shape[-2:] == size


@pytest.mark.parametrize("encoder", ["tu-hf-hub:timm/resnet18", "tu-local-dir:/tmp", "../x"])
def test_an_encoder_is_no_address(encoder):
    with pytest.raises(SettingsError, match=r"model.encoder is .*: expected the name of an encoder"):
        tiny.settings(changes={"model": {"encoder": encoder}})


def test_encoder_weights_from_a_file(tmp_path, monkeypatch):
    root = tiny.repository(tmp_path)
    monkeypatch.chdir(root)
    donor = segmenter().network.encoder
    for parameter in donor.parameters():
        nn.init.normal_(parameter)
    save_file(donor.state_dict(), root / "encoder.safetensors")
    filled = segmenter(weights="encoder.safetensors").network.encoder
    assert same(state(donor), filled.state_dict())
    with pytest.raises(SettingsError, match=r"'other.bin' is neither null, lite0, timm"):
        segmenter(weights="other.bin")
    save_file({"a": torch.zeros(2)}, root / "foreign.safetensors")
    with pytest.raises(SettingsError, match=r"'foreign.safetensors' are not the weights of this model.encoder"):
        segmenter(weights="foreign.safetensors")
    (root / "broken.safetensors").write_bytes(b"no weights")
    with pytest.raises(SettingsError, match=r"'broken.safetensors' is damaged"):
        segmenter(weights="broken.safetensors")
