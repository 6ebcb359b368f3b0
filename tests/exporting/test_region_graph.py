"""Region scores as ONNX are those of the run, for every kind of discriminator and every size of images."""

import onnxruntime
import pytest
import tiny
import torch
import torch.nn.functional as F
from onnx import checker, helper

from rrn.exporting.network import held_segmenters
from rrn.exporting.region_graph import region_graph

SIZES = [(64, 96), (50, 71), (17, 41), (33, 25), (5, 90), (1, 1)]
SOFT = {"objective": "accuracy", "maps": "soft", "feature_matching": 0.0, "sees_image": False, "sees_both": False}
BOTH = SOFT | {"sees_both": True}
KINDS = {
    "image": SOFT | {"sees_image": True},
    "both": BOTH,
    "hard": SOFT | {"maps": "hard", "input_stride": 1},
    "hard_both": BOTH | {"maps": "hard", "sees_image": True},
    "regions_between_cells": SOFT | {"channels": [8], "input_stride": 3},
    "relations": BOTH | {"network": "relations"},
}


def judged_model(kind, grid=4):
    """Return tiny networks whose discriminators, larger than at first, tell regions apart."""
    model = tiny.model("rrn", {"method": {"grid": grid, "discriminator": KINDS[kind]}}).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for network in model.discriminators:
            for parameter in network.parameters():
                parameter.mul_(3)
            network.head.weight.normal_()
    return model


def answer_of(graph, both, images):
    """Return probabilities and region scores, of what segmenters say of padded images."""
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    height, width = images.shape[-2:]
    padded = F.pad(both, (0, -width % 32, 0, -height % 32), value=0.5)
    inputs = {"answer": padded, "size": torch.tensor([height, width]), "values": images.float()}
    answers = session.run(["probabilities", "region_scores"], {name: value.numpy() for name, value in inputs.items()})
    return [torch.from_numpy(answer) for answer in answers]


@pytest.mark.parametrize("who", ["ensemble", "1", "2"])
@pytest.mark.parametrize("kind", KINDS)
def test_region_scores_are_those_of_the_run(kind, who):
    model = judged_model(kind)
    graph = region_graph(model, who)
    for height, width in SIZES:
        draw = torch.Generator().manual_seed(height)
        images = torch.randint(256, (2, 3, height, width), dtype=torch.uint8, generator=draw)
        logits = 3 * torch.randn(2, 2, tiny.CLASSES, height, width, generator=draw)
        with torch.no_grad():
            scores = model.region_scores(logits, images)[:, 0]
        both = logits.softmax(2)
        found = answer_of(graph, both[list(held_segmenters(model, who))], images)
        for answer, apart in zip(found, (both, scores), strict=True):
            own = apart.mean(0) if who == "ensemble" else apart[int(who) - 1]
            torch.testing.assert_close(answer, own, atol=1e-5, rtol=0)
        assert scores.shape[1:] == (2, -(-height // 8), -(-width // 8))
        assert min(height, width) == 1 or scores.std() > 0.01


def test_one_segmenter_is_enough_unless_discriminators_compare_both():
    assert [held_segmenters(judged_model("image"), who) for who in ("ensemble", "1", "2")] == [(0, 1), (0,), (1,)]
    assert held_segmenters(judged_model("both"), "2") == (0, 1)
    assert held_segmenters(tiny.model("cps_cutmix", {"method": {"discriminator": BOTH}}), "2") == (1,)
