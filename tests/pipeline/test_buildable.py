"""Networks that cannot be built are refused before any stage, once, in a process of its own; all others pass."""

import json
import sys

import pytest
import tiny
import torch
from conftest import ROOT, python

from rrn import config, train
from rrn.config import SettingsError
from rrn.models.segmenter import Segmenter
from rrn.pipeline import buildable, presets, repro
from rrn.training import trial


@pytest.fixture(autouse=True)
def remembered(tmp_path, monkeypatch):
    """Where what was tried is remembered."""
    monkeypatch.setenv("RRN_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch" / "built"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A repository of settings as the current folder."""
    root = tmp_path / "here"
    root.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        (root / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.chdir(root)
    return root


def with_model(crop=64, **model):
    """Return settings with another model."""
    changes = {"augment": {"crop": crop}, "model": model}
    return config.resolve(config.read(ROOT / "params.yaml"), None, changes)


def refusal(settings):
    """Return why the networks of all rows are refused, or None."""
    rows = {row: config.in_row(settings, row) for row in settings.ablation.methods}
    try:
        trial.require_buildable(settings, rows)
    except SettingsError as error:
        return str(error)
    return None


GOOD = [
    ("DeepLabV3Plus", "tu-test_resnet"),
    ("DeepLabV3Plus", "tu-tf_efficientnet_lite0"),
    ("DPT", "tu-vit_small_patch16_dinov3"),
    ("DPT", "tu-vit_tiny_patch16_224"),
    ("DPT", "tu-vit_small_patch14_dinov2"),
    ("UPerNet", "tu-swin_tiny_patch4_window7_224"),
    ("UPerNet", "tu-convnext_tiny"),
    ("Segformer", "mit_b0"),
    ("FPN", "resnet18"),
    ("Unet", "resnet18"),
]


@pytest.mark.parametrize(("architecture", "encoder"), GOOD)
def test_networks_that_take_their_images_pass(architecture, encoder):
    assert refusal(with_model(architecture=architecture, encoder=encoder)) is None


@pytest.mark.parametrize("name", presets.names(ROOT))
def test_every_committed_preset_passes(name):
    items = [
        name,
        "dataset.path=../elsewhere",
        *(["model.encoder=tu-resnet50s"] if name in ("voc", "cityscapes") else []),
    ]
    assert refusal(config.resolve(config.parse(presets.apply(ROOT, items), ""))) is None


BAD = [
    (
        {"architecture": "unet"},
        "model.architecture: segmentation_models_pytorch has no 'unet' (DeepLabV3Plus is the paper's); did you mean",
    ),
    ({"architecture": "deeplabv3plus"}, "did you mean 'DeepLabV3Plus'"),
    ({"encoder": "resnet999"}, "model.encoder: there is no 'resnet999'; did you mean 'resnet50' or"),
    (
        {"encoder": "tu-test_vit"},
        "model.encoder: 'tu-test_vit' cannot be built: Unsupported model downsampling pattern",
    ),
    ({"weights": "imagenet"}, "model.weights: 'imagenet' is neither null, lite0, timm, timm/TAG"),
    ({"weights": "timm/nothing"}, "model.weights: timm publishes no weights 'nothing' of test_resnet"),
    ({"weights": "torchvision/ResNet51"}, "model.weights: torchvision has no weights 'ResNet51'"),
    ({"weights": "lite0"}, "model.weights: 'lite0' are not the weights of this model.encoder"),
    (
        {"encoder": "tu-resnet18", "weights": "torchvision/ResNet50_Weights.DEFAULT"},
        "model.weights: 'torchvision/ResNet50_Weights.DEFAULT' are not the weights of this model.encoder",
    ),
    ({"weights": "no/such.safetensors"}, "model.weights: 'no/such.safetensors' is neither"),
    (
        {"second": {"encoder": "tu-resnet_50"}},
        "model.second, read as model: model.encoder: there is no 'tu-resnet_50'; did you mean 'tu-resnet50'",
    ),
    (
        {"second": {"encoder": "tu-test_resnet", "weights": "lite0"}},
        "model.second, read as model: model.weights: 'lite0' are not the weights of this model.encoder",
    ),
    (
        {"architecture": "UPerNet", "encoder": "tu-hiera_tiny_224"},
        "model.encoder: 'tu-hiera_tiny_224' in UPerNet does not go with augment.crop: 64",
    ),
    (
        {"architecture": "Unet", "encoder": "tu-maxvit_tiny_tf_224"},
        "it takes 224 x 224 pixels: set augment.crop: 224 and evaluate.mode: sliding",
    ),
    (
        {"crop": 224, "architecture": "Unet", "encoder": "tu-maxvit_tiny_tf_224"},
        "does not go with evaluate.mode: whole, which looks at images of any size",
    ),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=lambda value: str(value)[-30:])
def test_networks_that_cannot_be_built_or_do_not_take_their_images_are_refused(changes, message):
    crop = changes.pop("crop", 64)
    assert message in (refusal(with_model(crop, **changes)) or "")


def test_layers_that_timm_does_not_know_are_refused():
    changes = {"model": {"architecture": "Segformer", "encoder": "mit_b0"}, "optimizer": {"layer_decay": 0.8}}
    settings = config.resolve(config.read(ROOT / "params.yaml"), None, changes)
    assert "optimizer.layer_decay: 0.8, but timm knows no layers of this model.encoder; set" in (
        refusal(settings) or ""
    )


def test_an_encoder_of_one_size_passes_where_it_meets_no_other():
    only = {"augment": {"crop": 224}, "model": {"architecture": "Unet", "encoder": "tu-maxvit_tiny_tf_224"}}
    values = config.read(ROOT / "params.yaml")
    assert refusal(config.resolve(values, None, only | {"dataset": {"size": [224, 224]}})) is None
    sliding = {"evaluate": {"mode": "sliding", "window": [224, 224], "stride": [224, 224]}}
    assert refusal(config.resolve(values, None, only | sliding)) is None
    other = {"dataset": {"size": [256, 320]}}
    assert "does not go with dataset.size: [256, 320]" in (refusal(config.resolve(values, None, only | other)) or "")


def test_region_discriminators_see_crops(monkeypatch):
    def narrow(*_):
        raise RuntimeError("Kernel size can't be greater than actual input size")

    assert refusal(with_model()) is None
    monkeypatch.setattr(trial, "_judge", narrow)
    assert "methods.probability_filter: method.discriminator does not go with augment.crop: 64" in (
        refusal(with_model()) or ""
    )


def test_too_little_memory_for_a_trial_is_no_fault_of_the_settings(monkeypatch):
    def full(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 3 bytes")

    monkeypatch.setattr(trial.Segmenter, "forward", full)
    with pytest.raises(RuntimeError, match="can't allocate"):
        trial.require_buildable(with_model(), {})


def test_too_little_memory_to_build_is_no_fault_of_the_settings_either(monkeypatch):
    def full(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 3 bytes (no meta tensor)")

    monkeypatch.setattr("segmentation_models_pytorch.Unet.__init__", full)
    with pytest.raises(RuntimeError, match="can't allocate"):
        trial.require_buildable(with_model(architecture="Unet", encoder="resnet18"), {})


def test_a_trial_is_asked_once_and_what_it_found_is_remembered(here, remembered, monkeypatch):
    settings = config.load(root=here)
    buildable.require(here, settings)
    (known,) = remembered.glob("*.json")
    assert json.loads(known.read_text(encoding="utf-8"))["crop"] == settings.augment.crop
    monkeypatch.setattr(buildable, "TRIAL", [sys.executable, "-c", "raise SystemExit('asked again')"])
    buildable.require(here, settings)
    buildable.require(here, config.load(overrides={"train": {"steps": 7}, "loading": {"workers": 1}}, root=here))
    with pytest.raises(buildable.TrialError, match="asked again"):
        buildable.require(here, config.load(overrides={"augment": {"crop": 128}}, root=here))


def test_files_of_weights_are_read_and_read_again_when_they_change(here, remembered):
    settings = config.load(overrides={"model": {"weights": "mine.pth"}}, root=here)
    (here / "mine.pth").write_text("no tensors")
    with pytest.raises(SettingsError, match=r"model\.weights: 'mine.pth' .*"):
        buildable.require(here, settings)
    own = Segmenter(settings.model, 2, pretrained=False).network.get_submodule("encoder").state_dict()
    torch.save(own, here / "mine.pth")
    buildable.require(here, settings)
    torch.save({name: tensor[:1] for name, tensor in own.items() if tensor.dim()}, here / "mine.pth")
    with pytest.raises(SettingsError, match=r"'mine\.pth' are not the weights of this model"):
        buildable.require(here, settings)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"decoder_channels": 16}},
        {"augment": {"crop": 128}},
        {"dataset": {"size": [96, 96]}},
        {"evaluate": {"scales": [0.5]}},
        {"speed": {"checkpointing": True}},
        {"method": {"discriminator": {"channels": [8, 8]}}},
    ],
    ids=str,
)
def test_what_decides_whether_networks_can_be_built_is_part_of_what_is_remembered(changes):
    values = config.read(ROOT / "params.yaml")
    before, after = (buildable.identity(config.resolve(values, None, more)) for more in ({}, changes))
    assert before != after


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            "it was killed by signal 9, perhaps for lack of memory",
        ),
        ("raise MemoryError", "MemoryError"),
        ("import nothing_of_this_name", "No module named 'nothing_of_this_name'"),
    ],
)
def test_a_trial_without_an_answer_calls_no_setting_wrong(here, remembered, monkeypatch, capsys, program, said):
    monkeypatch.setattr(buildable, "TRIAL", [sys.executable, "-c", program])
    with pytest.raises(buildable.TrialError, match="nothing is known to be wrong with the settings"):
        buildable.require(here, config.load(root=here))
    assert presets.main(["augment.crop=128"]) == 0
    told = capsys.readouterr().err
    assert (
        told.startswith("note: whether the networks of these settings can be built was not found out") and said in told
    )
    assert config.load(root=here).augment.crop == 128 and not remembered.exists()


def test_a_preset_of_networks_that_cannot_be_built_writes_nothing(here, capsys):
    before = (here / "params.yaml").read_text(encoding="utf-8")
    assert presets.main(["name=a", "model.architecture=unet"]) == 1
    assert capsys.readouterr().err.startswith("error: model.architecture: segmentation_models_pytorch has no 'unet'")
    assert (here / "params.yaml").read_text(encoding="utf-8") == before


def test_a_preset_that_leaves_the_networks_alone_asks_nobody(here, monkeypatch, capsys):
    monkeypatch.setattr(buildable, "TRIAL", [sys.executable, "-c", "raise SystemExit('asked')"])
    assert presets.main(["name=a", "train.steps=7", "loading.evaluation_batch=4", "ablation.seeds=[0]"]) == 0
    assert "asked" not in capsys.readouterr().err
    assert presets.main(["augment.crop=128"]) == 0
    assert "gave no answer (asked)" in capsys.readouterr().err


def test_the_front_door_refuses_before_any_stage(here, monkeypatch, capsys):
    (here / "params.yaml").write_text(
        (here / "params.yaml").read_text(encoding="utf-8").replace("tu-test_resnet", "resnet999"), encoding="utf-8"
    )
    monkeypatch.setattr(repro, "dvc", lambda *_: pytest.fail("a stage was begun"))
    assert repro.main([]) == 1
    assert capsys.readouterr().err.startswith("error: model.encoder: there is no 'resnet999'")


def test_a_warmup_refuses_in_the_same_words(tmp_path, monkeypatch):
    root = tiny.repository(tmp_path / "tiny", {"model": {"architecture": "UPerNet", "encoder": "tu-hiera_tiny_224"}})
    monkeypatch.chdir(root)
    with pytest.raises(
        SettingsError, match=r"model.encoder: 'tu-hiera_tiny_224' in UPerNet does not go with augment.crop"
    ):
        list(train.run("warmup", "1of4", None, 0, root / "out"))


def test_neither_preset_nor_front_door_loads_torch():
    shown = python(ROOT, "-c", "import sys, rrn.preset, rrn.repro; sys.exit('torch' in sys.modules)")
    assert shown.returncode == 0, shown.stderr


def test_nothing_is_fetched(monkeypatch):
    def fetched(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("urllib.request.urlopen", fetched)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetched)
    assert refusal(with_model(encoder="tu-resnet18", weights="timm")) is None
    assert refusal(with_model(encoder="tu-resnet18", weights="torchvision/ResNet18_Weights.IMAGENET1K_V1")) is None
