"""One step of every row on torch's meta device, which has no values and is not the CPU.

A read back to the host (item, nonzero, a branch on a value) or a tensor made on the wrong device raises there, as it
would stall or fail on a GPU. test_gpu_step.py takes these steps there.
"""

from collections import Counter

import pytest
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rrn import config, method
from rrn.models import modes
from rrn.training import learner

META = torch.device("meta")
SPEEDS = {"merged": {"merged": True}, "checkpointing": {"checkpointing": True}}
OFF = {"feature_matching": 0.0}
CONTROLS = {
    "accuracy": ("rrn", {"discriminator": {"objective": "accuracy", "feature_matching": 0.0}}),
    "hard": ("rrn", {"discriminator": {"maps": "hard", "feature_matching": 0.0}}),
    "threshold": ("confidence_filter", {"filter": {"keep": "threshold"}}),
    "adamw": ("rrn", {}),
    "running": ("cps_cutmix", {"teacher_statistics": "running"}),
    **dict.fromkeys(SPEEDS, ("rrn", {})),
    **{rho: ("rrn", {"rho": rho}) for rho in ("product", "mean", "votes", "divergence", "probability")},
    **{by: ("rrn", {"filter": {"by": by}}) for by in ("probability", "confidence_divergence", "pixel_confidence")},
    "class": ("rrn", {"filter": {"per": "class"}}),
    "soft": ("rrn", {"filter": {"keep": "soft"}, "rho": "none"}),
    "no filter": ("cps_cutmix", {"rho": "agreement"}),
    "ensemble": ("cps_cutmix", {"labels_from": "ensemble"}),
    "doubted": ("rrn", {"labels_from": "ensemble_below_tau"}),
    "average": ("cps_cutmix", {"teacher": "ema"}),
    "student": ("rrn", {"networks": "student_teacher", "discriminator": {"objective": "accuracy", **OFF}}),
}
OURS = config.read(tiny.PARAMS)["methods"]
ROWS = {f"{row} of params.yaml": (row, {}) for row in OURS} | CONTROLS


def learner_of(settings, classes=tiny.CLASSES):
    """Return what learns a row on the meta device."""
    model = learner.prepare_for(method.RRN(settings, classes, 0), META, settings.speed).train()
    return learner.Learner(model, settings, settings.train, decay=True)


@pytest.mark.parametrize("name", ROWS)
def test_a_step_reads_nothing_back(name):
    row, changes = ROWS[name]
    rows = {} if name in CONTROLS else {"methods": OURS}
    speed = SPEEDS.get(name, {})
    optimizer = {"kind": "adamw", "head": 10.0} if name == "adamw" else {}
    settings = config.resolve(
        tiny.params() | rows, row, {"device": "meta", "method": changes, "speed": speed, "optimizer": optimizer}
    )
    run = learner_of(settings)
    for step in range(2):
        terms = run.step(tiny.batch().to(META), step)
    assert all(value.device == META and value.shape == () for value in terms.values())
    assert all(p.device == META for p in run.model.parameters())
    expected = {"supervised"}
    if settings.method.consistency:
        expected |= {"consistency", "coverage", "weight", "agreement"}
    if settings.method.uses_discriminators:
        expected |= {"discriminator_1", "discriminator_2"}
        expected |= {"feature_matching"} if settings.method.discriminator.feature_matching else set()
    assert set(terms) == expected


class Operators(TorchDispatchMode):
    """Counts the operators that take part in a step, those without a kernel of their own left out.

    Args:
        touching: count only those that get one of these tensors, or a view of one.
    """

    def __init__(self, touching=()):
        super().__init__()
        self.names, self.touching = Counter(), {storage(tensor) for tensor in touching}

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        given = {storage(value) for value in tree_leaves((arguments, keywords)) if isinstance(value, torch.Tensor)}
        if not function.is_view and (not self.touching or given & self.touching):
            self.names[function.overloadpacket.__name__] += 1
        return function(*arguments, **(keywords or {}))


class Travelers(TorchDispatchMode):
    """Notes the operators that take tensors of the host and of the device, or bring one from one to the other.

    A copy that is not waited for is none of them.
    """

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        result = function(*arguments, **keywords)
        tensors = [v for v in tree_leaves((arguments, keywords, result)) if isinstance(v, torch.Tensor)]
        if len({tensor.device for tensor in tensors}) > 1 and not keywords.get("non_blocking"):
            self.names.add(str(function))
        return result


@pytest.mark.parametrize("row", OURS)
def test_no_tensor_of_the_host_takes_part_in_a_step(row):
    run = learner_of(config.resolve(tiny.params() | {"methods": OURS}, row, {"device": "meta"}))
    batch = tiny.batch().to(META)
    with Travelers() as found:
        run.step(batch, 0)
    assert not found.names


def test_tensors_of_the_host_are_noticed():
    with Travelers() as found:
        torch.ones(2).to(META)
        torch.ones(2, device=META) * torch.tensor(2.0)
        torch.ones(2).to(META, non_blocking=True)
    assert found.names == {"aten._to_copy.default", "aten.mul.Tensor"}


def test_regions_are_laid_out_once():
    run, batch = learner_of(tiny.settings("rrn", {"device": "meta"})), tiny.batch().to(META)
    run.step(batch, 0)
    with Operators() as found:
        run.step(batch, 1)
    assert found.names["mm"] > 20, "sums over regions"
    assert found.names["arange"] < found.names["mm"]


def storage(tensor):
    """Return what tells the memory of one tensor from that of another."""
    return tensor.untyped_storage()._cdata


@pytest.mark.parametrize("row", ["supervised", "rrn"])
def test_a_step_keeps_the_statistics_of_batch_norm_in_a_few_operations(row):
    run = learner_of(tiny.settings(row, {"device": "meta"}))
    norms, passes = len(modes.counted(run.model)) // 3, 1 if row == "supervised" else 2
    with Operators(modes.counted(run.model)) as found:
        run.step(tiny.batch().to(META), 0)
    for learning in ("native_batch_norm", "native_batch_norm_backward", "add_"):
        assert found.names.pop(learning) == passes * norms > 40
    assert found.names == {"cat": 4, "_foreach_copy_": 2}, "numbers and counters, whatever their number"


def test_all_operations_that_keep_statistics():
    run = learner_of(tiny.settings("rrn", {"device": "meta"}))
    with Operators() as found:
        modes.NormStatistics(run.model).keep(run.first_nonfinite_step < 0)
    assert found.names == {"lt": 1, "cat": 4, "where": 2, "_foreach_copy_": 2}


@pytest.mark.parametrize("row", OURS)
def test_a_step_at_full_size(row):
    values = config.read(tiny.PARAMS)
    for name in ("voc", "resnet50"):
        values = config.merge(values, config.read(tiny.PARAMS.parent / "presets" / f"{name}.yaml"))
    assert values["precision"] == "bf16", "autocast knows no meta device, so that fp32 is tried here"
    changes = {"device": "meta", "precision": "fp32", "model": {"weights": None}}
    run = learner_of(config.resolve(values, row, changes), classes=21)
    batch = tiny.batch(values["augment"]["crop"], values["batch"]["labeled"], values["batch"]["unlabeled"])
    terms = run.step(batch.to(META), 0)
    assert all(value.device == META and value.shape == () for value in terms.values())


def test_meta_catches_a_read_back():
    with pytest.raises(RuntimeError):
        torch.ones((), device=META).item()
