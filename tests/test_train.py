import json

import pandas as pd
import pytest
import tiny
import torch
from safetensors.torch import load_file

from rrn import checkpoint, config, distributed, learner, reliability, train
from rrn.checkpoint import ResumeError, Scratch
from rrn.config import SettingsError
from rrn.learner import LossError

KEY = ("train", "1of4", "rrn", 0)


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A tiny repository with a finished warmup."""
    folder = tiny.repository(tmp_path_factory.mktemp("train") / "repository")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny.warm_up(folder)
    return folder


@pytest.fixture(scope="module")
def whole(warm):
    """The outputs of a training of rrn that nothing interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(warm)
        patch.delenv("RRN_RESUME", raising=False)
        list(train.run(*KEY, warm / "whole"))
    return warm / "whole"


@pytest.fixture(autouse=True)
def inside(warm, monkeypatch):
    monkeypatch.chdir(warm)
    monkeypatch.delenv("RRN_RESUME", raising=False)
    monkeypatch.delenv("RRN_SCRATCH", raising=False)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stop_after(rows, *arguments):
    run = train.run(*arguments)
    for _ in range(rows):
        next(run)
    run.close()


def test_outputs(whole, warm):
    assert sorted(contents(whole)) == [
        "discriminators.safetensors",
        "history.csv",
        "reliability.csv",
        "run.json",
        "segmenters.safetensors",
    ]
    history = pd.read_csv(whole / "history.csv")
    assert history["step"].tolist() == [1, 2, 3, 4, 5, 6]
    expected = {"step", "lr", "supervised", "consistency", "feature_matching", "discriminator_1", "discriminator_2"}
    expected |= {"coverage", "weight", "agreement", "miou_1", "miou_2", "miou_mean", "miou_ensemble"}
    assert set(history) == expected
    assert history["miou_mean"].notna().tolist() == [False, False, True, False, False, True]
    assert history.drop(columns=[c for c in history if "miou" in c]).notna().all(axis=None)
    assert (history["coverage"] == 0.5).all()
    reliability = pd.read_csv(whole / "reliability.csv")
    assert set(reliability["split"]) == {"val", "unlabeled"} and set(reliability["step"]) == {3, 6}
    facts = json.loads((whole / "run.json").read_text(encoding="utf-8"))
    assert (facts["stage"], facts["partition"], facts["method"], facts["seed"], facts["step"]) == (*KEY, 6)
    assert facts["classes"] == ["ground", "disc", "square"] and len(facts["settings"]) == 12
    assert set(facts) == {*checkpoint.Description.model_fields} and str(warm) not in json.dumps(facts)
    assert facts["networks"]["region"] == 16 and facts["networks"]["method"]["rho"] == "agreement"
    assert not list((warm / ".scratch").glob("*train-1of4-rrn-0"))


def test_resume_equals_the_uninterrupted_run_bit_for_bit(whole, warm):
    out = warm / "resumed"
    stop_after(3, *KEY, out)
    assert not out.exists() and (warm / ".scratch" / "tiny-train-1of4-rrn-0" / "checkpoint.pt").exists()
    torch.manual_seed(99)
    rows = list(train.run(*KEY, out))
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    found, expected = contents(out), contents(whole)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_other_settings_are_refused_and_may_be_accepted(warm, monkeypatch):
    out, other = warm / "changed", {"optimizer": {"lr": 0.001}}
    arguments = ("train", "1of4", "cps_cutmix", 0, out)
    stop_after(3, *arguments)
    with pytest.raises(ResumeError, match=r"settings.optimizer.lr: 0.05 -> 0.001(.|\n)*RRN_RESUME=restart"):
        next(train.run(*arguments, other))
    monkeypatch.setenv("RRN_RESUME", "accept")
    rates = [row["lr"] for row in train.run(*arguments, other)]
    assert rates[0] > 0.01 and rates[-1] < 0.001 and len(rates) == 6


def test_a_changed_input_is_refused(warm):
    arguments = ("train", "1of4", "local_filter", 0, warm / "inputs")
    path = warm / "runs" / "tiny" / "warmup" / "1of4-0" / "segmenters.safetensors"
    before = path.read_bytes()
    stop_after(3, *arguments)
    path.write_bytes(before + b" ")
    try:
        with pytest.raises(ResumeError, match="inputs: "):
            Scratch(warm, "tiny-train-1of4-local_filter-0", train.job(*arguments).identity())
    finally:
        path.write_bytes(before)


def test_labels_of_unlabeled_images_are_never_needed(warm, whole):
    split = json.loads((warm / "runs" / "tiny" / "prepare" / "1of4" / "split.json").read_text(encoding="utf-8"))
    hidden = warm / "hidden"
    hidden.mkdir()
    labels = warm / "data" / "labels" / "train"
    for name in split["unlabeled"]:
        (labels / f"{name}.png").rename(hidden / f"{name}.png")
    try:
        list(train.run(*KEY, warm / "without"))
    finally:
        for path in hidden.iterdir():
            path.rename(labels / path.name)
    found, expected = contents(warm / "without"), contents(whole)
    same = [name for name in expected if found.get(name) == expected[name]]
    assert {"segmenters.safetensors", "discriminators.safetensors", "history.csv"} <= set(same)
    assert set(pd.read_csv(warm / "without" / "reliability.csv")["split"]) == {"val"}


def test_rows_start_from_the_warmup_of_their_seed(warm):
    warmed = load_file(warm / "runs" / "tiny" / "warmup" / "1of4-0" / "segmenters.safetensors")
    for row in ("supervised", "cps_cutmix", "rrn", "supervised_all"):
        start = train.Training(train.job("train", "1of4", row, 0, warm / "none")).model.segmenters.state_dict()
        assert start.keys() == warmed.keys() and all(torch.equal(start[name], warmed[name]) for name in warmed)
    fresh = train.Training(train.job("warmup", "1of4", None, 0, warm / "none")).model.segmenters.state_dict()
    assert not all(torch.equal(fresh[name], warmed[name]) for name in warmed)


def test_training_without_a_warmup_says_what_to_run(warm):
    with pytest.raises(SettingsError, match=r"1of4-5 has no segmenters.safetensors: run `dvc repro` for that stage"):
        next(train.run("train", "1of4", "rrn", 5, warm / "none"))


def test_a_loss_that_is_not_finite_stops_before_anything_is_saved(warm, monkeypatch):
    plain = train.Learner.step

    def broken(self, batch, step):
        terms = plain(self, batch, step)
        return terms | ({"consistency": torch.tensor(float("nan"))} if step == 3 else {})

    arguments = ("train", "1of4", "cps", 0, warm / "broken")
    monkeypatch.setattr(train.Learner, "step", broken)
    text = (
        r"loss 'consistency' is nan at step 3 of train 1of4-cps-0 \(seed 0\); its update was not applied, and nothing"
    )
    with pytest.raises(LossError, match=text):
        list(train.run(*arguments))
    assert not (warm / "broken").exists()
    state = torch.load(warm / ".scratch" / "tiny-train-1of4-cps-0" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 2
    monkeypatch.setattr(train.Learner, "step", plain)
    assert len(list(train.run(*arguments))) == 6


@pytest.mark.parametrize(("spoiled", "done"), [("segmenters", 4), ("segmenters", 6), ("discriminators", 6)])
def test_weights_that_are_not_finite_are_never_saved(warm, tmp_path, monkeypatch, spoiled, done):
    plain = train.Learner.step

    def overflow(self, batch, step):
        terms = plain(self, batch, step)
        if step == done - 1:
            next(getattr(self.model, spoiled).parameters()).data[0] = float("nan")
        assert all(value.isfinite() for value in terms.values())
        return terms

    monkeypatch.setenv("RRN_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr(train.Learner, "step", overflow)
    text = rf"the update of step {done - 1} of train 1of4-rrn-0 \(seed 0\) left weights that are not finite; nothing"
    with pytest.raises(LossError, match=text):
        list(train.run(*KEY, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    state = torch.load(tmp_path / "scratch" / "tiny-train-1of4-rrn-0" / "checkpoint.pt", weights_only=True)
    assert state["step"] == done - 2
    assert all(value.isfinite().all() for value in state["model"].values())


def test_a_warmup_is_supervised_whatever_the_defaults(warm):
    changes = {"method": {"labels": "all", "filter": {"by": "region_score"}, "rho": "mean"}}
    run = train.job("warmup", "1of4", None, 0, warm / "none", changes)
    row = run.settings.method
    assert not row.consistency and not row.uses_discriminators and row.labels == "partition" and run.start is None
    assert run.key == "1of4-0" and run.schedule.steps == 2
    training = train.Training(run)
    seen = {name for batch in training._batches(0, 8) for name in batch.labeled_ids}
    assert seen <= set(training.split.labeled)


@pytest.mark.parametrize(("rule", "coverage"), [({"fraction": 0.25}, 0.25), ({"keep": "threshold", "tau": 0.0}, 1.0)])
def test_a_training_is_diagnosed_by_the_rule_of_its_row(warm, rule, coverage):
    changes = {"train": {"steps": 1}, "method": {"filter": rule}}
    list(train.run(*KEY, warm / "rule", changes))
    found = pd.read_csv(warm / "rule" / "reliability.csv")
    assert set(found["score"]) == set(reliability.SCORES)
    assert set(found["split"]) == {"val", "unlabeled"}
    kept = found.loc[found["class"] == reliability.EVERYTHING, "coverage"]
    assert kept.notna().all() and kept.mean() == pytest.approx(coverage, abs=0.08)  # of pixels: regions hold void
    assert kept.max() < 0.45 if coverage < 1 else kept.min() == 1


def test_another_number_of_processes_than_nproc_is_refused(warm, monkeypatch):
    monkeypatch.setattr(distributed, "world", lambda: 2)
    text = r"nproc: 1, but 2 processes were started; set nproc to the number of processes that RRN_LAUNCH starts"
    with pytest.raises(SettingsError, match=text):
        train.Training(train.job(*KEY, warm / "none"))


def test_identity_leaves_out_what_does_not_train(warm):
    first = train.job(*KEY, warm / "a").identity()
    assert first == train.job(*KEY, warm / "b", {"name": "tiny", "evaluate": {"batch": 1, "evidence": 1}}).identity()
    assert first != train.job(*KEY, warm / "b", {"threads": 2}).identity()
    assert first != train.job(*KEY, warm / "b", {"evaluate": {"flip": True}}).identity()  # history depends on it


@pytest.mark.parametrize("images", ["val", "unlabeled"])
def test_images_are_looked_at_as_evaluate_says(warm, images):
    run = train.Training(train.job(*KEY, warm / "none"))
    run.predictor.protocol = run.predictor.protocol.model_copy(update={"mode": "pad", "window": (20, 27)})
    with pytest.raises(SettingsError, match="an image of 20 x 28 pixels"):
        list(run._look(getattr(run, images), []))


def test_val_goes_through_the_networks_once_for_miou_and_reliability(warm, monkeypatch):
    run = train.Training(train.job(*KEY, warm / "none"))
    seen = []
    monkeypatch.setattr(run.predictor, "logits", lambda images: seen.append(len(images)) or run.model.logits(images))
    run._evaluate(1)
    assert sum(seen) == len(run.val.ids) + len(run.unlabeled.ids)
    assert {row["split"] for row in run.reliability} == {"val", "unlabeled"}


def test_an_image_that_does_not_fit_is_found_before_the_first_step(warm):
    narrow = {"evaluate": {"mode": "pad", "window": [20, 34], "scales": [1.0, 1.25]}}
    with pytest.raises(SettingsError, match=r"an image of 25 x 35 pixels .* does not fit window: \[20, 34\]"):
        train.Training(train.job(*KEY, warm / "none", narrow))


def test_learning_rate():
    values = tiny.settings().optimizer.model_copy(update={"lr": 1.0, "poly": 0.9})
    schedule = config.Schedule(steps=10, lr_ramp=4)
    rates = [learner.learning_rate(step, values, schedule, decay=False) for step in range(10)]
    assert rates == [0.25, 0.5, 0.75, *[1.0] * 7]
    decayed = [learner.learning_rate(step, values, schedule, decay=True) for step in range(10)]
    assert decayed == pytest.approx([rate * (1 - step / 10) ** 0.9 for step, rate in enumerate(rates)])


def test_norms_and_biases_are_not_decayed_and_every_parameter_learns():
    settings = tiny.settings("rrn")
    model = tiny.model("rrn")
    built = learner.optimizers(model, settings)
    decayed, plain = built["segmenters"].param_groups
    assert {p.ndim for p in decayed["params"]} == {4} and {p.ndim for p in plain["params"]} == {1}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (settings.optimizer.weight_decay, 0)
    learning = [p for optimizer in built.values() for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in learning} == {id(p) for p in model.parameters()}
    assert list(learner.optimizers(tiny.model("cps"), tiny.settings("cps"))) == ["segmenters"]


def test_half_precision_runs(warm):
    rows = list(train.run("train", "1of4", "rrn", 0, warm / "half", {"precision": "bf16", "train": {"steps": 2}}))
    assert rows[0]["coverage"] == 0.5 and all(torch.tensor(list(row.values())).isfinite().all() for row in rows)
