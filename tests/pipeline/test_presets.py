import json
import re

import numpy as np
import pytest
import timm
import torch
from conftest import ROOT, copy_repository
from ruamel.yaml import YAML

from rrn import config
from rrn.data.batches import _equal_sizes
from rrn.evaluation.inference import scaled
from rrn.models.segmenter import Segmenter
from rrn.paper import collect, tables
from rrn.pipeline import presets
from rrn.runtime import memory
from rrn.settings.rows import Method


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    target = tmp_path_factory.mktemp("preset") / "copy"
    return copy_repository(target, without=("datastore/", "data/", "results/", "rrn/"))


@pytest.fixture
def here(repository, monkeypatch):
    """A copy of the repository as the current folder; params.yaml is put back afterwards."""
    monkeypatch.chdir(repository)
    monkeypatch.setattr(presets.buildable, "require_or_note", lambda root, settings: None)  # see test_buildable.py
    text = (repository / "params.yaml").read_text()
    yield repository
    (repository / "params.yaml").write_text(text)


def comments(text):
    return re.findall(r"#.*", text)


@pytest.mark.parametrize("name", presets.names(ROOT))
def test_every_preset_is_valid_and_keeps_all_comments(here, name):
    before = (here / "params.yaml").read_text()
    assert presets.main([name, "dataset.path=../elsewhere"]) == 0
    after = (here / "params.yaml").read_text()
    assert after != before
    assert comments(after) == comments(before)
    expected = config.merge(config.read(here / "params.yaml"), presets.read_preset(here, name))
    expected["dataset"]["path"] = "../elsewhere"
    assert config.read(here / "params.yaml") == expected
    for method in config.load(root=here).ablation.methods:
        config.load(method, root=here)


def test_only_what_differs_is_changed(here):
    before = (here / "params.yaml").read_text().splitlines()
    assert presets.main(["model.weights=null", "train.steps=7"]) == 0
    after = (here / "params.yaml").read_text().splitlines()
    changed = [line for line, old in zip(after, before, strict=True) if line != old]
    assert changed == ["  steps: 7"]


def test_presets_add_up_and_twice_is_once(here):
    assert presets.main(["lite0", "smoke"]) == 0
    once = (here / "params.yaml").read_text()
    settings = config.load(root=here)
    assert (settings.model.weights, settings.name) == ("lite0", "smoke")
    assert presets.main(["lite0", "smoke"]) == 0
    assert (here / "params.yaml").read_text() == once


@pytest.mark.parametrize("encoder", ["resnet50", "resnet101"])
@pytest.mark.parametrize(
    ("data", "crop", "regions", "steps"), [("voc", 512, 128, 39700), ("cityscapes", 800, 160, 44500)]
)
def test_the_settings_of_the_literature(here, data, crop, regions, steps, encoder):
    assert presets.main([data, encoder, f"name={data}_{encoder}", "dataset.path=../elsewhere"]) == 0
    settings = config.load("rrn", root=here)
    assert (settings.name, settings.dataset.kind, settings.dataset.test) == (f"{data}_{encoder}", data, "val")
    assert (settings.augment.crop, settings.region) == (crop, regions)
    assert settings.warmup.steps + settings.train.steps == steps
    assert (settings.model.encoder, settings.model.weights) == (f"tu-{encoder}s", "timm")
    for processes in (2, 4):
        assert presets.main([f"nproc={processes}"]) == 0


@pytest.mark.parametrize("name", ["lite0", "smoke", "controls", "partitions", "sweep-grid", "sweep-objective"])
def test_the_embedded_study_is_of_a_cpu_on_every_machine(name):
    assert config.load(root=ROOT).device == laid([name])["device"] == "cpu"


@pytest.mark.parametrize(
    ("names", "device"),
    [
        (["voc", "resnet50"], "cuda"),
        (["cityscapes", "resnet101"], "cuda"),
        (["lite0", "camvid"], "auto"),
        (["lite0", "camvid", "camvid_public"], "auto"),
        (["lite0", "camvid", "camvid_controls"], "auto"),
    ],
)
def test_presets_of_real_data_take_a_gpu(names, device):
    assert laid([*names, "dataset.path=../elsewhere"])["device"] == device


WHOLE = {"mode": "whole", "window": None, "stride": None, "last": "shifted", "scales": (1.0,), "flip": False}
LITERATURE = {
    "voc": {
        "dataset": {"kind": "voc", "train": "train_aug", "val": "val", "test": "val", "void": None, "size": None},
        "augment": {"crop": 512, "scales": (0.5, 2.0), "flip": True, "jitter": 0.0},
        "warmup": {"steps": 1000, "lr_ramp": 100},
        "train": {"steps": 39700 - 1000, "lr_ramp": 0},
        "evaluate": {**WHOLE, "folded": True},
        "loading": {"workers": 8, "cache": False, "evaluation_batch": 1, "evaluation_pixels": 1 << 20},
        "log": {"evidence": 64},
        "method": {"lambda_u": 1.0, "grid": 4},
    },
    "cityscapes": {
        "dataset": {"kind": "cityscapes", "train": "train", "val": "val", "test": "val", "void": None, "size": None},
        "augment": {"crop": 800, "scales": (0.5, 2.0), "flip": True, "jitter": 0.0},
        "warmup": {"steps": 1000, "lr_ramp": 100},
        "train": {"steps": 44500 - 1000, "lr_ramp": 0},
        "evaluate": {
            **WHOLE,
            "mode": "sliding",
            "window": (800, 800),
            "stride": (534, 534),
            "folded": True,
        },
        "loading": {"workers": 8, "cache": False, "evaluation_batch": 4, "evaluation_pixels": 4 * 1024 * 2048},
        "log": {"evidence": 16},
        "method": {"lambda_u": 5.0, "grid": 5},
    },
}
BOTH = {
    "split": {"protocol": "cps"},
    "ablation": {"partitions": ("1of16", "1of8", "1of4", "1of2"), "seeds": (0, 1, 2)},
    "batch": {"labeled": 8, "unlabeled": 8},
    "optimizer": {"lr": 0.0025, "momentum": 0.9, "weight_decay": 0.0001, "poly": 0.9},
    "model": {
        "architecture": "DeepLabV3Plus",
        "weights": "timm",
        "output_stride": 16,
        "decoder_channels": 256,
        "atrous_rates": (6, 12, 18),
    },
}
"""Of CPS where it says, of the released code of RRN where CPS does not, written here a second time."""

TRUNK = {
    "sees_image": True,
    "input_stride": 1,
    "channels": (64, 128, 256, 512),
    "dropout": 0.5,
    "lr": 0.0001,
    "betas": (0.9, 0.99),
}
"""Of the discriminator of the released code."""


def laid(items):
    """Return params.yaml with presets on it, as plain values."""
    return YAML(typ="safe", pure=True).load(presets.apply(ROOT, items))


@pytest.mark.parametrize("encoder", ["resnet50", "resnet101"])
@pytest.mark.parametrize("data", LITERATURE)
def test_every_value_of_the_literature_is_in_its_preset(data, encoder):
    values = laid([data, encoder, "dataset.path=../elsewhere"])
    found = config.resolve(values, "rrn").model_dump()
    for section, expected in {**BOTH, **LITERATURE[data]}.items():
        assert {key: found[section][key] for key in expected} == expected, section
    assert found["evaluate"] == LITERATURE[data]["evaluate"], "nothing else is said of it"
    assert {key: found["method"]["discriminator"][key] for key in TRUNK} == TRUNK
    assert found["model"]["encoder"] == f"tu-{encoder}s"
    without_cutmix = {"voc": 1.5, "cityscapes": 6.0}[data]
    assert config.resolve(values, "cps").method.lambda_u == without_cutmix


@pytest.mark.parametrize("encoder", ["resnet50", "resnet101"])
def test_the_encoders_have_the_stem_of_the_literature_and_weights_of_timm(encoder):
    values = config.merge(config.read(ROOT / "params.yaml"), config.read(ROOT / "presets" / f"{encoder}.yaml"))
    settings = config.resolve(values).model
    with torch.device("meta"):
        network = Segmenter(settings.model_copy(update={"weights": None}), 21).network
    stem = [m.out_channels for m in network.encoder.model.conv1 if isinstance(m, torch.nn.Conv2d)]
    assert stem == [64, 64, 128]
    assert network.encoder.out_channels[-1] == 2048 and network.encoder.output_stride == 16
    assert network.encoder.model.pretrained_cfg["hf_hub_id"] == f"timm/{encoder}s.gluon_in1k"


@pytest.mark.parametrize("size", ["small", "base"])
@pytest.mark.parametrize("data", LITERATURE)
def test_the_transformers_are_those_of_unimatch_v2(data, size):
    settings = config.resolve(laid([data, f"dinov2_{size}", "dataset.path=../elsewhere"]), "rrn")
    found = settings.optimizer
    assert (found.kind, found.lr, found.head, found.weight_decay) == ("adamw", 5e-6, 40.0, 0.01)
    assert (settings.model.architecture, settings.model.encoder) == ("DPT", f"tu-vit_{size}_patch14_dinov2")
    assert timm.get_pretrained_cfg(settings.model.encoder[3:]).license == "apache-2.0"


SIZES = {"shapes": (64, 64), "voc": (500, 500), "cityscapes": (1024, 2048)}
"""Of the largest images of a data set, where a preset does not resize them."""
COMBINED = [["lite0", "camvid"], ["lite0", "camvid", "camvid_controls"], ["lite0", "camvid", "camvid_public"]]
COMBINED += [["lite0", "photographs", data] for data in ("voc_animals", "idd_lite")]
COMBINED += [[data, encoder] for data in LITERATURE for encoder in ("resnet50", "resnet101", "dinov2_small")]


@pytest.mark.parametrize("items", [[], *([name] for name in presets.names(ROOT)), *COMBINED], ids="+".join)
def test_the_bound_of_pixels_changes_no_batch_of_a_committed_preset(items):
    settings = config.resolve(laid([*items, "dataset.path=../elsewhere"]))
    data, protocol, how = settings.dataset, settings.evaluate, settings.loading
    size = data.size or SIZES.get(data.kind, SIZES["shapes"])
    looked_at = [size, *[scaled(size, scale) for scale in protocol.scales]]
    looked_at += [protocol.window] if protocol.window else []
    shapes = np.array([size] * 70)
    bounded = _equal_sizes(shapes, how.evaluation_batch, how.evaluation_pixels)
    assert bounded.tolist() == _equal_sizes(shapes, how.evaluation_batch).tolist()
    at_once = {memory.at_once(each, how.evaluation_batch, how.evaluation_pixels) for each in looked_at}
    assert at_once == {how.evaluation_batch}


STUDIES = {
    "partitions": ("partitions", {}),
    "sweep-threshold": (
        "sweep_threshold",
        {
            **{f"keep_{n}": {"filter.keep": "fraction", "filter.fraction": str(n / 100)} for n in (50, 75, 90)},
            **{f"tau_{n}": {"filter.keep": "threshold", "filter.tau": str(n / 100)} for n in (60, 80, 90)},
        },
    ),
    "sweep-grid": ("sweep_grid", {f"grid_{n}": {"grid": str(n)} for n in (2, 4, 8)}),
    "sweep-objective": (
        "sweep_objective",
        {
            f"{objective}{'_image' if image == 'yes' else ''}_{maps}": {
                "discriminator.objective": objective,
                "discriminator.sees_image": image,
                "discriminator.maps": maps,
            }
            for objective in ("accuracy", "adversarial")
            for image, maps in (("yes", "soft"), ("no", "soft"), ("no", "hard"))
        },
    ),
}


@pytest.mark.parametrize("name", STUDIES)
def test_studies_have_results_and_a_budget_of_their_own(name):
    values = laid(["short", name])
    assert values["name"] == STUDIES[name][0]
    assert values["ablation"]["seeds"] == [0, 1] and values["ablation"]["beside"] == []
    assert "cps_cutmix" in values["ablation"]["methods"], "differences are paired within the study"
    assert values["ablation"]["explore"] is None and values["log"]["evidence"] == 24
    usual = config.merge(config.read(ROOT / "params.yaml"), config.read(ROOT / "presets/short.yaml"))
    assert all(values[section] == usual[section] for section in ("warmup", "train", "method", "dataset", "split"))


@pytest.mark.parametrize("name", [name for name in STUDIES if name.startswith("sweep")])
def test_rows_of_a_sweep_differ_in_what_it_is_about(name):
    settings = config.resolve(laid(["short", name]))
    found = tables.differing(settings)
    assert found.pop("cps_cutmix")["filter.by"] == "none"
    assert {row.pop("filter.by") for row in found.values()} == {"region_score"}
    expected = STUDIES[name][1]
    assert list(found) == list(expected) == list(settings.ablation.methods[1:])
    assert {row: {k: v for k, v in values.items() if v} for row, values in found.items()} == expected


def test_the_study_of_partitions_reaches_from_a_32nd_to_an_eighth():
    lists = laid(["partitions"])["ablation"]
    assert lists["partitions"] == ["1of32", "1of16", "1of8"]
    assert lists["methods"] == ["supervised", "cps_cutmix", "rrn"]


def test_published_camvid_has_a_test_split(here):
    assert presets.main(["lite0", "camvid", "camvid_public", "dataset.path=../elsewhere"]) == 0
    data = config.load(root=here).dataset
    assert (data.kind, data.void, data.test, data.size) == ("camvid", None, "test", (120, 160))


SECTIONS_OF_DATA = {"voc_animals": ["dataset", "ablation"], "idd_lite": ["loading", "dataset"]}


@pytest.mark.parametrize("data", SECTIONS_OF_DATA)
def test_photographs_differ_in_their_data_alone(data):
    common = laid(["lite0", "photographs", "dataset.path=../elsewhere"])
    values = laid(["lite0", "photographs", data, "dataset.path=../elsewhere"])
    assert [section for section in common if values[section] != common[section]] == ["name", *SECTIONS_OF_DATA[data]]
    assert all(side % 32 == 0 for side in (*values["dataset"]["size"], values["augment"]["crop"]))
    assert values["split"]["seed"] is None, "who is labeled is part of the noise"


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (
            ["smoek"],
            "error: no preset 'smoek'; did you mean 'smoke'? there are attempts, camvid",
        ),
        (["smoke", "train.step=3"], "command line: params.yaml has no setting 'train.step'; did"),
        (["train.steps=many"], "train.steps is 'many': "),
        (["=3"], "expected key=value, got '=3'"),
        (["camvid"], "say where the data set lies, python -m rrn.preset camvid dataset.path=DIR"),
        (["train.steps=[1"], "train.steps: '[1' is not valid YAML: line 1, column 3"),
        (
            ["method.rho=agreement"],
            "methods.supervised: method: rho: agreement is about the pseudo-labels",
        ),
    ],
)
def test_nothing_is_written_if_something_is_wrong(here, capsys, items, message):
    before = (here / "params.yaml").read_text()
    assert presets.main(items) == 1
    assert message in capsys.readouterr().err
    assert (here / "params.yaml").read_text() == before


def test_an_unknown_key_in_a_preset_names_the_file(here, capsys):
    (here / "presets" / "mine.yaml").write_text("train: {stesp: 3}\n")
    assert presets.main(["mine"]) == 1
    (here / "presets" / "mine.yaml").unlink()
    assert "presets/mine.yaml: params.yaml has no setting 'train.stesp'" in capsys.readouterr().err


def test_without_arguments_it_lists_the_presets(here, capsys):
    assert presets.main([]) == 2
    assert (
        "presets: attempts, camvid, camvid_controls, camvid_public, cityscapes, controls, dinov2_base, "
        "dinov2_small, idd_lite, lite0, partitions, photographs, resnet101, resnet50, short, smoke, strong, study, "
        "sweep-grid, sweep-objective, sweep-threshold, voc, voc_animals\n" in capsys.readouterr().err
    )


MADE_BY = {
    "study": ["study"],
    "strong": ["strong"],
    "sweep_grid": ["short", "sweep-grid"],
    "sweep_objective": ["short", "sweep-objective"],
    "sweep_threshold": ["short", "sweep-threshold"],
    "partitions": ["short", "partitions"],
    "camvid": ["lite0", "camvid"],
    "camvid_controls": ["lite0", "camvid", "camvid_controls"],
}


def _rows(method, methods):
    """Return each row as it is: what it changes, laid on the defaults."""
    return {row: Method.model_validate(config.merge(method, changes)) for row, changes in methods.items()}


@pytest.mark.parametrize("name", MADE_BY)
def test_what_git_holds_of_a_study_is_what_its_presets_ask_for(name):
    """In the sections in which studies must be alike; a key of a later version counts as its default."""
    asked = config.resolve(laid([*MADE_BY[name], "dataset.path=../elsewhere"]))
    held = json.loads((ROOT / "results" / name / "settings.json").read_text())["params"]
    theirs, ours = collect.with_defaults(config.up_to_date(held), config.Settings), collect.about(asked)["params"]
    assert [section for section in collect.COMMON if theirs[section] != ours[section]] == []
    assert theirs["ablation"]["methods"] == ours["ablation"]["methods"]
    both = [_rows(one["method"], one["methods"]) for one in (theirs, ours)]
    assert both[0] == both[1]
    assert theirs["ablation"]["seeds"] == ours["ablation"]["seeds"]
