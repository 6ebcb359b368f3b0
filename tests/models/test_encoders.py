"""Encoders of today: weights from a file of timm's, images of any size, and learning rates by layer."""

import pytest
import segmentation_models_pytorch as smp
import timm
import tiny
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from rrn.config import SettingsError
from rrn.models.segmenter import MULTIPLE, Segmenter, layer_scales
from rrn.training import learner


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository as the current folder."""
    folder = tiny.repository(tmp_path / "repository")
    monkeypatch.chdir(folder)
    return folder


def saved(root, name):
    """Save timm's random initial state of a network, and return it."""
    torch.manual_seed(2)
    tensors = timm.create_model(name).state_dict()
    save_file(tensors, root / "encoder.safetensors")
    return tensors


def segmenter(architecture, encoder, weights=None):
    changes = {"architecture": architecture, "encoder": encoder, "weights": weights}
    torch.manual_seed(0)
    return Segmenter(tiny.settings().model.model_copy(update=changes), 3).eval()


PATCHES = "patch_embed.proj.weight"


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("DPT", "vit_small_patch14_dinov2"),
        ("DPT", "vit_small_patch14_reg4_dinov2"),
        ("DPT", "vit_small_patch16_dinov3"),
        ("UPerNet", "convnext_atto"),
        ("UPerNet", "swin_tiny_patch4_window7_224"),
    ],
)
def test_an_encoder_is_filled_from_a_file_and_takes_any_size(root, architecture, name):
    tensors = saved(root, name)
    network = segmenter(architecture, f"tu-{name}", "timm@encoder.safetensors")
    encoder = network.network.encoder
    for key, value in encoder.state_dict().items():
        bare = key.removeprefix("model.")
        name_in_file = next(name for name in tensors if name.replace(".", "_") == bare.replace(".", "_"))
        if value.shape == tensors[name_in_file].shape:
            assert torch.equal(value, tensors[name_in_file]), key
        else:
            assert bare == PATCHES and value.shape[-2:] == (16, 16)
    for size in ((50, 71), (64, 96)):
        with torch.no_grad():
            assert network(torch.randn(1, 3, *size)).shape == (1, 3, *size)


def test_mix_transformers_are_filled_from_a_file(root):
    torch.manual_seed(2)
    donor = smp.Segformer("mit_b0", encoder_weights=None).encoder
    save_file(donor.state_dict(), root / "encoder.safetensors")
    filled = segmenter("Segformer", "mit_b0", "encoder.safetensors")
    assert tiny.same(donor.state_dict(), filled.network.encoder.state_dict())


def test_a_patch_of_14_pixels_says_the_same_of_the_same_picture_in_16(root):
    name = "vit_small_patch14_dinov2"
    published = timm.create_model(name)
    published.load_state_dict(saved(root, name))
    encoder = segmenter("DPT", f"tu-{name}", "encoder.safetensors").network.encoder.model
    assert encoder.patch_embed.grid_size == published.patch_embed.grid_size, "positions stay as they are"
    patches = torch.randn(5, 3, 14, 14)
    larger = F.interpolate(patches, (16, 16), mode="bicubic", antialias=True)
    with torch.no_grad():
        expected, found = published.patch_embed.proj(patches), encoder.patch_embed.proj(larger)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_patches_of_another_size_than_the_encoders_are_refused(root):
    tensors = saved(root, "vit_small_patch14_dinov2")
    tensors[PATCHES] = torch.randn(384, 3, 8, 8)
    save_file(tensors, root / "encoder.safetensors")
    with pytest.raises(SettingsError, match=r"are not the weights of this model.encoder; .*size mismatch.*patch_embed"):
        segmenter("DPT", "tu-vit_small_patch14_dinov2", "encoder.safetensors")


# ---- Rates by layer ----------------------------------------------------------------------------------------------


def test_the_rate_of_a_layer_is_that_of_the_one_above_it_times_the_decay():
    encoder = segmenter("DPT", "tu-vit_tiny_patch16_224").network.encoder
    scales = layer_scales(encoder, 0.5)
    names = {name: scales[p] for name, p in encoder.named_parameters()}
    assert names["model.blocks.11.attn.qkv.weight"] == 0.5, "above it stands the head of timm's classifier"
    assert names["model.blocks.0.attn.qkv.weight"] == 0.5**12
    assert {names[f"model.{name}"] for name in ("pos_embed", "cls_token", "patch_embed.proj.weight")} == {0.5**13}
    assert len(scales) == len(list(encoder.parameters()))


@pytest.mark.parametrize("encoder", ["tu-convnext_atto", "tu-swin_tiny_patch4_window7_224", "tu-test_resnet"])
def test_layers_are_known_where_names_are_flattened(encoder):
    parts = segmenter("UPerNet", encoder).network.encoder
    scales = layer_scales(parts, 0.9)
    ordered = [scales[p] for p in parts.parameters()]
    assert len(set(ordered)) > 4 and ordered[0] == min(ordered) and ordered[-1] == max(ordered)


def test_the_optimizer_gives_each_layer_its_rate():
    changes = {"optimizer": {"layer_decay": 0.5, "head": 10.0}}
    settings, model = tiny.settings("rrn", changes), tiny.model("rrn", changes)
    groups = learner.optimizers(model, settings)["segmenters"].param_groups
    found = {id(p): group["factor"] for group in groups for p in group["params"]}
    for segmenter_of_pair in model.segmenters:
        encoder = segmenter_of_pair.get_submodule("network.encoder")
        scales = {id(p): scale for p, scale in layer_scales(encoder, 0.5).items()}
        assert len(set(scales.values())) > 3
        assert all(found[id(p)] == scales.get(id(p), 10.0) for p in segmenter_of_pair.parameters())
    assert {p.ndim <= 1 for group in groups if group["weight_decay"] for p in group["params"]} == {False}


@pytest.mark.parametrize("encoder", ["tu-twins_svt_small", "tu-mvitv2_tiny", "tu-ghostnet_100", "tu-densenet121"])
def test_the_last_layer_has_the_rate_times_the_decay_whatever_the_encoder(encoder):
    with torch.device("meta"):
        parts = segmenter("Unet", encoder).network.encoder
    scales = layer_scales(parts, 0.5)
    assert len(scales) == len(list(parts.parameters()))
    assert max(scale for scale in scales.values() if scale < 1) == 0.5


def test_a_transformer_learns_layer_by_layer():
    changes = {
        "model": {"architecture": "DPT", "encoder": "tu-vit_small_patch14_dinov2"},
        "optimizer": {"kind": "adamw", "lr": 0.001, "layer_decay": 0.5},
    }
    settings, model = tiny.settings("cps_cutmix", changes), tiny.model("cps_cutmix", changes)
    before = tiny.state(model.segmenters[0].network.encoder)
    learn = learner.Learner(model, settings, settings.train, decay=False)
    losses = learn.step(tiny.batch(), 3)
    learn.require_finite([losses], 4, "this one")
    after = model.segmenters[0].network.encoder.state_dict()
    moved = [(after[name] - before[name]).abs().max() for name in (f"model.blocks.{n}.mlp.fc1.weight" for n in (0, 11))]
    assert 0 < moved[0] < moved[1] / 100


def test_padding_is_to_multiples_that_every_patch_fills():
    encoder = segmenter("DPT", "tu-vit_small_patch14_dinov2").network.encoder
    assert MULTIPLE % encoder.output_stride == 0
