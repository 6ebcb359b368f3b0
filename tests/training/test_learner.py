"""What makes a step fast or small must not change it: each fast way against the obvious one."""

import copy

import pytest
import tiny
import torch
from tiny import same, state
from torch import nn

from rrn import config
from rrn.config import SettingsError
from rrn.method import RRN
from rrn.models.modes import NormStatistics, counted, recomputing
from rrn.models.segmenter import Segmenter, speed_up
from rrn.runtime.memory import MemoryShortage
from rrn.training import learner
from rrn.training.learner import LossError

STUDENT = {"networks": "student_teacher", "strong": {"jitter": 0.5, "views": 2}}
PLAIN = {"method": {"teacher_statistics": "running", "discriminator": {"dropout": 0.0}}}


def learner_of(row="rrn", changes=None, frozen=False):
    """Return the learner of a tiny row; `frozen`: batch norm and dropout depend on one image at a time."""
    settings = tiny.settings(row, changes)
    model = learner.prepare_for(tiny.model(row, changes), torch.device("cpu"), settings.speed)
    return learner.Learner(tiny.still(model) if frozen else model, settings, settings.train, decay=True)


def gradients(of, batch, step=0):
    """Return the terms, and the gradient of every parameter, of one batch."""
    for optimizer in of.optimizers.values():
        optimizer.zero_grad()
    terms = of._gradients(batch, step)
    return terms, {name: p.grad for name, p in of.model.named_parameters() if p.grad is not None}


def assert_same(found, expected, **tolerances):
    assert found.keys() == expected.keys() and len(found) > 0
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=lambda m, n=name: f"{n}: {m}", **tolerances)


def both_same(fast, plain, **tolerances):
    for found, expected in zip(fast, plain, strict=True):
        assert_same(found, expected, **tolerances)


# ---- Passes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ["supervised", "cps_cutmix", "local_filter", "rrn"])
def test_gradients_taken_pass_by_pass_are_those_of_the_sum(row):
    of, batch = learner_of(row), tiny.batch()
    plain = copy.deepcopy(of.model)
    found = gradients(of, batch)
    terms, step = tiny.segmenter_losses(plain, batch, 0)
    sum(terms.values()).backward()
    judged = tiny.discriminator_losses(plain, step)
    if judged:
        sum(judged.values()).backward()
    expected = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    assert_same(found[1], expected)
    assert_same(found[0], {n: v.detach() for n, v in (terms | judged | step.measures).items()})


def test_one_pass_is_in_memory_at_a_time():
    alive, most = set(), []

    def count(module, given, result):
        number = len(most)
        alive.add(number)
        result.grad_fn.register_hook(lambda *_: alive.discard(number))
        most.append(len(alive))

    of = learner_of("rrn")
    for segmenter in of.model.segmenters:
        segmenter.register_forward_hook(lambda m, g, r: count(m, g, r) if r.requires_grad else None)
    of.step(tiny.batch(), 0)
    assert most == [1, 1, 1, 1]


@pytest.mark.parametrize("row", ["supervised", "cps_cutmix", "rrn"])
def test_merged_passes_are_two_where_batch_norm_is_frozen(row):
    batch = tiny.batch()
    plain, merged = (gradients(learner_of(row, {**PLAIN, "speed": {"merged": m}}, True), batch) for m in (False, True))
    both_same(merged, plain, rtol=1e-4, atol=1e-6)


def test_merged_passes_share_the_statistics_of_batch_norm():
    of = learner_of("cps_cutmix", {"speed": {"merged": True}})
    sizes = []
    for segmenter in of.model.segmenters:
        segmenter.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    of.step(tiny.batch(), 0)
    assert sizes == [4, 4, 4, 4], "two teachers of u0 and u1, two students of labeled and mixed"
    counts = [b for n, b in of.model.named_buffers() if n.endswith("num_batches_tracked")]
    assert counts and all(count == 1 for count in counts)


# ---- Memory ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ["supervised", "rrn"])
def test_checkpointing_gives_the_same_gradients_and_running_statistics(row):
    plain, small = (learner_of(row, {"speed": {"checkpointing": c}}) for c in (False, True))
    saved = []
    batch = tiny.batch()
    found = []
    for of in (plain, small):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t.numel()), t)[1], lambda t: t):
            found.append(gradients(of, batch))
        found[-1] += (sum(saved),)
        saved.clear()
    both_same(found[1][:2], found[0][:2])
    assert found[1][2] < found[0][2], "nothing was forgotten"
    assert_same(dict(small.model.named_buffers()), dict(plain.model.named_buffers()))


def test_norms_that_are_recomputed_keep_a_counter():
    class Strict(nn.BatchNorm2d):
        def forward(self, given):
            assert self.num_batches_tracked is not None, "as synchronized batch norm does"
            return super().forward(given)

    norm = Strict(2).train()
    norm(torch.rand(2, 2, 3, 3))
    before = {name: value.clone() for name, value in norm.named_buffers()}
    with recomputing(norm):
        norm(torch.rand(2, 2, 3, 3))
    assert all(torch.equal(value, before[name]) for name, value in norm.named_buffers())


def test_an_encoder_without_stages_cannot_compute_again():
    settings = tiny.settings("cps", {"model": {"encoder": "mobilenet_v2"}, "speed": {"checkpointing": True}})
    network = Segmenter(settings.model, 3, pretrained=False)
    with pytest.raises(SettingsError, match=r"speed.checkpointing: true, but this encoder has no stages"):
        speed_up(network, settings.speed)


# ---- Compiling ---------------------------------------------------------------------------------------------------


def test_a_compiled_network_is_the_same_network():
    torch._dynamo.reset()
    batch = tiny.batch()
    plain, compiled = (learner_of("rrn", {"speed": {"compile": c}}) for c in (None, "aot_eager"))
    both_same(gradients(compiled, batch), gradients(plain, batch), rtol=1e-3, atol=1e-5)
    assert compiled.model.state_dict().keys() == plain.model.state_dict().keys()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0, "nothing was compiled"


def test_a_compiler_that_torch_does_not_know():
    with pytest.raises(SettingsError, match=r"speed.compile: torch has no backend 'indutcor'; did you mean 'inductor'"):
        learner_of("cps", {"speed": {"compile": "indutcor"}})


@pytest.mark.parametrize(("device", "expected"), [("cuda", True), ("cpu", False), ("meta", False)])
def test_on_a_gpu_the_fastest_convolutions_are_tried_out(monkeypatch, device, expected):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(RRN, "to", lambda model, *_, **__: model)  # there may be no such device
    learner.prepare_for(tiny.model("cps"), torch.device(device), tiny.settings("cps").speed)
    assert torch.backends.cudnn.benchmark == expected


# ---- Precision ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("merged", [False, True])
def test_every_pass_has_gradients_in_half_precision(merged, precision):
    of = learner_of("rrn", {"precision": precision, "speed": {"merged": merged}})
    for wanted in ("supervised", "consistency", "feature_matching"):
        only = {}
        losses = of.model.segmenter_losses(of.model.begin_step(tiny.batch(), 0), merged)
        of.optimizers["segmenters"].zero_grad()
        of._backward(({n: v * (n == wanted) for n, v in terms.items()} for terms in losses), only)
        encoders = [p for n, p in of.model.named_parameters() if n.endswith("conv_stem.weight")]
        assert len(encoders) == 2 and all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoders), wanted


def test_a_scaler_skips_a_step_that_overflows_and_lowers_its_scale():
    of = learner_of("rrn", {"precision": "fp16"})
    of.scaler.scale(torch.zeros(()))
    of.scaler.update(torch.finfo(torch.float32).max / 1e3)
    before = [p.detach().clone() for p in of.model.segmenters.parameters()]
    history = [of.step(tiny.batch(), 0)]
    assert all(torch.equal(p, old) for p, old in zip(of.model.segmenters.parameters(), before, strict=True))
    of.require_finite(history, 1, "no loss was bad")
    of.scaler.update(1.0)
    of.step(tiny.batch(), 1)
    assert not all(torch.equal(p, old) for p, old in zip(of.model.segmenters.parameters(), before, strict=True))


def test_the_scale_of_half_precision_comes_back():
    first, second = (learner_of("rrn", {"precision": "fp16"}) for _ in range(2))
    first.scaler.scale(torch.zeros(()))
    first.scaler.update(8.0)
    second.load(first.state())
    assert second.scaler.get_scale() == 8.0


def test_double_precision_stays_double():
    of = learner_of("rrn")
    of.model.double()
    terms = of.step(tiny.batch(), 0)
    assert all(value.dtype == torch.float64 for name, value in terms.items() if name != "coverage")


# ---- Bad losses --------------------------------------------------------------------------------------------------


def spoil(of, step_, what):
    """Make the learner's step number `step_` go wrong."""
    plain = of._gradients

    def spoiled(batch, step):
        terms = plain(batch, step)
        if step == step_:
            if what == "gradient":
                next(of.model.discriminators.parameters()).grad[0, 0, 0, 0] = float("inf")
            else:
                terms[what] = terms[what] * float("nan")
        return terms

    of._gradients = spoiled


@pytest.mark.parametrize(
    ("what", "text"), [("gradient", "a gradient is not finite"), ("consistency", "loss 'consistency' is nan")]
)
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_from_a_bad_step_on_no_update_is_applied(what, text, kind):
    of = learner_of("rrn", {"optimizer": {"kind": kind}})
    spoil(of, 1, what)
    history, states = [], []
    for step in range(3):
        history.append(of.step(tiny.batch(seed=step), step))
        states.append({n: p.detach().clone() for n, p in of.model.named_parameters()})
    assert not all(torch.equal(p, tiny.model("rrn").state_dict()[n]) for n, p in states[0].items())
    for later in states[1:]:
        assert all(torch.equal(later[name], value) for name, value in states[0].items())
    with pytest.raises(LossError, match=rf"{text} at step 1 of train 1 \(seed 0\); its update was not applied"):
        of.require_finite(history, 3, "train 1 (seed 0)")


def test_teachers_follow_sound_steps_and_are_in_the_state():
    of = learner_of("rrn", {"method": {"teacher": "ema", "teacher_decay": 0.9}})
    assert same(state(of.model.teachers), state(of.model.segmenters)), "they begin as the warmed-up segmenters"
    spoil(of, 2, "consistency")
    of.step(tiny.batch(seed=0), 0)
    assert same(state(of.model.teachers), state(of.model.segmenters))
    of.step(tiny.batch(seed=1), 1)
    assert not same(state(of.model.teachers), state(of.model.segmenters))
    before = state(of.model)
    of.step(tiny.batch(seed=2), 2)
    assert same(before, state(of.model))
    again = learner_of("rrn", {"method": {"teacher": "ema", "teacher_decay": 0.9}})
    again.load(of.state())
    assert same(state(again.model.teachers), state(of.model.teachers))


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_teacher_is_the_average_of_its_student_and_nothing_else_moves_it(kind):
    of = learner_of("rrn", {"method": {**STUDENT, "teacher_decay": 0.6}, "optimizer": {"kind": kind}})
    student, teacher = of.model.segmenters
    assert same(state(student), state(teacher)), "it begins as its student"
    optimized = {p for group in of.optimizers["segmenters"].param_groups for p in group["params"]}
    assert optimized == set(student.parameters())
    expected = {name: torch.zeros_like(value) for name, value in student.named_parameters()}
    running = next(name for name, _ in student.named_buffers() if name.endswith("running_var"))
    expected[running] = torch.zeros_like(student.get_buffer(running))
    for step, share in enumerate((1.0, 1 / 2, 0.4, 0.4)):
        terms = of.step(tiny.batch(seed=step), step)
        assert all(p.grad is None for p in teacher.parameters()) and all(value.isfinite() for value in terms.values())
        now, averaged = state(student), state(teacher)
        for name in expected:
            expected[name] = expected[name] + share * (now[name] - expected[name])
            torch.testing.assert_close(averaged[name], expected[name])
    assert not same(now, averaged)
    spoil(of, 4, "gradient")
    before = state(of.model)
    of.step(tiny.batch(seed=4), 4)
    assert same(before, state(of.model))


def test_a_student_and_its_teacher_go_on_from_a_state_as_they_were():
    first, again = (learner_of("rrn", {"method": STUDENT}) for _ in range(2))
    for step in range(2):
        first.step(tiny.batch(seed=step), step)
    again.load(copy.deepcopy(first.state()))
    for of in (first, again):
        of.step(tiny.batch(seed=2), 2)
    assert same(state(first.model), state(again.model))


def test_good_steps_are_read_back_whole():
    of = learner_of("cps")
    history = [of.step(tiny.batch(), step) for step in range(2)]
    values = of.require_finite(history, 2, "train")
    assert values.shape == (2, len(history[0])) and values.dtype == torch.float64
    assert values[1].tolist() == [float(value) for value in history[1].values()]


def test_the_first_bad_step_is_named_whatever_comes_later():
    of = learner_of("cps")
    history = [of.step(tiny.batch(), step) for step in range(3)]
    history[2]["consistency"] = torch.tensor(float("inf"))
    with pytest.raises(LossError, match=r"loss 'consistency' is inf at step 6"):
        of.require_finite(history, 7, "train")
    of.first_nonfinite_step.fill_(5)
    with pytest.raises(LossError, match=r"a gradient is not finite at step 5"):
        of.require_finite(history, 7, "train")


def test_after_a_bad_loss_nothing_is_updated_in_half_precision_either():
    of = learner_of("rrn", {"precision": "fp16"})
    of.scaler.scale(torch.zeros(()))
    of.scaler.update(1.0)
    spoil(of, 1, "discriminator_1")
    states = []
    for step in range(3):
        of.step(tiny.batch(seed=step), step)
        states.append([p.detach().clone() for p in of.model.parameters()])
    for later in states[1:]:
        assert all(torch.equal(p, q) for p, q in zip(later, states[0], strict=True))


def test_a_fused_optimizer_skips_a_bad_step_on_its_device():
    for kind, options in ((torch.optim.SGD, {"momentum": 0.9}), (torch.optim.Adam, {}), (torch.optim.AdamW, {})):
        weight = nn.Parameter(torch.ones(3))
        optimizer = kind([weight], lr=0.1, fused=True, **options)
        for bad in (0.0, 1.0):
            weight.grad = torch.full((3,), float("nan") if bad else 1.0)
            before = weight.detach().clone()
            vars(optimizer).update(grad_scale=None, found_inf=torch.tensor(bad))
            optimizer.step()
            assert torch.equal(weight, before) == bool(bad), kind


def test_adamw_is_fused_on_every_device_with_values(monkeypatch):
    settings = tiny.settings("cps", {"optimizer": {"kind": "adamw"}})
    for device, fused in (("cpu", True), ("cuda", True), ("meta", False)):
        monkeypatch.setattr(RRN, "device", property(lambda _, device=device: torch.device(device)))
        assert learner.optimizers(tiny.model("cps"), settings)["segmenters"].defaults["fused"] == fused


def test_which_optimizers_are_fused(monkeypatch):
    fused = {}
    for device in ("cpu", "cuda"):
        monkeypatch.setattr(RRN, "device", property(lambda _, device=device: torch.device(device)))
        for precision in ("fp32", "bf16", "fp16"):
            built = learner.optimizers(tiny.model("rrn"), tiny.settings("rrn", {"precision": precision}))
            fused[device, precision] = [optimizer.defaults["fused"] for optimizer in built.values()]
    assert fused.pop(("cuda", "fp32")) == fused.pop(("cuda", "bf16")) == [True, True]
    assert set(map(tuple, fused.values())) == {(False, True)}


def test_a_checkpoint_does_not_say_which_kernels_are_used():
    of = learner_of("rrn")
    of.step(tiny.batch(), 0)
    state = of.state()
    kept = {name for moments in state["optimizers"]["discriminators"].values() for name in moments}
    assert kept == {"step", "exp_avg", "exp_avg_sq"}
    of.optimizers["segmenters"].param_groups[0]["fused"] = True  # as on a GPU
    of.load(state)
    assert [group["fused"] for group in of.optimizers["segmenters"].param_groups] == [True, False]


def test_settings_of_speed_are_off_by_default():
    speed = config.load(root=tiny.PARAMS.parent).speed
    assert speed == config.Speed(merged=False, compile=None, checkpointing=False)


# ---- Failures ----------------------------------------------------------------------------------------------------

LEAN = {
    "precision": "bf16",
    "speed": {"checkpointing": True},
    "batch": {"labeled": 3, "unlabeled": 3},
}
ANYHOW = [
    "nproc: more processes share a batch, with a GPU each",
    "batch.labeled, batch.unlabeled, augment.crop: with smaller ones it is another training",
]
CHECKPOINTING = "speed.checkpointing: true computes activations twice"
SHORTER = "precision: bf16 takes half of the activations"


@pytest.mark.parametrize(("changes", "ways"), [({}, [CHECKPOINTING, SHORTER]), (LEAN, [])])
def test_a_step_that_does_not_fit_into_memory_names_what_needs_less(monkeypatch, changes, ways):
    of, error = learner_of("rrn", changes), torch.OutOfMemoryError("CUDA out of memory")

    def full(*_):
        raise error

    monkeypatch.setattr(of.model, "begin_step", full)
    with pytest.raises(MemoryShortage) as caught:
        of.step(tiny.batch(), 0)
    first = "a step does not fit into memory (CUDA out of memory); what would need less:"
    assert str(caught.value).splitlines() == [first, *(f"  {way}" for way in ways + ANYHOW)]


def test_statistics_stay_those_before_the_first_spoiled_step():
    of = learner_of("rrn", {"method": {"teacher_statistics": "running"}})
    of.step(tiny.batch(seed=0), 0)
    before = {name: value.clone() for name, value in of.model.state_dict().items()}
    plain = of._gradients
    of._gradients = lambda batch, step: {n: v * float("nan") for n, v in plain(batch, step).items()}
    of.step(tiny.batch(seed=1), 1)
    of._gradients = plain
    of.step(tiny.batch(seed=2), 2)  # after it nothing changes either
    assert of.first_nonfinite_step == 1
    assert_same(of.model.state_dict(), before, rtol=0, atol=0)


def as_on_a_gpu(of):
    """Let a learner on the CPU take the ways of a GPU: nothing is asked, optimizers are fused."""
    of.device = torch.device("cuda")
    plain = of.optimizers["segmenters"]
    if isinstance(plain, torch.optim.SGD):
        parameters = [p for group in plain.param_groups for p in group["params"]]
        groups = [{"params": parameters, "factor": 1.0}]
        of.optimizers["segmenters"] = torch.optim.SGD(groups, lr=0.05, momentum=0.9, fused=True)
    assert all(optimizer.defaults["fused"] for optimizer in of.optimizers.values())
    return of


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_statistics_and_weights_are_kept_without_asking_too(kind):
    of = as_on_a_gpu(learner_of("rrn", {"optimizer": {"kind": kind}}))
    first = {name: value.clone() for name, value in of.model.state_dict().items()}
    of.step(tiny.batch(seed=0), 0)
    before = {name: value.clone() for name, value in of.model.state_dict().items()}
    counters = [name for name in before if name.endswith("num_batches_tracked")]
    assert counters and all(before[name] == first[name] + 2 for name in counters), "a sound step is kept whole"
    spoil(of, 1, "consistency")
    for step in (1, 2):
        of.step(tiny.batch(seed=step), step)
    assert of.first_nonfinite_step == 1
    assert_same(of.model.state_dict(), before, rtol=0, atol=0)


def test_a_sound_step_has_the_statistics_of_one_that_is_asked():
    asked, not_asked = learner_of("rrn"), as_on_a_gpu(learner_of("rrn"))
    for of in (asked, not_asked):
        of.step(tiny.batch(), 0)
    names = [name for name, _ in asked.model.named_buffers()]
    found, expected = ({name: of.model.get_buffer(name) for name in names} for of in (not_asked, asked))
    assert_same(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("what", [float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.parametrize("sound", [True, False])
def test_statistics_are_chosen_not_computed(sound, what):
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm1d(2), nn.ReLU()))
    network.double()
    buffers = counted(network)
    assert [tuple(buffer.shape) for buffer in buffers] == [(4,), (4,), (), (2,), (2,), ()]
    before = [buffer.clone() for buffer in buffers]
    kept = NormStatistics(network)
    for buffer in buffers:
        buffer.fill_(what if buffer.is_floating_point() else 7)
    spoiled = [buffer.clone() for buffer in buffers]
    kept.keep(torch.tensor(sound))
    for buffer, expected in zip(counted(network), spoiled if sound else before, strict=True):
        torch.testing.assert_close(buffer, expected, rtol=0, atol=0, equal_nan=True)
    assert all(a is b for a, b in zip(counted(network), buffers, strict=True))


def test_a_network_without_norms_has_no_statistics():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4))
    NormStatistics(network).keep(torch.tensor(False))
    assert counted(network) == []
