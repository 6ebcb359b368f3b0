"""What must hold of the method. Everything runs on tiny networks and one random batch with void and padding in it."""

import copy
import inspect
from dataclasses import replace
from typing import get_args

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import same, state
from torch import nn

from rrn import method
from rrn.config import IGNORE_INDEX, Filter, Method
from rrn.method import mix, negative_learning, pair_real_and_fake, weighted_cross_entropy
from rrn.models import pair, regions
from rrn.models.functional import jensen_shannon, logit, one_hot, ramp
from rrn.models.pseudo_label_scores import FILTER_SCORES, RATINGS
from rrn.models.regions import best, normalized
from rrn.reliability.selection import keep_count
from rrn.runtime import distributed, seeding

THRESHOLD_0 = {"method": {"filter": {"keep": "threshold", "tau": 0.0}}}
FILTERS = ("local_filter", "confidence_filter", "random_filter")


def gradients(network, terms):
    """Return the gradient of the sum of the terms by every parameter, None where there is none."""
    network.zero_grad()
    sum(terms.values()).backward()
    return {name: p.grad for name, p in network.named_parameters()}


def equal(first, second):
    return first.keys() == second.keys() and all(
        (first[key] is None and second[key] is None) or torch.equal(first[key], second[key]) for key in first
    )


def losses(row, changes=None, batch=None, number=0):
    network = tiny.model(row, changes)
    terms, step = tiny.segmenter_losses(network, batch or tiny.batch(), number)
    return network, terms, step


# ---- Where gradients go ------------------------------------------------------------------------------------------


def test_discriminators_get_nothing_from_segmenter_losses():
    network, terms, _ = losses("rrn", {"method": {"discriminator": {"feature_matching": 5.0}}})
    found = gradients(network, terms)
    assert all((value is not None) == name.startswith("segmenters") for name, value in found.items())


@pytest.mark.parametrize("objective", ["adversarial", "accuracy"])
def test_segmenters_get_nothing_from_discriminator_losses(objective):
    changes = {"method": {"discriminator": {"objective": objective, "feature_matching": 0.0}}}
    network, _, step = losses("rrn", changes)
    terms = tiny.discriminator_losses(network, step)
    found = gradients(network, terms)
    assert set(terms) == {"discriminator_1", "discriminator_2"}
    assert all((value is not None) == name.startswith("discriminators") for name, value in found.items())
    assert all(value.abs().sum() > 0 for name, value in found.items() if name.startswith("discriminators"))


def test_feature_matching_moves_segmenters_only():
    network, terms, _ = losses("local_filter")
    found = gradients(network, {"feature_matching": terms["feature_matching"]})
    assert all(value is None for name, value in found.items() if name.startswith("discriminators"))
    for k in range(2):
        assert sum(v.abs().sum() for n, v in found.items() if n.startswith(f"segmenters.{k}") and v is not None) > 0
    assert all(p.requires_grad for p in network.parameters())


def test_feature_matching_is_nothing_where_a_student_predicts_what_labels_look_like():
    network, batch = tiny.model("local_filter", {"method": {"discriminator": {"sees_image": False}}}), tiny.batch()
    labels = batch.labels.clamp(max=tiny.CLASSES - 1)  # none is void
    step = network.begin_step(replace(batch, labels=labels), 0)
    pseudo = method.PseudoLabels(step.images, labels, labels, torch.ones(len(labels), 1, *labels.shape[1:]))
    for k in range(2):
        right, wrong = (100 * one_hot(predicted, tiny.CLASSES) for predicted in (labels, (labels + 1) % tiny.CLASSES))
        assert network.feature_matching(k, right, pseudo, step) < 1e-6
        assert network.feature_matching(k, wrong, pseudo, step) > 1e-4


def test_teachers_get_no_gradient():
    # with the students' weights fixed, only a teacher could carry a gradient
    network, _, step = losses("rrn")
    assert not torch.stack(step.labeled_logits).requires_grad and not step.teacher_logits.requires_grad
    assert not network.teacher_logits(step.unlabeled).requires_grad


def test_a_step_changes_running_statistics_by_labeled_and_student_passes_only():
    network = tiny.model("rrn")
    before = state(network)
    network.teacher_logits(network.normalize(tiny.batch().images))
    assert same(before, state(network))
    tiny.segmenter_losses(network, tiny.batch(), 0)
    counts = [b for n, b in network.named_buffers() if n.endswith("num_batches_tracked")]
    assert counts and all(count == 2 for count in counts)


# ---- Rows are special cases of each other ------------------------------------------------------------------------


@pytest.mark.parametrize("row", ["local_filter", "confidence_filter", "random_filter"])
def test_threshold_0_is_cps_cutmix_bit_for_bit(row):
    plain, expected, _ = losses("cps_cutmix")
    network, terms, step = losses(row, THRESHOLD_0)
    assert torch.equal(terms["consistency"], expected["consistency"])
    wanted = gradients(plain, {"c": expected["consistency"]})
    found = gradients(network, {"c": terms["consistency"]})
    assert equal({name: found[name] for name in wanted}, wanted)
    assert step.measures["coverage"] == 1


def test_threshold_0_without_feature_matching_gives_the_trajectory_of_cps_cutmix():
    off = {"method": {**THRESHOLD_0["method"], "discriminator": {"feature_matching": 0.0}}}
    ends = []
    for row, changes in (("cps_cutmix", None), ("local_filter", off)):
        network = tiny.model(row, changes)
        rates = {"segmenters": 0.05, "discriminators": 0.01}
        optimizers = {
            name: torch.optim.SGD(getattr(network, name).parameters(), lr=rate, momentum=0.9)
            for name, rate in rates.items()
            if len(getattr(network, name))
        }
        for number in range(3):
            terms, step = tiny.segmenter_losses(network, tiny.batch(seed=number), number)
            for name, found in (
                ("segmenters", terms),
                ("discriminators", tiny.discriminator_losses(network, step)),
            ):
                if found:
                    optimizers[name].zero_grad()
                    sum(found.values()).backward()
                    optimizers[name].step()
        ends.append(state(network.segmenters))
    assert equal(*ends)


def test_before_its_start_a_filter_keeps_everything():
    _, expected, _ = losses("cps_cutmix", number=4)
    for row in (*FILTERS, "rrn"):
        _, terms, _ = losses(row, {"method": {"filter": {"start": 5}}}, number=4)
        assert torch.equal(terms["consistency"], expected["consistency"])
        _, terms, step = losses(row, {"method": {"filter": {"start": 4}}}, number=4)
        assert step.measures["coverage"] < 1


def test_rho_1_is_local_filter():
    # two equal segmenters agree everywhere: agreement and exp(-divergence) are 1
    found = {}
    for row, rho in (("local_filter", "none"), ("rrn", "agreement"), ("rrn", "divergence")):
        network = tiny.model(row, {"method": {"rho": rho}})
        network.segmenters[1].load_state_dict(network.segmenters[0].state_dict())
        found[rho] = tiny.segmenter_losses(network, tiny.batch(), 0)[0]["consistency"]
    torch.testing.assert_close(found["agreement"], found["none"])
    torch.testing.assert_close(found["divergence"], found["none"])


def test_cps_does_not_mix():
    plain, cut = tiny.batch(), tiny.batch()
    no_boxes = replace(cut, mix=torch.zeros_like(cut.mix))
    _, cps, _ = losses("cps", batch=plain)
    _, unmixed, _ = losses("cps_cutmix", batch=no_boxes)
    _, mixed, _ = losses("cps_cutmix", batch=cut)
    assert torch.equal(cps["consistency"], unmixed["consistency"]) and not torch.equal(
        *(terms["consistency"] for terms in (cps, mixed))
    )


def test_supervised_reads_no_unlabeled_image():
    empty = torch.zeros(0, 3, 32, 32, dtype=torch.uint8)
    blank = torch.zeros(0, 1, 32, 32, dtype=torch.bool)
    batch = replace(tiny.batch(), unlabeled=(empty, empty), unlabeled_valid=(blank, blank), mix=blank)
    network, terms, step = losses("supervised", batch=batch)
    assert set(terms) == {"supervised"} and not step.measures and not network.discriminators
    assert not tiny.discriminator_losses(network, step)
    assert torch.equal(terms["supervised"], losses("rrn")[1]["supervised"])


def test_rows_begin_with_the_same_segmenters_that_differ_from_each_other():
    rows = [tiny.model(row, seed=3) for row in ("supervised", "cps_cutmix", "rrn", "random_filter")]
    assert all(equal(state(rows[0].segmenters), state(row.segmenters)) for row in rows)
    assert equal(state(rows[2].discriminators), state(rows[3].discriminators))
    for networks in (rows[2].segmenters, rows[2].discriminators):
        assert not equal(state(networks[0]), state(networks[1]))
    assert not equal(state(rows[0].segmenters), state(tiny.model("supervised", seed=4).segmenters))


SEES_BOTH = {"objective": "accuracy", "feature_matching": 0.0, "sees_both": True}


@pytest.mark.parametrize("judge", [{}, SEES_BOTH])
@pytest.mark.parametrize("rho", ["none", "product", "mean", "votes", "agreement", "divergence"])
def test_swapping_segmenters_with_their_discriminators_swaps_the_losses(rho, judge):
    changes = {"rho": rho, "teacher_statistics": "running", "discriminator": judge}
    network = tiny.still(tiny.model("rrn", {"method": changes}))
    batch = tiny.batch()
    weights, terms, maps = [], [], []
    for _ in range(2):
        found, step = tiny.segmenter_losses(network, batch, 0)
        valid = torch.cat(batch.unlabeled_valid).float()
        weights.append(tiny.weigh(network, network.teacher_logits(step.unlabeled), step.unlabeled, valid)[0])
        terms.append(found)
        maps.append(step.teacher_logits)
        network.segmenters = nn.ModuleList(reversed(network.segmenters))
        network.discriminators = nn.ModuleList(reversed(network.discriminators))
    assert equal(*terms)
    assert torch.equal(maps[0], maps[1].flip(0)) and torch.equal(weights[0], weights[1].flip(0))
    if rho in ("none", "product", "mean"):  # fresh networks may agree nowhere, or get no vote
        assert not torch.equal(weights[0][0], weights[0][1])


def test_each_branch_teaches_the_other():
    network = tiny.still(tiny.model("cps_cutmix"))
    batch = tiny.batch()
    terms, step = tiny.segmenter_losses(network, batch, 0)
    teachers = network.teacher_logits(step.unlabeled)
    students = network.logits(mix(torch.cat(batch.unlabeled), batch.mix))
    valid = mix(step.valid, batch.mix)
    labels = [mix(t.argmax(1, keepdim=True), batch.mix) for t in teachers]
    pixels = nn.functional.cross_entropy
    per_pixel = sum(pixels(students[1 - k], labels[k][:, 0], reduction="none") for k in range(2))
    torch.testing.assert_close(terms["consistency"], (per_pixel * valid[:, 0]).sum() / valid.sum())


def test_students_see_the_strong_views_and_teachers_do_not():
    """Same labels of the same crops: a student is asked about the mixed strong views of what a teacher labeled."""
    network, weak = tiny.still(tiny.model("cps_cutmix")), tiny.batch()
    strong = replace(weak, strong=tuple(255 - half for half in weak.unlabeled))
    expected, plain = tiny.segmenter_losses(network, weak, 0)
    terms, step = tiny.segmenter_losses(network, strong, 0)
    assert torch.equal(step.teacher_logits, plain.teacher_logits) and torch.equal(step.unlabeled, plain.unlabeled)
    assert torch.equal(terms["supervised"], expected["supervised"])
    assert not torch.equal(terms["consistency"], expected["consistency"])
    found, before = (network.pseudo_label(network.begin_step(batch, 0)) for batch in (strong, weak))
    seen = network.normalize(mix(torch.cat(strong.strong), strong.mix))
    torch.testing.assert_close(found.images, seen)
    for name in ("labels", "weights", "valid"):
        assert torch.equal(getattr(found, name), getattr(before, name))
    same, _ = tiny.segmenter_losses(network, replace(weak, strong=weak.unlabeled), 0)
    assert all(torch.equal(same[name], value) for name, value in expected.items())


def test_the_loss_is_the_mean_over_the_strong_views():
    """A second view has the labels, weights and padding of the first."""
    network, weak = tiny.still(tiny.model("local_filter")), tiny.batch()
    views = [tuple(255 - half for half in weak.unlabeled), tuple(half // 2 for half in weak.unlabeled)]
    terms = [tiny.segmenter_losses(network, replace(weak, strong=seen), 0)[0] for seen in (*views, views[0] + views[1])]
    first, second, both = (found["consistency"] for found in terms)
    assert not torch.isclose(first, second)
    torch.testing.assert_close(both, (first + second) / 2)
    assert torch.equal(terms[2]["supervised"], terms[0]["supervised"])
    torch.testing.assert_close(terms[2]["feature_matching"], terms[0]["feature_matching"])
    merged, _ = tiny.segmenter_losses(network, replace(weak, strong=views[0] + views[1]), 0, merged=True)
    torch.testing.assert_close(merged["consistency"], both)


# ---- Which regions are kept --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [{"keep": "threshold", "tau": 0.5}, {"keep": "fraction", "fraction": 0.3}])
def test_controls_keep_as_many_regions_as_local_filter(rule):
    batch = tiny.batch(unlabeled=3)
    kept = {}
    for row in FILTERS:
        network = tiny.still(tiny.model(row, {"method": {"grid": 4, "filter": rule, "teacher_statistics": "running"}}))
        with torch.no_grad():
            bias_to_the_middle(network, batch)
        images = network.normalize(torch.cat(batch.unlabeled))
        valid = torch.cat(batch.unlabeled_valid).float()
        weights, _ = tiny.weigh(network, network.teacher_logits(images), images, valid)
        kept[row] = regions.region_sum(weights, 8).flatten(1) > 0
    counts = {row: found.sum(1).tolist() for row, found in kept.items()}
    assert counts["local_filter"] == counts["confidence_filter"] == counts["random_filter"]
    assert all(0 < count < 96 for count in counts["local_filter"])
    assert not torch.equal(kept["local_filter"], kept["confidence_filter"])
    assert not torch.equal(kept["local_filter"], kept["random_filter"])


def bias_to_the_middle(network, batch):
    """Shift the discriminators' logits so that about half of the regions pass a threshold of 0.5."""
    images = network.normalize(torch.cat(batch.unlabeled))
    valid = torch.cat(batch.unlabeled_valid).float()
    scores = network.score_regions(network.class_maps(network.teacher_logits(images)), images, valid)
    for k, discriminator in enumerate(network.discriminators):
        discriminator.head.bias -= scores[k, 0].median()


def test_random_regions_change_from_step_to_step_and_not_from_run_to_run():
    network = tiny.still(tiny.model("random_filter", {"method": {"grid": 4, "teacher_statistics": "running"}}))
    batch = tiny.batch()
    images, valid = network.normalize(torch.cat(batch.unlabeled)), torch.cat(batch.unlabeled_valid).float()
    teachers = network.teacher_logits(images)
    first, again, later = (tiny.weigh(network, teachers, images, valid, number)[0] for number in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, later) and not torch.equal(first[0], first[1])


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=24), st.floats(0, 26))
def test_best_against_brute_force_with_ties(entries, count):
    ranking = torch.tensor([float(value) for value, _ in entries]).view(1, 1, -1)
    relevant = torch.tensor([flag for _, flag in entries]).view(1, 1, -1)
    order = sorted((i for i, (_, flag) in enumerate(entries) if flag), key=lambda i: (-entries[i][0], i))
    wanted = {i for place, i in enumerate(order) if place < count}
    found = best(ranking, relevant, torch.tensor(count, dtype=torch.float64)).flatten().nonzero().flatten()
    assert set(found.tolist()) == wanted


def test_best_keeps_the_fraction_even_if_all_scores_are_the_same():
    ranking, relevant = torch.zeros(2, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool)
    assert best(ranking, relevant, 0.25 * relevant.sum()).sum() == 8


@pytest.mark.parametrize("fill", [0.0, 1.0, None])
def test_normalized_has_pixel_mean_1_over_what_is_kept(fill):
    draw = torch.Generator().manual_seed(0)
    rating = torch.rand(2, 3, 4, 4, generator=draw, dtype=torch.float64)
    area = torch.randint(0, 50, (3, 4, 4), generator=draw).double()
    kept = torch.rand(2, 3, 4, 4, generator=draw) < 0.4
    kept &= area > 0
    if fill is not None:
        kept[0] = bool(fill) & (area > 0)
    weight = normalized(rating, kept, area)
    assert (weight[~kept] == 0).all() and weight.isfinite().all()
    for k in range(2):
        mean = (weight[k] * area)[kept[k]].sum() / area[kept[k]].sum() if kept[k].any() else torch.tensor(1.0)
        torch.testing.assert_close(mean.double(), torch.tensor(1.0).double())


def test_ratings_lie_where_they_should():
    network = tiny.still(tiny.model("rrn"))
    draw = torch.Generator().manual_seed(0)
    scores, teachers = torch.randn(2, 2, 3, 2, 2, generator=draw), torch.randn(2, 3, 3, 32, 32, generator=draw)
    same = (teachers[0].argmax(1, keepdim=True) == teachers[1].argmax(1, keepdim=True)).float()
    step = tiny.teaching_step(network, teachers, torch.zeros(3, 3, 32, 32), torch.ones(3, 1, 32, 32))
    ratings = {}
    for kind in RATINGS:
        ratings[kind] = tiny.rate(network, step, kind, scores)
        assert ratings[kind].shape == (2, 3, 2, 2) and ((ratings[kind] >= 0) & (ratings[kind] <= 1)).all()
    chance = scores.sigmoid()
    torch.testing.assert_close(ratings["product"], chance[:, 0] * chance[:, 1])
    torch.testing.assert_close(ratings["mean"], (chance[:, 0] + chance[:, 1]) / 2)
    torch.testing.assert_close(ratings["votes"], (chance >= 0.6).float().mean(1))
    torch.testing.assert_close(ratings["agreement"][0, :, 1, 0], same[:, 0, 16:, :16].mean((1, 2)))
    p, q = teachers.softmax(2).double()
    middle = (p + q) / 2
    divergence = ((p * (p / middle).log()).sum(1) + (q * (q / middle).log()).sum(1)) / 2
    torch.testing.assert_close(ratings["divergence"][1, :, 0, 1], (-divergence[:, :16, 16:].mean((1, 2))).exp().float())


def test_scores_are_of_the_own_discriminator_first_and_then_of_the_other():
    network = tiny.model("rrn")
    batch = tiny.batch()
    images, valid = network.normalize(batch.images), batch.unlabeled_valid[0].float()
    maps = network.class_maps(torch.randn(2, 2, 3, 32, 32))
    scores = network.score_regions(maps, images, valid)
    assert scores.shape == (2, 2, 2, 2, 2) and network.training
    assert torch.equal(network.score_regions(maps, images, valid, cross=False), scores[:, :1])
    network.eval()
    for k in range(2):
        for place, j in enumerate((k, 1 - k)):
            expected, _ = network.discriminators[j](maps[k], images, valid, 16)
            torch.testing.assert_close(scores[k, place], expected.detach())


def test_jensen_shannon_reaches_its_bounds():
    apart = torch.tensor([[40.0, -40.0], [-40.0, 40.0]]).view(2, 1, 2, 1, 1)
    torch.testing.assert_close(jensen_shannon(*apart).item(), 0.6931471805599453)
    assert jensen_shannon(apart[0], apart[0]).item() == pytest.approx(0, abs=1e-6)


def test_measures_against_loops():
    network = tiny.still(tiny.model("rrn", {"method": {"grid": 4, "teacher_statistics": "running"}}))
    batch = tiny.batch()
    images, valid = network.normalize(torch.cat(batch.unlabeled)), torch.cat(batch.unlabeled_valid).float()
    teachers = network.teacher_logits(images)
    weight, measures = tiny.weigh(network, teachers, images, valid)
    pixels = (weight * valid).sum() / (2 * valid.sum())
    agree = (teachers[0].argmax(1, keepdim=True) == teachers[1].argmax(1, keepdim=True)) & valid.bool()
    torch.testing.assert_close(measures["weight"], pixels)
    torch.testing.assert_close(measures["agreement"], agree.sum() / valid.sum())
    torch.testing.assert_close(measures["coverage"].item(), 0.5)


# ---- Void and padding --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ["cps_cutmix", "local_filter", "rrn", "confidence_filter"])
def test_given_the_logits_void_and_padding_change_nothing(row):
    """Disturb logits, images and class maps where they are void: no loss, weight, score or gradient moves."""
    found = []
    for noise in (0.0, 3.0):
        network = tiny.still(tiny.model(row))
        terms, logits = _with_logits(network, tiny.batch(), noise)
        total = sum(terms.values())
        total.backward()
        parts = [value.detach() for value in terms.values()]
        parts += [z.grad for z in logits] + [p.grad for p in network.discriminators.parameters()]
        found.append(parts)
    assert len(found[0]) > 4
    for plain, disturbed in zip(*found, strict=True):
        assert torch.equal(plain, disturbed)


def _with_logits(network, batch, noise):
    """Compute all losses with made-up logits in place of the segmenters' answers; void pixels get `noise`."""
    draw = torch.Generator().manual_seed(1)
    valid = torch.cat(batch.unlabeled_valid)
    labeled = (batch.labels != IGNORE_INDEX)[:, None]
    mixed = mix(valid, batch.mix)

    def disturbed(count, mask):
        values = torch.randn(count, 3, 32, 32, generator=draw)
        other = torch.randn(count, 3, 32, 32, generator=draw)
        return torch.where(mask, values, values + noise * other)

    def byte(images, mask):
        return torch.where(mask, images, images + (7 if noise else 0))

    supervised = [disturbed(2, labeled).requires_grad_() for _ in range(2)]
    teachers = torch.stack([disturbed(4, valid) for _ in range(2)])
    students = [disturbed(2, mixed).requires_grad_() for _ in range(2)]
    for segmenter, own, student in zip(network.segmenters, supervised, students, strict=True):
        answers = iter((own, student))
        segmenter.forward = lambda images, answers=answers: next(answers)
    network.teacher_logits = lambda images: teachers
    halves = [byte(u, v) for u, v in zip(batch.unlabeled, batch.unlabeled_valid, strict=True)]
    batch = replace(batch, images=byte(batch.images, labeled), unlabeled=tuple(halves))
    terms, step = tiny.segmenter_losses(network, batch, 0)
    return terms | tiny.discriminator_losses(network, step), supervised + students


def test_real_and_fake_have_the_same_void():
    batch = tiny.batch(images=2, unlabeled=3)
    network = tiny.still(tiny.model("local_filter"))
    _, step = tiny.segmenter_losses(network, batch, 0)
    seen = []
    hook = network.discriminators[0].trunk.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    network.discriminators[0].input_stride = 1
    tiny.discriminator_losses(network, step)
    hook.remove()
    real, *fakes = seen
    assert len(fakes) == 2 and len(real) == 3
    void = (real == 0).all(1)
    labeled_void = batch.labels == IGNORE_INDEX
    padding = ~batch.unlabeled_valid[0][:, 0]
    for i in range(3):
        assert torch.equal(void[i], labeled_void[i % 2] | padding[i])
    for fake in fakes:
        assert torch.equal((fake == 0).all(1), void)
        sums = fake[:, :3].sum(1)
        torch.testing.assert_close(sums, real[:, :3].sum(1))
        assert fake[:, :3].min() >= 0 and fake[:, :3].max() <= 1


def test_real_and_fake_images_are_normalized_alike():
    batch = tiny.batch()
    batch = replace(batch, unlabeled=(batch.images, batch.unlabeled[1]))
    network, _, step = losses("local_filter", batch=batch)
    assert torch.equal(step.images, step.unlabeled[:2])
    assert torch.equal(step.images, network.normalize(batch.images))


@pytest.mark.parametrize(("labeled", "unlabeled"), [(2, 5), (5, 2), (3, 3)])
def test_pairing_uses_every_image(labeled, unlabeled):
    batch = tiny.batch(images=labeled, unlabeled=unlabeled)
    network = tiny.model("rrn")
    step = network.begin_step(batch, 0)
    maps, images, fake_at, valid = pair_real_and_fake(step, batch.unlabeled_valid[0].float(), 3)
    assert len(maps) == len(images) == len(fake_at) == len(valid) == max(labeled, unlabeled)
    assert set(fake_at.tolist()) == set(range(unlabeled))
    assert torch.equal(images[:labeled], step.images)
    assert torch.equal(maps.sum(1) > 0, batch.labels[torch.arange(len(maps)) % labeled] != IGNORE_INDEX)


@pytest.mark.parametrize("row", ["cps_cutmix", "local_filter", "rrn", "confidence_filter", "random_filter"])
def test_all_void_gives_finite_losses_of_zero(row):
    batch = tiny.batch()
    nothing = torch.zeros_like(batch.unlabeled_valid[0])
    batch = replace(batch, labels=torch.full_like(batch.labels, IGNORE_INDEX), unlabeled_valid=(nothing, nothing))
    network, terms, step = losses(row, batch=batch)
    terms |= tiny.discriminator_losses(network, step)
    assert all(value == 0 for value in terms.values()), terms
    assert all(value.isfinite() for value in step.measures.values())
    found = [g for g in gradients(network, terms).values() if g is not None]
    assert all(g.isfinite().all() for g in found)


@pytest.mark.parametrize("row", ["local_filter", "rrn", "confidence_filter", "random_filter"])
@pytest.mark.parametrize("rule", [{"keep": "threshold", "tau": 1.0}, {"keep": "fraction", "fraction": 0.0}])
def test_nothing_kept_gives_a_consistency_term_of_zero(row, rule):
    network, terms, step = losses(row, {"method": {"filter": rule}})
    assert terms["consistency"] == 0 and step.measures["coverage"] == 0
    found = gradients(network, {"c": terms["consistency"]})
    assert all(g is None or (g == 0).all() for g in found.values())


@pytest.mark.parametrize("row", ["rrn", "confidence_filter"])
def test_one_class_only_gives_finite_losses(row):
    batch = tiny.batch()
    batch = replace(batch, labels=torch.zeros_like(batch.labels))
    network = RRN_with_one_class(row)
    terms, step = tiny.segmenter_losses(network, batch, 0)
    terms |= tiny.discriminator_losses(network, step)
    assert all(value.isfinite() for value in terms.values())
    assert terms["supervised"] == terms["consistency"] == 0


def RRN_with_one_class(row):
    return method.RRN(tiny.settings(row), 1, 0).train()


# ---- The discriminators' objectives ------------------------------------------------------------------------------


def test_both_discriminators_see_both_branches_and_each_its_half():
    network, _, step = losses("local_filter")
    before = [v.item() for v in tiny.discriminator_losses(network, step).values()]
    for branch in range(2):
        for half in range(2):
            teachers = step.teacher_logits.clone()
            teachers[branch, 2 * half : 2 * half + 2] = teachers[branch, 2 * half : 2 * half + 2].flip(1)
            changed = copy.copy(step)
            changed.teacher_logits = teachers
            after = [v.item() for v in tiny.discriminator_losses(network, changed).values()]
            assert [a != b for a, b in zip(after, before, strict=True)] == [half == 0, half == 1]


def test_accuracy_is_measured_by_region():
    changes = {"method": {"discriminator": {"objective": "accuracy", "feature_matching": 0.0, "dropout": 0.0}}}
    network, _, step = losses("local_filter", changes)
    found = tiny.discriminator_losses(network, step)["discriminator_1"]
    valid = (step.batch.labels != IGNORE_INDEX)[:, None].float()
    expected = []
    for maps in network.class_maps(torch.stack(step.labeled_logits)):
        logits, _ = network.discriminators[0](maps, step.images, valid, 16)
        for b in range(2):
            for r in range(2):
                for c in range(2):
                    where = (b, slice(16 * r, 16 * r + 16), slice(16 * c, 16 * c + 16))
                    known = step.batch.labels[where] != IGNORE_INDEX
                    target = (maps.argmax(1)[where] == step.batch.labels[where])[known].float().mean()
                    expected.append(nn.functional.binary_cross_entropy_with_logits(logits[b, r, c], target))
    torch.testing.assert_close(found, torch.stack(expected).mean())


ACCURACY = {"objective": "accuracy", "feature_matching": 0.0, "dropout": 0.0}


def test_answers_of_teachers_are_those_that_are_judged_at_use():
    """Batch norm counts nothing, and the images are those that the students see."""
    network, _, step = losses("local_filter", {"method": {"discriminator": {**ACCURACY, "answers_of": "teachers"}}})
    before = tiny.state(network.segmenters)
    known = network.answers(step)
    assert tiny.same(before, tiny.state(network.segmenters))
    assert torch.equal(known.logits, network.teacher_logits(step.images)) and torch.equal(known.images, step.images)
    assert torch.equal(known.labels, step.batch.labels) and known.count == step.denominators.labeled_regions
    assert not torch.equal(known.logits, torch.stack(step.labeled_logits))
    assert torch.equal(known.right, (known.logits.argmax(2) == known.labels).unsqueeze(2).float())


def test_discriminators_may_learn_from_labeled_images_that_are_mixed_with_each_other():
    judge = {**ACCURACY, "answers_of": "teachers", "cutmix": True}
    network = tiny.model("local_filter", {"method": {"discriminator": judge}})
    step = network.begin_step(tiny.batch(images=3), 0)
    known, (batch, boxes) = network.answers(step), (step.batch, step.batch.mix)
    for i, other in ((0, 2), (1, 0), (2, 1)):
        inside = boxes[i % 2, 0]  # of two boxes, the first serves again
        assert torch.equal(known.labels[i][inside], batch.labels[other][inside])
        assert torch.equal(known.labels[i][~inside], batch.labels[i][~inside])
        assert torch.equal(known.images[i][:, inside], step.images[other][:, inside])
    assert torch.equal(known.logits, network.teacher_logits(known.images))
    assert known.count == regions.any_valid(known.labels != IGNORE_INDEX, network.region).sum()


@pytest.mark.parametrize("factor", [3.0, 0.5])
def test_wrong_regions_weigh_more(factor):
    network, _, step = losses("local_filter", {"method": {"discriminator": ACCURACY}})
    network.row = network.row.model_copy(
        update={"discriminator": network.row.discriminator.model_copy(update={"wrong_weight": factor})}
    )
    maps, valid = torch.rand(1, 3, 32, 32), torch.ones(1, 1, 32, 32)
    right = torch.zeros(1, 1, 32, 32)
    right[..., :16, :] = 1  # the upper two of four regions are right
    found = network._region_loss(network.discriminators[0], maps, step.images[:1], valid, right, torch.tensor(4))
    logits = network.discriminators[0](maps, step.images[:1], valid, 16)[0][0]
    entropy = nn.functional.binary_cross_entropy_with_logits
    upper, lower = (entropy(logits[i], torch.full((2,), 1.0 - i), reduction="sum") for i in range(2))
    torch.testing.assert_close(found, (upper + factor * lower) / 4)


def test_discriminators_learn_to_tell_labels_from_noise():
    network, _, step = losses("local_filter", {"method": {"discriminator": {"dropout": 0.0}}})
    optimizer = torch.optim.Adam(network.discriminators.parameters(), lr=0.01)
    course = []
    for number in range(12):
        step.number = number
        terms = tiny.discriminator_losses(network, step)
        course.append(sum(terms.values()).item())
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
    assert course[-1] < 0.5 * course[0]


def test_hard_maps_are_what_labels_look_like():
    network = tiny.model("local_filter", {"method": {"discriminator": {"maps": "hard", "feature_matching": 0.0}}})
    logits = torch.randn(2, 2, 3, 8, 8)
    maps = network.class_maps(logits)
    assert torch.equal(maps, one_hot(logits.argmax(2), 3)) and set(maps.unique().tolist()) == {0.0, 1.0}
    void = torch.full((1, 2, 2), IGNORE_INDEX)
    assert (one_hot(void, 3) == 0).all()


# ---- Negative learning -------------------------------------------------------------------------------------------


def test_negative_learning_by_hand():
    probability = torch.tensor([[[[0.7]], [[0.2]], [[0.1]]]])
    rejected = torch.tensor([[[[False]], [[True]], [[True]]]])
    found = negative_learning(probability.log(), rejected, torch.ones(1, 1, 1, 1), torch.tensor(2))
    torch.testing.assert_close(found, -(torch.tensor(0.8).log() + torch.tensor(0.9).log()) / 2)
    certain = torch.tensor([[[[0.0]], [[99.0]]]])
    assert negative_learning(certain, certain > 1, torch.ones(1, 1, 1, 1), torch.tensor(1)).isfinite()
    assert negative_learning(certain, certain > 1, torch.zeros(1, 1, 1, 1), torch.tensor(1)) == 0


def test_what_is_dropped_is_told_which_classes_both_teachers_deem_improbable():
    changes = {"method": {"negative": {"weight": 0.5, "below": 0.3}, "discriminator": ACCURACY}}
    network = tiny.still(tiny.model("local_filter", changes))
    terms, step = tiny.segmenter_losses(network, tiny.batch(), 0)
    weights = network.region_weights(step)
    rejected = network.rejected_classes(step, weights, 0.3)
    assert not (rejected & (weights > 0)).any() and rejected.any()
    low = (step.teacher_logits.softmax(2) <= 0.3).all(0)
    assert torch.equal(rejected, low & (weights == 0))
    everything = network.rejected_classes(step, weights, 0.99).sum(2, keepdim=True)
    assert torch.equal(everything, (tiny.CLASSES - 1) * (weights == 0)), "the label itself is never one"
    boxes, students = step.batch.mix, network.logits(mix(torch.cat(step.batch.unlabeled), step.batch.mix))
    valid = mix(step.valid, boxes)
    expected = sum(
        negative_learning(students[k], mix(rejected[1 - k], boxes), valid, step.denominators.mixed) for k in range(2)
    )
    torch.testing.assert_close(terms["negative"], 0.5 * expected)
    plain, _ = tiny.segmenter_losses(
        tiny.still(tiny.model("local_filter", {"method": {"discriminator": ACCURACY}})), tiny.batch(), 0
    )
    assert "negative" not in plain
    torch.testing.assert_close(terms["consistency"], plain["consistency"])


# ---- Weights, ramps and dropout ----------------------------------------------------------------------------------


def test_a_discriminator_may_see_both_segmenters_maps_its_own_first():
    network, terms, step = losses("rrn", {"method": {"discriminator": SEES_BOTH}})
    own = step.teacher_logits.softmax(2)
    maps = network.class_maps(step.teacher_logits)
    assert torch.equal(maps[:, :, : tiny.CLASSES], own) and torch.equal(maps[:, :, tiny.CLASSES :], own.flip(0))
    assert network.discriminators[0].trunk[0].in_channels == 2 * tiny.CLASSES + 3 * network.row.discriminator.sees_image
    terms |= tiny.discriminator_losses(network, step)
    assert all(term.isfinite() for term in terms.values())
    scores = network.score_regions(maps, step.unlabeled, step.valid)
    other = step.teacher_logits.clone()
    other[1] = -other[1]
    changed = network.score_regions(network.class_maps(other), step.unlabeled, step.valid)
    assert not torch.equal(scores[0], changed[0]), "what the second segmenter says tells on the first one's scores"


def test_answers_about_regions_are_of_the_own_discriminator_first():
    network, batch = tiny.still(tiny.model("rrn")), tiny.batch()
    logits = network.logits(batch.images)
    scores = network.region_scores(logits, batch.images)
    valid = torch.ones(len(batch.images), 1, 32, 32)
    judged = network.score_regions(network.class_maps(logits), network.normalize(batch.images), valid)
    assert torch.equal(scores, judged.sigmoid()) and scores.shape[:2] == (2, 2)
    assert tiny.model("cps").region_scores(logits, batch.images) is None


def test_terms_are_weighted():
    _, once, _ = losses("local_filter")
    changes = {"method": {"lambda_u": 3.0, "discriminator": {"feature_matching": 0.2}}}
    _, more, _ = losses("local_filter", changes)
    torch.testing.assert_close(more["consistency"], 3 * once["consistency"])
    torch.testing.assert_close(more["feature_matching"], 2 * once["feature_matching"])
    assert torch.equal(more["supervised"], once["supervised"])
    _, ramped, _ = losses("local_filter", {"method": {"lambda_u_ramp": 4}})
    torch.testing.assert_close(ramped["consistency"], once["consistency"] / 4)


def test_ramp():
    assert [ramp(step, 4) for step in (0, 1, 3, 9)] == [0.25, 0.5, 1, 1] and ramp(0, 0) == 1


def test_weighted_cross_entropy_divides_by_valid_pixels():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, generator=draw)
    labels = torch.randint(3, (2, 1, 4, 4), generator=draw)
    weight, valid = torch.rand(2, 1, 4, 4, generator=draw), torch.ones(2, 1, 4, 4)
    valid[0] = 0
    weight[1, :, :2] = 0
    expected = 0.0
    for y in range(2, 4):
        for x in range(4):
            expected -= weight[1, 0, y, x] * logits[1, :, y, x].log_softmax(0)[labels[1, 0, y, x]]
    torch.testing.assert_close(weighted_cross_entropy(logits, labels, weight, valid, 16), expected / 16)


def test_dropout_is_a_function_of_seed_and_step():
    first, again, later = (losses("local_filter", number=number)[1] for number in (0, 0, 1))
    assert equal(first, again) and first["supervised"] != later["supervised"]
    torch.rand(7)
    assert equal(first, losses("local_filter")[1])


# ---- What a trained model answers --------------------------------------------------------------------------------


def test_answers_need_no_gradient_and_leave_the_mode():
    network = tiny.model("rrn")
    images = torch.randint(256, (2, 3, 40, 57), dtype=torch.uint8)
    before = state(network)
    logits = network.logits(images)
    scores = network.region_scores(logits, images)
    assert logits.shape == (2, 2, 3, 40, 57) and scores.shape == (2, 2, 2, 3, 4) and not logits.requires_grad
    assert ((scores >= 0) & (scores <= 1)).all() and network.training and same(before, state(network))
    assert torch.equal(logits, network.logits(images))
    assert tiny.model("cps_cutmix").region_scores(logits, images) is None


def test_one_process_needs_no_messages():
    value = torch.tensor(3.0)
    assert (
        distributed.all_reduce_sum(value) is value
        and distributed.split_value(value) is value
        and distributed.world() == 1
    )


@pytest.mark.parametrize("number", [1, 7, 10, 50, 96, 150, 450])
def test_a_fraction_keeps_the_count_that_the_diagnosis_keeps(number):
    """Of 10 regions 0.25 are 2.5: a half is rounded up, on both sides, as float64 has it (0.29 of 50 is less)."""
    network = tiny.model("local_filter")
    step, relevant = network.begin_step(tiny.batch(), 0), torch.ones(1, number, 1, dtype=torch.bool)
    step.ranking = torch.arange(float(number)).view(1, 1, number, 1)
    for fraction in (hundredth / 100 for hundredth in range(101)):
        network.row = network.row.model_copy(
            update={"filter": network.row.filter.model_copy(update={"fraction": fraction})}
        )
        kept = network.select_regions(0, step, relevant)
        assert kept.sum() == keep_count(fraction, number), fraction


@pytest.mark.parametrize(
    ("fraction", "number", "count"), [(0.25, 10, 3), (0.29, 50, 14), (0.13, 450, 59), (0.21, 150, 32)]
)
def test_a_half_is_rounded_up_as_float64_has_it(fraction, number, count):
    assert keep_count(fraction, number) == count


# ---- What every figure is made of --------------------------------------------------------------------------------


def test_initial_weights_and_dropout_are_drawn_by_seed_purpose_step_and_process(monkeypatch):
    """Nothing else, so that nothing has to be remembered; no two passes share their draws by accident."""
    asked, seeded = [], seeding.fork

    def noted(*arguments, **named):
        asked.append(inspect.signature(seeded).bind(*arguments, **named).arguments)
        return seeded(*arguments, **named)

    monkeypatch.setattr(seeding, "fork", noted)
    monkeypatch.setattr(distributed, "rank", lambda: 3)
    network = tiny.model("rrn", THRESHOLD_0, seed=7)  # a threshold does not ask the other processes
    batch = tiny.batch()
    step = network.begin_step(batch, 4)
    list(network.segmenter_losses(step))
    list(network.discriminator_losses(step))
    initial = [("initial segmenter", k) for k in range(2)] + [("initial discriminator", k) for k in range(2)]
    expected = [{"seed": 7, "purpose": purpose, "index": k} for purpose, k in initial]
    passes = [("segmenter dropout", 3), ("student dropout", 3)] + [("discriminator dropout", 6 + k) for k in range(2)]
    expected += [{"seed": 7, "purpose": purpose, "step": 4, "index": index} for purpose, index in passes]
    assert asked == expected


def test_networks_that_get_trained_weights_do_not_ask_for_those_of_the_encoder(monkeypatch):
    seen = []

    def network(settings, classes, pretrained):
        seen.append(pretrained)
        return nn.Identity()

    monkeypatch.setattr(pair, "Segmenter", network)
    for pretrained in (False, True):
        method.RRN(tiny.settings("cps"), 3, 0, pretrained)
    assert seen == [False, False, True, True]


def test_passes_are_merged_only_where_it_is_asked_for():
    network, batch = tiny.model("cps_cutmix"), tiny.batch()
    assert [set(terms) for terms in network.segmenter_losses(network.begin_step(batch, 0))] == [
        *({"supervised"}, {"supervised"}, {"consistency"}, {"consistency"}),
    ]
    merged = network.segmenter_losses(network.begin_step(batch, 0), merged=True)
    assert [set(terms) for terms in merged] == [{"supervised", "consistency"}] * 2


def test_one_pixel_is_enough_for_a_loss_and_for_a_region_and_none_is_not():
    network, batch = tiny.still(tiny.model("rrn")), tiny.batch()
    labels = torch.full_like(batch.labels, IGNORE_INDEX)
    labels[0, 3, 20] = 1
    terms, _ = tiny.segmenter_losses(network, replace(batch, labels=labels), 0)
    logits = network.logits(batch.images)[:, 0, :, 3, 20]
    expected = nn.functional.cross_entropy(logits, torch.tensor([1, 1]), reduction="sum")
    torch.testing.assert_close(terms["supervised"], expected)
    labels[1, 31, 0] = 0
    divide = network.begin_step(replace(batch, labels=labels), 0).denominators
    assert (divide.labeled, divide.labeled_regions) == (2, 2)


def test_a_region_of_padding_is_not_counted_as_kept():
    batch = tiny.batch()
    padded = tuple(valid.clone() for valid in batch.unlabeled_valid)
    for valid in padded:
        valid[:, :, 16:] = False
    _, _, step = losses("cps_cutmix", batch=replace(batch, unlabeled_valid=padded))
    assert step.measures["coverage"] == 1 and step.measures["weight"] == 1


@pytest.mark.parametrize("rho", ["product", "mean", "votes"])
def test_both_discriminators_are_asked_about_each_branch_where_the_rating_is_theirs(rho):
    changes = {
        "method": {"grid": 4, "rho": rho, "teacher_statistics": "running", "filter": {"fraction": 1.0, "tau": 0.5}}
    }
    network, batch = tiny.still(tiny.model("rrn", changes)), tiny.batch()
    with torch.no_grad():
        bias_to_the_middle(network, batch)
    images, valid = network.normalize(torch.cat(batch.unlabeled)), torch.cat(batch.unlabeled_valid).float()
    teachers = network.teacher_logits(images)
    weights, _ = tiny.weigh(network, teachers, images, valid)
    scores = network.score_regions(network.class_maps(teachers), images, valid, cross=True)
    area = regions.region_sum(valid, 8).squeeze(1)
    step = tiny.teaching_step(network, teachers, images, valid)
    rating = tiny.rate(network, step, rho, scores)
    expected = normalized(rating, (area > 0).expand(2, *area.shape), area)
    torch.testing.assert_close(weights[:, :, 0, ::8, ::8], expected)
    assert len(rating.unique()) > 2, "two votes are none, one or both"


@pytest.mark.parametrize("rule", [{"keep": "threshold", "tau": 0.5}, {"keep": "fraction", "fraction": 0.3}])
def test_the_control_by_confidence_keeps_the_regions_whose_pixels_are_surest(rule):
    changes = {"method": {"grid": 4, "filter": rule, "teacher_statistics": "running"}}
    network, batch = tiny.still(tiny.model("confidence_filter", changes)), tiny.batch(unlabeled=3)
    with torch.no_grad():
        bias_to_the_middle(network, batch)
    images, valid = network.normalize(torch.cat(batch.unlabeled)), torch.cat(batch.unlabeled_valid).float()
    teachers = network.teacher_logits(images)
    weights, _ = tiny.weigh(network, teachers, images, valid)
    surest = teachers.softmax(2).amax(2, keepdim=True)
    for k in range(2):
        sure = regions.region_mean(surest[k], valid, 8)
        kept = regions.region_sum(weights[k] * valid, 8) > 0
        assert 0 < kept.sum() < kept.numel() and sure[kept].min() >= sure[~kept].max()


def test_a_score_equal_to_the_threshold_is_a_vote():
    network = tiny.model("rrn", {"method": {"rho": "votes"}})
    step = tiny.teaching_step(network, torch.zeros(2, 1, 3, 32, 32), torch.zeros(0), torch.ones(1, 1, 32, 32))
    scores = torch.full((2, 2, 1, 2, 2), logit(network.row.filter.tau))
    assert (tiny.rate(network, step, "votes", scores) == 1).all()
    assert (tiny.rate(network, step, "votes", scores - 1e-6) == 0).all()


def test_the_adversarial_objective_weighs_labels_as_much_as_the_predictions_of_both_branches():
    network, _, step = losses("local_filter", {"method": {"discriminator": {"dropout": 0.0}}})
    found = tiny.discriminator_losses(network, step)["discriminator_2"]
    _, images, valid = (v.chunk(2, dim=-4)[1] for v in (step.teacher_logits, step.unlabeled, step.valid))
    reals, real_images, at, valid = pair_real_and_fake(step, valid, tiny.CLASSES)
    fakes = network.class_maps(step.teacher_logits)[:, 2:]
    parts = []
    for maps, shown, target in ((reals, real_images, 1.0), *((fake[at], images[at], 0.0) for fake in fakes)):
        logits, _ = network.discriminators[1](maps, shown, valid, 16)
        parts.append(nn.functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target)))
    torch.testing.assert_close(found, parts[0] / 2 + (parts[1] + parts[2]) / 4)


@pytest.mark.parametrize(
    ("field", "functions"),
    [
        (Filter.model_fields["by"], FILTER_SCORES),
        (Method.model_fields["rho"], RATINGS),
    ],
)
def test_a_score_is_a_function_and_a_word_in_the_schema(field, functions):
    assert set(get_args(field.annotation)) == {"none", *functions}


# ---- Filters, weights and teachers beside those of the paper ---------------------------------------------------------


def weighed(changes, row="local_filter", number=0):
    """Return a network that stands still, the teachers' logits of three halves, valid pixels, and the step weighed."""
    network, batch = tiny.still(tiny.model(row, {"method": {"grid": 4, **changes}})), tiny.batch(unlabeled=3)
    if network.discriminators:
        with torch.no_grad():
            bias_to_the_middle(network, batch)
    images, valid = network.normalize(torch.cat(batch.unlabeled)), torch.cat(batch.unlabeled_valid).float()
    step = tiny.teaching_step(network, 3 * network.teacher_logits(images), images, valid, number)
    return network, step, network.region_weights(step)


def in_regions(values, step):
    return regions.region_mean(values.float(), step.valid, 8).squeeze(1)


def test_probability_is_the_mean_of_both_networks_for_the_label_in_question():
    network, step, weights = weighed({"filter": {"by": "probability", "keep": "fraction", "fraction": 0.4}})
    both = step.teacher_logits.softmax(2).mean(0)
    for k in range(2):
        own = in_regions(both.gather(1, step.teacher_logits[k].argmax(1, keepdim=True)), step)
        torch.testing.assert_close(step.ranking[k], own)
        kept, relevant = in_regions(weights[k], step) > 0, regions.any_valid(step.valid, 8).squeeze(1)
        assert kept.sum() == keep_count(0.4, int(relevant.sum())) and own[kept].min() >= own[relevant & ~kept].max()
        torch.testing.assert_close(tiny.rate(network, step, "probability", step.scores)[k], own)


def test_confidence_is_lowered_where_the_networks_differ():
    _, step, _ = weighed({"filter": {"by": "confidence_divergence", "keep": "fraction"}})
    apart = in_regions(jensen_shannon(*step.teacher_logits), step)
    for k in range(2):
        sure = in_regions(step.teacher_logits[k].softmax(1).amax(1, keepdim=True), step)
        torch.testing.assert_close(step.ranking[k], sure * (-apart).exp())


def test_pixels_have_a_threshold_of_their_own_and_are_counted_as_pixels():
    rule = {"by": "pixel_confidence", "keep": "threshold", "tau": 0.5}
    _, step, weights = weighed({"filter": rule})
    kept = (step.teacher_logits.softmax(2).amax(2, keepdim=True) >= 0.5) & (step.valid > 0)
    assert torch.equal(weights, kept.float()) and 0 < kept.float().mean() < 1
    torch.testing.assert_close(step.measures["coverage"], kept.sum() / (2 * step.valid.sum()))


def test_rho_weighs_pixels_by_their_region_where_pixels_are_filtered():
    rule = {"by": "pixel_confidence", "keep": "threshold", "tau": 0.5}
    network, step, weights = weighed({"filter": rule, "rho": "agreement"})
    rating = regions.to_pixels(tiny.rate(network, step, "agreement", step.scores).unsqueeze(2), 8, 32, 32)
    kept = (step.teacher_logits.softmax(2).amax(2, keepdim=True) >= 0.5) & (step.valid > 0)
    for k in range(2):
        rated = (rating * kept)[k]
        torch.testing.assert_close(weights[k], rated * kept[k].sum() / rated.sum())


@pytest.mark.parametrize("by", ["region_score", "confidence", "probability", "pixel_confidence"])
def test_of_each_class_the_same_share_is_kept(by):
    network, step, weights = weighed({"filter": {"by": by, "per": "class", "keep": "fraction", "fraction": 0.5}})
    area = regions.region_sum(step.valid, network.side).squeeze(1)
    kept = regions.region_sum(weights * step.valid, network.side).squeeze(2) > 0
    for k in range(2):
        classes = network.region_classes(step, k)
        found = classes[area > 0].unique()
        assert len(found) > 1
        for c in found:
            own = (classes == c) & (area > 0)
            assert (kept[k] & own).sum() == keep_count(0.5, int(own.sum()))
            best, dropped = step.ranking[k][kept[k] & own], step.ranking[k][~kept[k] & own]
            assert not len(dropped) or not len(best) or best.min() >= dropped.max()


def test_the_class_of_a_region_is_the_most_frequent_one_of_its_valid_pixels():
    network = tiny.model("local_filter")
    logits = torch.zeros(2, 1, 3, 32, 32)
    logits[0, :, 1, :10] = 1.0
    logits[0, :, 2, 10:] = 1.0
    valid = torch.ones(1, 1, 32, 32)
    valid[:, :, 8:12, 16:] = 0.0
    valid[:, :, 12:16, 16:] = 0.0
    step = tiny.teaching_step(network, logits, torch.zeros(0), valid)
    assert network.region_classes(step, 0).tolist() == [[[1, 1], [2, 2]]]
    valid[:, :, :9] = 0.0
    assert network.region_classes(step, 0).tolist() == [[[2, 0], [2, 2]]], "where nothing is valid, it does not matter"


@pytest.mark.parametrize("by", ["region_score", "probability", "pixel_confidence"])
@pytest.mark.parametrize("rho", ["none", "agreement"])
def test_soft_weights_are_the_score_above_a_floor_and_1_in_the_mean(by, rho):
    network, step, weights = weighed({"filter": {"by": by, "keep": "soft", "floor": 0.25}, "rho": rho})
    score = step.ranking.sigmoid() if by == "region_score" else step.ranking
    expected = 0.25 + 0.75 * score
    side = network.side
    if rho != "none":
        rating = tiny.rate(network, step, rho, step.scores)
        expected = expected * (rating if side == 8 else regions.to_pixels(rating, 8, 32, 32))
    expected = regions.to_pixels(expected.unsqueeze(2), side, 32, 32)
    for k in range(2):
        mean = (expected[k] * step.valid).sum() / step.valid.sum()
        torch.testing.assert_close(weights[k] * step.valid, expected[k] / mean * step.valid)
    assert step.measures["coverage"] == 1


def test_a_floor_of_1_weighs_all_alike():
    _, step, weights = weighed({"filter": {"by": "probability", "keep": "soft", "floor": 1.0}})
    torch.testing.assert_close(weights * step.valid, step.valid.expand_as(weights))


@pytest.mark.parametrize("rho", ["agreement", "divergence", "probability"])
def test_rho_weighs_all_regions_without_a_filter_and_asks_no_discriminator(rho):
    network, step, weights = weighed({"rho": rho}, row="cps_cutmix")
    area = regions.region_sum(step.valid, 8).squeeze(1)
    rating = tiny.rate(network, step, rho, None)
    expected = normalized(rating, (area > 0).expand(2, *area.shape), area)
    torch.testing.assert_close(weights, regions.to_pixels(expected.unsqueeze(2), 8, 32, 32))
    assert not network.discriminators and len(rating.unique()) > 2


@pytest.mark.parametrize("rho", ["product", "mean", "votes"])
def test_a_rating_of_the_discriminators_trains_them_without_a_filter(rho):
    network = tiny.model("cps_cutmix", {"method": {"rho": rho}})
    assert len(network.discriminators) == 2
    _, terms, step = losses("cps_cutmix", {"method": {"rho": rho}})
    assert terms["consistency"].isfinite() and set(tiny.discriminator_losses(network, step))


def test_both_learn_the_ensembles_labels_where_the_row_says_so():
    changes = {"method": {"labels_from": "ensemble", "cutmix": False}}
    network, batch = tiny.model("cps_cutmix", changes), tiny.batch()
    pseudo = network.pseudo_label(network.begin_step(batch, 0))
    mean = network.teacher_logits(network.normalize(torch.cat(batch.unlabeled))).softmax(2).mean(0)
    expected = mean.argmax(1, keepdim=True)[: len(batch.unlabeled[0])]
    assert torch.equal(pseudo.labels, expected.expand(2, *expected.shape))


@pytest.mark.parametrize("by", ["region_score", "probability"])
def test_doubted_regions_get_the_ensembles_labels_and_the_others_keep_theirs(by):
    rule = {"by": by, "keep": "fraction", "fraction": 1.0}
    tau = {"region_score": 0.5, "probability": 0.45}[by]
    network, step, _ = weighed({"filter": {**rule, "tau": tau}, "labels_from": "ensemble_below_tau"})
    labels = network.corrected_labels(step)
    score = step.ranking.sigmoid() if by == "region_score" else step.ranking
    doubted = regions.to_pixels((score < tau).unsqueeze(2), 8, 32, 32)
    own = step.teacher_logits.argmax(2, keepdim=True)
    ensemble = step.teacher_logits.softmax(2).mean(0).argmax(1, keepdim=True)
    assert torch.equal(labels, torch.where(doubted, ensemble, own))
    assert not torch.equal(labels, own) and 0 < doubted.float().mean() < 1
    assert torch.equal(step.labels, own), "labels are weighed before they are corrected"


def test_nothing_is_filtered_weighed_or_corrected_before_its_start():
    rule = {"by": "probability", "keep": "soft", "start": 2, "tau": 1.0}
    changes = {"filter": rule, "rho": "agreement", "labels_from": "ensemble_below_tau"}
    network, step, weights = weighed(changes, number=1)
    own = step.teacher_logits.argmax(2, keepdim=True)
    assert (weights == 1).all() and torch.equal(network.corrected_labels(step), own)


def test_students_learn_the_corrected_labels():
    changes = {"rho": "none", "labels_from": "ensemble_below_tau", "filter": {"by": "probability", "tau": 1.0}}
    network, batch = tiny.still(tiny.model("rrn", {"method": changes})), tiny.batch()
    step = network.begin_step(batch, 0)
    pseudo = network.pseudo_label(step)
    assert torch.equal(step.labels, network.ensemble_labels(step)) and not torch.equal(*step.teacher_logits.argmax(2))
    assert torch.equal(pseudo.labels, torch.stack([mix(labels, batch.mix) for labels in step.labels]))


def test_averages_teach_where_the_row_says_so():
    network, batch = tiny.model("cps_cutmix", {"method": {"teacher": "ema"}}), tiny.batch()
    network.add_teachers()
    images = network.normalize(torch.cat(batch.unlabeled))
    assert torch.equal(network.teacher_logits(images), tiny.model("cps_cutmix").teacher_logits(images))
    with torch.no_grad():
        network.segmenters[0].network.segmentation_head[0].bias.add_(torch.tensor([5.0, 0.0, 0.0]))
    assert torch.equal(network.teacher_logits(images), tiny.model("cps_cutmix").teacher_logits(images))
    assert not any(p.requires_grad for p in network.teachers.parameters())


def test_teachers_are_the_mean_of_the_first_steps_and_then_decay():
    network = tiny.model("cps_cutmix", {"method": {"teacher": "ema", "teacher_decay": 0.6}})
    network.add_teachers()
    weight, average = next(network.segmenters.parameters()), next(network.teachers.parameters())
    norm, mean = network.segmenters[0].get_buffer, network.teachers[0].get_buffer
    name = next(name for name, _ in network.segmenters[0].named_buffers() if name.endswith("running_mean"))
    seen = []
    for number, value in enumerate((1.0, 4.0, 7.0, 2.0)):
        with torch.no_grad():
            weight.fill_(value)
            norm(name).fill_(10 * value)
            norm(name.replace("running_mean", "num_batches_tracked")).fill_(number)
        network.update_teachers(number, torch.tensor(True))
        network.update_teachers(number, torch.tensor(False))
        seen.append(average.flatten()[0].item())
        assert mean(name)[0].item() == pytest.approx(10 * seen[-1])
        assert mean(name.replace("running_mean", "num_batches_tracked")) == number
    third = 0.6 * 2.5 + 0.4 * 7
    assert seen == pytest.approx([1.0, 2.5, third, 0.6 * third + 0.4 * 2])


# ---- One student and its teacher -------------------------------------------------------------------------------------

STUDENT = {"networks": "student_teacher", "teacher_statistics": "running"}


def student_of(row="rrn", **changes):
    """Return a network that stands still, whose second segmenter is the first one's teacher and unlike it."""
    network = tiny.still(tiny.model(row, {"method": {**STUDENT, **changes}}))
    other = state(network.segmenters[1])
    network.add_teachers()
    assert same(state(network.segmenters[0]), state(network.segmenters[1])), "it begins as its student"
    network.segmenters[1].load_state_dict(other)
    return network


@pytest.mark.parametrize("merged", [False, True])
def test_one_network_learns_and_its_teacher_gets_no_gradient_and_has_no_losses(merged):
    network, batch = student_of("cps_cutmix"), tiny.batch()
    terms, step = tiny.segmenter_losses(network, batch, 0, merged)
    found = gradients(network, terms)
    assert all((value is not None) == name.startswith("segmenters.0.") for name, value in found.items())
    assert not any(p.requires_grad for p in network.segmenters[1].parameters()) and not network.teachers
    student, teacher = (network.logits(images) for images in (batch.images, torch.cat(batch.unlabeled)))
    entropy = nn.functional.cross_entropy
    torch.testing.assert_close(terms["supervised"], entropy(student[0], batch.labels, ignore_index=IGNORE_INDEX))
    labels = mix(teacher[1].argmax(1, keepdim=True), batch.mix)[:, 0]
    valid, seen = mix(step.valid, batch.mix)[:, 0], network.logits(mix(torch.cat(batch.unlabeled), batch.mix))
    expected = (entropy(seen[0], labels, reduction="none") * valid).sum() / valid.sum()
    torch.testing.assert_close(terms["consistency"], expected)
    assert not torch.equal(*teacher.argmax(2))


def test_discriminators_judge_a_student_and_its_teacher():
    judge = {"objective": "accuracy", "feature_matching": 0.0, "dropout": 0.0}
    network, batch = student_of("rrn", discriminator=judge), tiny.batch()
    _, step = tiny.segmenter_losses(network, batch, 0)
    terms = tiny.discriminator_losses(network, step)
    torch.testing.assert_close(torch.stack(step.labeled_logits), network.logits(batch.images))
    found = gradients(network, terms)
    assert all((value is not None) == name.startswith("discriminators") for name, value in found.items())
    pair = tiny.still(tiny.model("rrn", {"method": {"teacher_statistics": "running", "discriminator": judge}}))
    _, expected = tiny.segmenter_losses(pair, batch, 0)
    for name, value in tiny.discriminator_losses(pair, expected).items():
        torch.testing.assert_close(terms[name], value)
    assert step.scores.shape == expected.scores.shape == (2, 1, 4, 2, 2)


def test_what_is_measured_of_one_student_is_of_the_labels_that_it_learns_from():
    rule = {"by": "pixel_confidence", "keep": "threshold", "tau": 0.4}
    network = student_of("cps_cutmix", filter=rule)
    _, step = tiny.segmenter_losses(network, tiny.batch(), 0)
    kept = ((step.teacher_logits.softmax(2).amax(2, keepdim=True) >= 0.4) & (step.valid > 0)).flatten(1).sum(1)
    assert kept[0] != kept[1]
    for name in ("coverage", "weight"):
        torch.testing.assert_close(step.measures[name], kept[1] / step.valid.sum())
    torch.testing.assert_close(step.measures["agreement"], (step.agreement * step.valid).sum() / step.valid.sum())


def test_rho_of_a_student_and_its_teacher_is_their_agreement():
    network = student_of("cps_cutmix", rho="agreement", cutmix=False, grid=4, teacher_statistics="batch")
    step = network.begin_step(tiny.batch(), 0)
    pseudo = network.pseudo_label(step)
    rating = regions.region_mean(step.agreement, step.valid, 8).squeeze(1)
    area = regions.region_sum(step.valid, 8).squeeze(1)
    expected = regions.to_pixels(normalized(rating[None], area[None] > 0, area).unsqueeze(2), 8, 32, 32)
    torch.testing.assert_close(pseudo.weights[1], expected[0].chunk(2)[0])
    assert len(rating.unique()) > 2
