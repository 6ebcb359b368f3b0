"""One step of every row on torch's meta device, which has no values and is not the CPU.

A read back to the host (item, nonzero, a branch on a value) or a tensor made on the wrong device raises there, as it
would stall or fail on a GPU. test_gpu_step.py takes these steps there.
"""

import pytest
import tiny
import torch

from rrn import config, learner, method

META = torch.device("meta")
SPEEDS = {"merged": {"merged": True}, "checkpointing": {"checkpointing": True}}
CONTROLS = {
    "accuracy": ("rrn", {"discriminator": {"objective": "accuracy", "feature_matching": 0.0}}),
    "hard": ("rrn", {"discriminator": {"maps": "hard", "feature_matching": 0.0}}),
    "threshold": ("confidence_filter", {"filter": {"keep": "threshold"}}),
    "running": ("cps_cutmix", {"teacher_statistics": "running"}),
    **dict.fromkeys(SPEEDS, ("rrn", {})),
    **{rho: ("rrn", {"rho": rho}) for rho in ("product", "mean", "votes", "divergence")},
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
    settings = config.resolve(tiny.params() | rows, row, {"device": "meta", "method": changes, "speed": speed})
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
