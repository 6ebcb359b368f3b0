"""A second segmenter of another kind: what it sees, how it learns, and that all which reads a run knows of it."""

import json

import pytest
import tiny
import torch
from conftest import ROOT
from safetensors.torch import load_file

from rrn import config, evaluate, train
from rrn.config import SettingsError
from rrn.exporting import command
from rrn.method import RRN
from rrn.models.segmenter import Segmenter
from rrn.pieces.made_with import made_with
from rrn.runs import finished
from rrn.training import learner

SECOND = {"model": {"second": {"encoder": "tu-test_resnet", "decoder_channels": 16, "rate": 0.5}}}
OTHER = "tu-test_resnet"
"""Its images have another mean and deviation, in all weights that timm publishes."""


def test_the_second_is_what_it_says_and_else_as_the_first():
    first, second = tiny.settings("rrn", SECOND).model.both
    assert (first.encoder, first.decoder_channels) == ("tu-test_efficientnet", 8)
    assert (second.encoder, second.decoder_channels) == ("tu-test_resnet", 16)
    assert second.atrous_rates == first.atrous_rates and second.architecture == first.architecture
    weighted = {"model": {"weights": "lite0", "second": {"encoder": "tu-test_resnet"}}}
    assert tiny.settings("rrn", weighted).model.both[1].weights is None, "weights of the first are of its encoder"
    alike = tiny.settings("rrn").model.both
    assert alike[0] == alike[1]


def test_the_first_is_the_same_bits_with_and_without_it():
    alone, pair = tiny.model("rrn"), tiny.model("rrn", SECOND)
    assert tiny.same(alone.segmenters[0].state_dict(), pair.segmenters[0].state_dict())
    names = [type(segmenter.network.encoder.model).__name__ for segmenter in pair.segmenters]
    assert names[0] != names[1]


def test_each_sees_images_as_its_weights_know_them():
    model = tiny.model("rrn", {"model": {"second": {"encoder": OTHER}}})
    first, second = model.segmenters
    assert isinstance(first, Segmenter) and isinstance(second, Segmenter)
    assert not torch.equal(first.mean, second.mean)
    images = tiny.batch(64).images
    found = model.logits(images)
    model.eval()
    with torch.no_grad():
        for segmenter, logits in zip((first, second), found, strict=True):
            torch.testing.assert_close(logits, segmenter.network(segmenter.normalize(images)), atol=1e-4, rtol=1e-4)
    assert {"segmenters.1.scale", "segmenters.1.shift"} == {
        n for n in model.state_dict() if n.endswith(("scale", "shift"))
    }


def test_it_learns_at_a_rate_of_its_own():
    changes = {**SECOND, "optimizer": {"head": 10.0}}
    model = tiny.model("rrn", changes)
    groups = learner.optimizers(model, tiny.settings("rrn", changes))["segmenters"].param_groups
    found = {id(p): group["factor"] for group in groups for p in group["params"]}
    for segmenter, rate in zip(model.segmenters, (1.0, 0.5), strict=True):
        encoder = {id(p) for p in segmenter.get_submodule("network.encoder").parameters()}
        assert all(found[id(p)] == rate * (1 if id(p) in encoder else 10) for p in segmenter.parameters())


def test_the_two_networks_of_the_documents_take_the_same_multiply_adds():
    changes = {"model": {"second": {"encoder": "tu-test_efficientnet", "decoder_channels": 155}}}
    values = config.read(ROOT / "params.yaml")
    model = RRN(config.resolve(values, "rrn", changes), 4, seed=0)
    costs = [evaluate.cost(torch.nn.ModuleList([each]), 64, 64)["macs"] for each in model.segmenters]
    assert abs(costs[1] / costs[0] - 1) < 0.001


def test_a_student_and_its_average_are_alike():
    changes = {**SECOND, "method": {"networks": "student_teacher"}}
    with pytest.raises(SettingsError, match=r"model.second is for networks: pair; .*: set model.second: null, or"):
        tiny.settings("cps_cutmix", changes)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"encodr": "tu-test_resnet"}, "model.second.encodr"),
        ({}, "model.second.encoder is missing"),
        ({"encoder": "tu-test_resnet", "rate": 0.0}, "model.second.rate"),
        ({"rate": 0.5}, "model.second.encoder is missing"),
        (
            {"encoder": "tu-test_resnet", "architecture": "FPN", "decoder_channels": 8},
            r"second.decoder_channels: 8 is for DeepLabV3 and DeepLabV3Plus, without effect on FPN; leave it out",
        ),
        ("tu-test_resnet", "model.second"),
    ],
)
def test_what_it_cannot_be_is_refused_by_name(second, message):
    with pytest.raises(SettingsError, match=message):
        tiny.settings("rrn", {"model": {"second": second}})


def test_a_choice_takes_the_place_of_an_earlier_one_as_a_whole():
    before = tiny.params({"model": {"second": {"encoder": "tu-resnet18", "weights": "timm", "rate": 0.5}}})
    found = config.resolve(before, "rrn", {"model": {"second": {"encoder": "tu-test_resnet"}}}).model.second
    assert found is not None and (found.encoder, found.weights, found.rate) == ("tu-test_resnet", None, 1.0)
    assert config.resolve(before, "rrn", {"model": {"second": None}}).model.second is None


def test_rows_of_one_student_that_nobody_asks_for_are_no_obstacle():
    rows = {"methods": {"student": {"networks": "student_teacher"}}}
    values = tiny.params({**SECOND, **rows})
    assert config.resolve(values, "rrn").model.second is not None
    with pytest.raises(SettingsError, match=r"methods.student: model.second is for networks: pair"):
        config.resolve(values, "student")
    values["ablation"]["methods"].append("student")
    with pytest.raises(SettingsError, match=r"methods.student: model.second is for networks: pair"):
        config.resolve(values, "rrn")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished training with a second segmenter whose images have another mean."""
    changes = {"model": {"second": {"encoder": OTHER, "rate": 0.5}}}
    repository = tiny.repository(tmp_path_factory.mktemp("second") / "repository", changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        tiny.warm_up(repository)
        out = repository / "runs/tiny/train/1of4-rrn-0"
        list(train.run("train", "1of4", "rrn", 0, out))
    return out


def test_a_resume_is_exact(run, monkeypatch):
    monkeypatch.chdir(run.parents[3])
    again = train.run("train", "1of4", "rrn", 0, run.parent / "resumed")
    for _ in range(3):
        next(again)
    again.close()
    list(train.run("train", "1of4", "rrn", 0, run.parent / "resumed"))
    for path in run.iterdir():
        assert (run.parent / "resumed" / path.name).read_bytes() == path.read_bytes()


def test_a_finished_run_says_what_both_are_and_is_rebuilt_from_that(run):
    held = json.loads((run / "run.json").read_text())["networks"]["model"]
    assert held["second"]["encoder"] == OTHER
    model, card = finished.load_finished(run, "cpu")
    assert card.networks is not None and card.networks.model.both[1].encoder == OTHER
    kept = load_file(run / "segmenters.safetensors")
    assert {name.partition(".")[0] for name in kept} == {"0", "1"}
    assert model.logits(tiny.batch(40).images).shape == (2, 2, tiny.CLASSES, 40, 40)
    costs = [evaluate.cost(torch.nn.ModuleList([each]), 32, 32)["macs"] for each in model.segmenters]
    assert costs[0] != costs[1] and evaluate.cost(model.segmenters, 32, 32)["macs"] == sum(costs) // 2


def test_its_export_answers_as_the_run_and_names_both(run, tmp_path):
    """Both are compared with the run when they are written, at several sizes."""
    assert command.main([str(run), str(tmp_path / "out")]) == 0
    text = (tmp_path / "out/README.md").read_text()
    assert f"DeepLabV3Plus on tu-test_efficientnet and DeepLabV3Plus on {OTHER}, trained for" in text
    assert "[0.229, 0.224, 0.225], for the second (image / 255 - [0.5, 0.5, 0.5]) / [0.5, 0.5, 0.5]" in text


def test_weights_of_a_file_are_named_without_its_folder():
    changes = {"model": {"second": {"encoder": "tu-resnet18", "weights": "timm@some/folder/a.pth"}}}
    settings = config.resolve(tiny.params(), "rrn", changes)
    assert made_with(settings)["model"]["second"]["weights"] == "timm@a.pth"
