"""The discriminator of relations: it begins as the free rival, sees neighbors, and is blind to padding."""

from dataclasses import replace

import pytest
import tiny
import torch
from torch import Tensor

from rrn import config
from rrn.models.relations import RegionRelationNetwork

JUDGE = {
    **{"network": "relations", "objective": "accuracy", "maps": "soft", "sees_both": True, "sees_image": False},
    **{"feature_matching": 0.0, "dropout": 0.0},
}


def network(**changes: object) -> RegionRelationNetwork:
    row = tiny.settings("local_filter", {"method": {"discriminator": {**JUDGE, **changes}}}).method
    torch.manual_seed(0)
    return RegionRelationNetwork(row.discriminator, tiny.CLASSES)


def learned(**changes: object) -> RegionRelationNetwork:
    judge = network(**changes)
    torch.nn.init.normal_(judge.head.weight)
    return judge.eval()


def maps(height: int = 32, width: int = 32) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.cat([torch.randn(2, tiny.CLASSES, height, width, generator=draw).mul(2).softmax(1) for _ in "ab"], 1)


def score(judge: RegionRelationNetwork, seen: Tensor, valid: Tensor | None = None, side: int = 8) -> Tensor:
    valid = torch.ones_like(seen[:, :1]) if valid is None else valid
    logits, features = judge(seen, torch.zeros(len(seen), 3, *seen.shape[2:]), valid, side)
    assert features.shape == (len(seen), 8, *logits.shape[1:])
    return logits


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 41)])
def test_it_begins_as_the_mean_probability_of_the_label_in_question(height, width):
    seen = maps(height, width)
    own, other = seen.chunk(2, 1)
    asked = (own + other).div(2).gather(1, own.argmax(1, keepdim=True))[:, 0]
    found = score(network(), seen).sigmoid()
    assert found.shape == (2, -(-height // 8), -(-width // 8))
    torch.testing.assert_close(found[:, 1, 2], asked[:, 8:16, 16:24].mean((1, 2)))
    torch.testing.assert_close(found[:, -1, -1], asked[:, -(height % 8 or 8) :, -(width % 8 or 8) :].mean((1, 2)))


def test_each_kind_of_what_is_known_by_hand():
    own = torch.tensor([0.5, 0.5, 0.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    other = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    valid = torch.ones(1, 1, 8, 8)
    valid[..., 6:, :] = 0
    known, rival = network().describe(torch.cat([own, other], 1), valid, 8)
    log3, log2 = 1.0986123, 0.6931472
    expected = torch.tensor([0.5, 0.5, 0, 0, 0, 1, 0.5, 0.0, log2 / log3, 0.0, log2, 0.75])
    torch.testing.assert_close(known[0, :, 0, 0], expected)
    torch.testing.assert_close(rival.sigmoid().flatten(), torch.tensor([0.25]))


def test_neighbors_tell_and_others_do_not():
    judge, seen = learned(channels=[8]), maps(40, 40)
    before, changed = score(judge, seen), seen.clone()
    changed[:, :, 16:24, 16:24] = changed[:, :, 16:24, 16:24].flip(1)
    moved = (score(judge, changed) != before).any(0)
    expected = torch.zeros(5, 5, dtype=torch.bool)
    expected[1:4, 1:4] = True
    assert torch.equal(moved, expected)


def test_what_is_not_valid_changes_nothing():
    judge, seen, valid = learned(), maps(), torch.ones(2, 1, 32, 32)
    valid[:, :, 20:] = 0
    before, changed = score(judge, seen, valid), seen.clone()
    changed[:, :, 20:] = changed[:, :, 20:].flip(1)
    assert torch.equal(score(judge, changed, valid), before) and before.isfinite().all()


def test_certain_maps_have_finite_scores_and_gradients():
    judge, seen = learned(), torch.zeros(1, 2 * tiny.CLASSES, 16, 16)
    seen[:, [0, 4]] = 1
    logits = score(judge, seen)
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in judge.parameters())


def test_it_learns_where_labels_are_wrong():
    """Here in the lower half of each image."""
    row = {"method": {"discriminator": {**JUDGE, "answers_of": "teachers"}}}
    model = tiny.model("rrn", row)
    step = model.begin_step(tiny.batch(), 0)
    known = model.answers(step)
    labels = known.logits[0].argmax(1)
    labels[:, 16:] = (labels[:, 16:] + 1) % tiny.CLASSES
    step.answers = replace(known, labels=labels, logits=known.logits[:1].expand(2, -1, -1, -1, -1))
    optimizer = torch.optim.Adam(model.discriminators.parameters(), lr=0.02)
    course = []
    for _ in range(40):
        loss = sum(tiny.discriminator_losses(model, step).values(), torch.zeros(()))
        course.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert course[-1] < 0.3 * course[0]


@pytest.mark.parametrize(
    "change", [{"sees_both": False}, {"maps": "hard"}, {"sees_image": True}], ids=lambda change: next(iter(change))
)
def test_what_it_cannot_see_is_refused(change):
    with pytest.raises(
        config.SettingsError, match=r"discriminator\.network: relations compares the probabilities of both segmenters"
    ):
        network(**change)
