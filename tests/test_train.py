import json
import math
import re
import signal
import threading
from pathlib import Path

import pandas as pd
import pytest
import tiny
import torch
from conftest import ROOT
from safetensors.torch import load_file

from rrn import config, train
from rrn.config import SettingsError
from rrn.data.decoding import DataError
from rrn.evaluation.inference import EvaluationShortage
from rrn.method import RRN
from rrn.reliability import measures
from rrn.reliability.scores import RANKED
from rrn.runs import finished, job, resume
from rrn.runs.resume import ResumeError, ResumeFolder
from rrn.runtime import distributed
from rrn.runtime.atomic_io import WriteError
from rrn.runtime.signals import Interrupted, StopRequest
from rrn.training import learner
from rrn.training.learner import LossError

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


def kept(folder):
    """Return the steps of the states that an interrupted run has left."""
    return [resume.read_state(path)["state"]["step"] for path in sorted(folder.glob("step-*"))]


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
    assert set(facts) == {*finished.RunCard.model_fields} and str(warm) not in json.dumps(facts)
    assert facts["networks"]["region"] == 16 and facts["networks"]["method"]["rho"] == "agreement"
    assert not list((warm / ".scratch").glob("*train-1of4-rrn-0"))


def test_resume_equals_the_uninterrupted_run_bit_for_bit(whole, warm):
    out = warm / "resumed"
    stop_after(3, *KEY, out)
    assert not out.exists() and kept(warm / ".scratch" / "tiny-train-1of4-rrn-0") == [2]
    torch.manual_seed(99)
    rows = list(train.run(*KEY, out))
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    found, expected = contents(out), contents(whole)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


STRONG = {"jitter": 0.5, "gray": 0.2, "blur": 0.5}
EMA = {"teacher": "ema", "labels_from": "ensemble_below_tau"}


STUDENT = {"networks": "student_teacher", "strong": {**STRONG, "views": 2}}


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": {"kind": "adamw", "lr": 0.001, "head": 10.0, "layer_decay": 0.8}},
        *({"method": method} for method in ({"strong": STRONG}, EMA, STUDENT)),
    ],
    ids=["adamw", "strong", "ema", "student"],
)
def test_a_resume_is_exact_with_other_settings_too(whole, warm, tmp_path, changes):
    runs = tmp_path / "whole", tmp_path / "resumed"
    list(train.run(*KEY, runs[0], changes))
    stop_after(3, *KEY, runs[1], changes)
    list(train.run(*KEY, runs[1], changes))
    assert contents(runs[1]) == contents(runs[0])
    assert contents(runs[0])["segmenters.safetensors"] != contents(whole)["segmenters.safetensors"]
    assert contents(runs[0]).keys() == contents(whole).keys(), "averages that teach leave no file"


PRETRAINED: dict[str, object] = {
    "method": {
        "discriminator": {
            **{"objective": "accuracy", "feature_matching": 0.0, "answers_of": "teachers", "cutmix": True},
            "pretrain": 3,
        }
    }
}


def test_discriminators_may_learn_before_segmenters_do(warm, monkeypatch):
    """On batches of their own; the segmenters stay as warmup left them to the bit."""
    training = train.Training(train.job(*KEY, warm / "none", PRETRAINED))
    before = [tiny.state(networks) for networks in (training.model.segmenters, training.model.discriminators)]
    purposes = []
    loader = train.training_loader
    monkeypatch.setattr(train, "training_loader", lambda *a, **k: purposes.append(a[3:]) or loader(*a, **k))
    training._pretrain()
    after = [tiny.state(networks) for networks in (training.model.segmenters, training.model.discriminators)]
    assert tiny.same(before[0], after[0]) and not any(
        torch.equal(before[1][name], after[1][name]) for name in after[1] if "weight" in name
    )
    assert purposes == [(0, 0, 3, "pretrain")] and training.done == 0
    assert "segmenters" in training.learner.optimizers and not training.learner.optimizers["segmenters"].state


def test_a_pretrained_run_that_is_stopped_goes_on_as_if_it_had_not_been(warm, tmp_path):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    list(train.run(*KEY, whole, PRETRAINED))
    stop_after(3, *KEY, resumed, PRETRAINED)
    again = train.Training(train.job(*KEY, resumed, PRETRAINED))
    again._pretrain = lambda: pytest.fail("what is resumed was pretrained")
    list(again.fit())
    assert contents(resumed) == contents(whole)


@pytest.mark.parametrize("at", [1, 3])
def test_a_run_that_is_stopped_while_it_pretrains_begins_again(warm, tmp_path, at):
    whole, out = tmp_path / "whole", tmp_path / "stopped"
    list(train.run(*KEY, whole, PRETRAINED))
    training = train.Training(train.job(*KEY, out, PRETRAINED))
    learn = training.learner.pretrain

    def pretrain(batch, number):
        if number == at - 1:
            signal.raise_signal(signal.SIGTERM)
        return learn(batch, number)

    training.learner.pretrain = pretrain
    said = "while its discriminators were pretrained; nothing of that is kept" if at == 1 else "after step 0 of 6"
    with pytest.raises(Interrupted, match=rf"^train 1of4-rrn-0 \(seed 0\) was asked to stop and did, {said}"):
        list(training.fit())
    list(train.run(*KEY, out, PRETRAINED))
    assert contents(out) == contents(whole)


def test_a_loss_that_is_not_finite_while_it_pretrains_is_said(warm, tmp_path):
    training = train.Training(train.job(*KEY, tmp_path / "out", PRETRAINED))
    with torch.no_grad():
        next(training.model.discriminators.parameters()).fill_(float("nan"))
    said = r"is nan at step 0 of the pretraining of train 1of4-rrn-0 \(seed 0\); its .*; lower method.discriminator.lr$"
    with pytest.raises(LossError, match=said):
        list(training.fit())
    assert not list((warm / ".scratch").glob("tiny-train-1of4-rrn-0/step-*"))


def test_a_warmup_does_not_depend_on_strong_views_or_on_who_learns_later(warm):
    both = (None, {"method": STUDENT})
    plain, strong = (train.job("warmup", "1of4", None, 0, warm / "out", changes) for changes in both)
    assert strong.settings.method.strong is None and strong.identity() == plain.identity()
    assert strong.settings.method.networks == "pair"


def test_a_student_is_what_is_scored_and_it_is_kept_beside_its_teacher(warm, tmp_path):
    list(train.run(*KEY, tmp_path / "out", {"method": STUDENT}))
    history = pd.read_csv(tmp_path / "out" / "history.csv").dropna()
    assert len(history) == 2 and (history["miou_mean"] == history["miou_1"]).all()
    weights = load_file(tmp_path / "out" / "segmenters.safetensors")
    warmed = load_file(warm / "runs" / "tiny" / "warmup" / "1of4-0" / "segmenters.safetensors")
    assert weights.keys() == warmed.keys()
    student, teacher = ({n[2:]: w for n, w in weights.items() if n[0] == k} for k in "01")
    assert not all(torch.equal(student[name], teacher[name]) for name in student)


def test_a_student_and_its_teacher_begin_as_the_first_segmenter_of_the_warmup(warm):
    warmed = load_file(warm / "runs" / "tiny" / "warmup" / "1of4-0" / "segmenters.safetensors")
    training = train.Training(train.job(*KEY, warm / "none", {"method": STUDENT}))
    for segmenter in training.model.segmenters:
        assert all(torch.equal(value, warmed[f"0.{name}"]) for name, value in segmenter.state_dict().items())
    assert training.model.segmenters[0].training and training.model.segmenters[1].training


def test_other_settings_are_refused_until_the_user_begins_anew(warm, monkeypatch):
    out, other = warm / "changed", {"optimizer": {"lr": 0.001}}
    arguments = ("train", "1of4", "cps_cutmix", 0, out)
    stop_after(3, *arguments)
    refused = r"settings.optimizer.lr: 0.05 -> 0.001\nset RRN_RESUME=restart to begin anew, or undo the change"
    for wish in ("", "accept_code"):
        monkeypatch.setenv("RRN_RESUME", wish)
        with pytest.raises(ResumeError, match=refused):
            next(train.run(*arguments, other))
    monkeypatch.setenv("RRN_RESUME", "restart")
    assert max(row["lr"] for row in train.run(*arguments, other)) <= 0.001


def test_other_code_is_refused_and_may_be_accepted(warm, whole, monkeypatch):
    out = warm / "code"
    stop_after(3, *KEY, out)
    monkeypatch.setattr(job, "code", lambda: {"rrn": "0123456789ab", "torch": str(torch.__version__)})
    with pytest.raises(ResumeError, match=r"code.rrn: '[0-9a-f]{12}' -> '0123456789ab'\n.*RRN_RESUME=accept_code"):
        next(train.run(*KEY, out))
    monkeypatch.setenv("RRN_RESUME", "accept_code")
    assert len(list(train.run(*KEY, out))) == 6
    assert contents(out) == contents(whole)  # it was the same code after all


WARMED = "runs/tiny/warmup/1of4-0/segmenters.safetensors"
PREPARED = "runs/tiny/prepare/1of4-0/split.json"


@pytest.mark.parametrize(
    ("file", "old", "new", "differs"),
    [
        (WARMED, b"", b" ", "inputs.warmup"),
        (PREPARED, b"\n}", b" \n}", "inputs.split.json"),
        (PREPARED, b'"data": "', b'"data": "0', "inputs.data"),
        (PREPARED, b'"disc"', b'"disk"', r"classes: \['ground', 'disc', 'square'\] -> \['ground', 'disk', 'square'\]"),
    ],
)
def test_a_changed_input_is_refused(warm, file, old, new, differs):
    arguments = ("train", "1of4", "local_filter", 0, warm / "inputs")
    path = warm / file
    before = path.read_bytes()
    if not kept(warm / ".scratch" / "tiny-train-1of4-local_filter-0"):
        stop_after(3, *arguments)
    path.write_bytes(before.replace(old, new, 1) if old else before + new)
    try:
        with pytest.raises(ResumeError, match=differs):
            ResumeFolder(warm, "tiny-train-1of4-local_filter-0", train.job(*arguments).identity())
    finally:
        path.write_bytes(before)


SPARSE = {"log": {"every": 4, "evaluate": 4, "checkpoint": 4}}


def ask(training, at, *, during="step"):
    """Let a signal reach a training in a step, or in an evaluation, and return it."""
    learn, look = training.learner.step, training.predictor.logits

    def step(batch, number):
        if during == "step" and number == at:
            signal.raise_signal(signal.SIGTERM)
        return learn(batch, number)

    def logits(images):
        if during == "evaluation" and training.done == at:
            signal.raise_signal(signal.SIGINT)
        return look(images)

    training.learner.step, training.predictor.logits = step, logits
    return training


@pytest.fixture(scope="module")
def sparse(warm):
    """The outputs of a training with a row every four steps that nothing interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(warm)
        list(train.run(*KEY, warm / "sparse", SPARSE))
    return warm / "sparse"


@pytest.mark.parametrize(
    ("during", "at", "done"), [("step", 0, 1), ("step", 2, 3), ("step", 3, 4), ("evaluation", 4, 4)]
)
def test_a_run_that_is_asked_to_stop_keeps_every_step(warm, sparse, tmp_path, during, at, done):
    out, before = tmp_path / "stopped", [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    training = ask(train.Training(train.job(*KEY, out, SPARSE)), at, during=during)
    text = (
        rf"^train 1of4-rrn-0 \(seed 0\) was asked to stop and did, after step {done} of 6; all of it is kept: the same "
        "command goes on from there$"
    )
    with pytest.raises(Interrupted, match=text):
        list(training.fit())
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert kept(warm / ".scratch" / "tiny-train-1of4-rrn-0")[-1] == done and not out.exists()
    again = train.Training(train.job(*KEY, out, SPARSE))
    taken, learn = [], again.learner.step
    again.learner.step = lambda batch, step: taken.append(step) or learn(batch, step)
    list(again.fit())
    assert taken == list(range(done, 6)) and contents(out) == contents(sparse)


def test_a_second_signal_stops_at_once():
    with StopRequest() as signals:
        signal.raise_signal(signal.SIGTERM)
        assert signals.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_another_thread_leaves_signals_alone():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def inside():
        with StopRequest():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]


def test_an_image_that_is_gone_loses_no_step(warm, sparse, tmp_path, monkeypatch):
    training = train.Training(train.job(*KEY, tmp_path / "out", SPARSE))
    plain = training.batches

    def batches(first, steps):
        for batch in plain(first, steps):
            if training.done == 3:
                raise DataError("images/train/a.jpg is gone")
            yield batch

    training.batches = batches
    with pytest.raises(DataError, match=r"images/train/a.jpg is gone"):
        list(training.fit())
    assert kept(warm / ".scratch" / "tiny-train-1of4-rrn-0")[-1] == 3
    list(train.run(*KEY, tmp_path / "out", SPARSE))
    assert contents(tmp_path / "out") == contents(sparse)


def test_an_evaluation_that_does_not_fit_into_memory_loses_no_step(warm, sparse, tmp_path, monkeypatch):
    training = train.Training(train.job(*KEY, tmp_path / "out", SPARSE))

    def full(_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training.predictor, "_logits", full)
    with pytest.raises(EvaluationShortage, match=r"looking at images of shape .* does not fit into memory"):
        list(training.fit())
    reached = kept(warm / ".scratch" / "tiny-train-1of4-rrn-0")[-1]
    assert reached == training.done > 0
    fewer = {**SPARSE, "loading": {"evaluation_batch": 1}}
    again = train.Training(train.job(*KEY, tmp_path / "out", fewer))
    rows = list(again.fit())
    assert again.done == training.settings.train.steps and rows
    assert contents(tmp_path / "out") == contents(sparse)


def test_outputs_that_could_not_be_written_lose_no_step(warm, sparse, tmp_path, monkeypatch):
    plain = Path.write_bytes

    def full(path, contents):
        if "history.csv" in path.name:
            raise OSError(28, "No space left on device")
        plain(path, contents)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(
            WriteError, match=r"out/history.csv cannot be written \(No space left on device\): make room"
        ):
            list(train.run(*KEY, out, SPARSE))
    assert kept(warm / ".scratch" / "tiny-train-1of4-rrn-0") == [4, 6]
    again = train.Training(train.job(*KEY, out, SPARSE))
    again.learner.step = None
    list(again.fit())
    assert contents(out) == contents(sparse) and not (warm / ".scratch" / "tiny-train-1of4-rrn-0").exists()


def test_a_state_that_could_not_be_written_leaves_the_one_before(warm, sparse, tmp_path, monkeypatch):
    plain = resume.write_state

    def full(path, value):
        if value["state"]["step"] == 6:
            raise WriteError(path, OSError(28, "No space left on device"), "wait")
        plain(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(resume, "write_state", full)
        with pytest.raises(WriteError, match=r"step-00000006.pt cannot be written"):
            list(train.run(*KEY, tmp_path / "out", SPARSE))
    assert kept(warm / ".scratch" / "tiny-train-1of4-rrn-0") == [4]
    list(train.run(*KEY, tmp_path / "out", SPARSE))
    assert contents(tmp_path / "out") == contents(sparse)


def test_states_are_taken_by_learners_as_they_are(warm, tmp_path):
    training = train.Training(train.job(*KEY, tmp_path / "out"))
    rows = training.fit()
    next(rows), next(rows)
    before = training.learner.state()
    resume.write_state(tmp_path / "a", before)
    other = train.Training(train.job("train", "1of4", "rrn", 0, tmp_path / "out"))
    other.learner.load(resume.read_state(tmp_path / "a"))
    rows.close()
    after = other.learner.state()
    for name in ("model", "optimizers", "scaler"):
        assert flat(after[name]) == flat(before[name])
    for name, optimizer in other.learner.optimizers.items():
        for parameter, moments in optimizer.state.items():
            for value in moments.values():
                assert value.shape != parameter.shape or value.stride() == parameter.stride(), name


def flat(value):
    """Return a nested value with tensors as lists."""
    if isinstance(value, dict):
        return {key: flat(part) for key, part in value.items()}
    return value.tolist() if isinstance(value, torch.Tensor) else value


def test_labels_of_unlabeled_images_are_never_needed(warm, whole):
    split = json.loads((warm / "runs" / "tiny" / "prepare" / "1of4-0" / "split.json").read_text(encoding="utf-8"))
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
    with pytest.raises(SettingsError, match=r"1of4-2 has no segmenters.safetensors: run `dvc repro` for that stage"):
        next(train.run("train", "1of4", "rrn", 2, warm / "none"))


def explode(monkeypatch, at):
    """Let the consistency loss of a step be no number."""
    plain = RRN.segmenter_losses

    def broken(self, step, merged):
        for terms in plain(self, step, merged):
            yield {n: v * math.nan if step.number == at and n == "consistency" else v for n, v in terms.items()}

    monkeypatch.setattr(RRN, "segmenter_losses", broken)


WRONG = "loss 'consistency' is nan at step 3 of train 1of4-rrn-0 (seed 0); its update was not applied"
PAIRS = {"log": {"every": 2, "evaluate": 6, "checkpoint": 2}}


def test_a_loss_that_is_not_finite_is_named_with_its_step_seed_and_advice(tmp_path, monkeypatch):
    monkeypatch.setenv("RRN_SCRATCH", str(tmp_path / "scratch"))
    explode(monkeypatch, 3)
    with pytest.raises(LossError) as caught:
        list(train.run(*KEY, tmp_path / "out", PAIRS))
    assert str(caught.value) == f"{WRONG}\n{train.ADVICE}"
    assert re.match(r"lower optimizer.lr, or use precision: fp32; .*torch.autograd.set_detect_anomaly", train.ADVICE)
    assert "set_detect_anomaly(True)" in (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert not (tmp_path / "out").exists() and kept(tmp_path / "scratch" / "tiny-train-1of4-rrn-0") == [2]


def test_a_step_that_failed_is_repeated_from_the_last_checkpoint_with_anomaly_detection(warm, tmp_path, monkeypatch):
    monkeypatch.setenv("RRN_SCRATCH", str(tmp_path / "scratch"))
    explode(monkeypatch, 3)
    with pytest.raises(LossError):
        list(train.run(*KEY, tmp_path / "out", PAIRS))
    taken, draws = [], train.Training(train.job(*KEY, tmp_path / "out", PAIRS)).batches(2, 4)
    plain = train.Learner.step
    monkeypatch.setattr(train.Learner, "step", lambda self, *at: taken.append(at) or plain(self, *at))
    with (
        torch.autograd.set_detect_anomaly(True),
        pytest.warns(UserWarning, match="forward call that caused the error"),
        pytest.raises(RuntimeError, match="MulBackward0' returned nan values"),
    ):
        list(train.run(*KEY, tmp_path / "out", PAIRS))
    assert [step for _, step in taken] == [2, 3]
    assert all(torch.equal(batch.images, drawn.images) for (batch, _), drawn in zip(taken, draws, strict=True))


def test_a_run_that_is_asked_to_stop_after_a_loss_that_is_not_finite_keeps_no_such_state(warm, tmp_path, monkeypatch):
    monkeypatch.setenv("RRN_SCRATCH", str(tmp_path / "scratch"))
    explode(monkeypatch, 1)
    training = ask(train.Training(train.job(*KEY, tmp_path / "out", SPARSE)), 2)
    with pytest.raises((LossError, Interrupted), match="loss 'consistency' is nan at step 1 of train 1of4-rrn-0"):
        list(training.fit())
    folder = tmp_path / "scratch" / "tiny-train-1of4-rrn-0"
    assert sorted(path.name for path in folder.iterdir()) == ["lock"]


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
    with pytest.raises(LossError, match=text) as caught:
        list(train.run(*KEY, tmp_path / "out"))
    assert str(caught.value).endswith(f"is kept\n{train.ADVICE}") and not (tmp_path / "out").exists()
    last = sorted((tmp_path / "scratch" / "tiny-train-1of4-rrn-0").glob("step-*"))[-1]
    found = resume.read_state(last)["state"]
    assert found["step"] == done - 2
    assert all(value.isfinite().all() for value in found["learner"]["model"].values())


def test_a_warmup_is_supervised_whatever_the_defaults(warm):
    changes = {"method": {"labels": "all", "filter": {"by": "region_score"}, "rho": "mean"}}
    run = train.job("warmup", "1of4", None, 0, warm / "none", changes)
    row = run.settings.method
    assert not row.consistency and not row.uses_discriminators and row.labels == "partition" and run.start is None
    assert run.key == "1of4-0" and run.schedule.steps == 2
    training = train.Training(run)
    seen = {name for batch in training.batches(0, 8) for name in batch.labeled_ids}
    assert seen <= set(training.split.labeled)


OWN = ("train", "1of4", "supervised_all", 0)


def test_a_row_with_its_own_warmup_learns_from_its_labels_there_and_begins_with_it(warm):
    changes = {"method": {"warmup": "own"}}
    inner = train.Training(train.job("warmup", *OWN[1:], warm / "own" / "warmup", changes))
    seen = {name for batch in inner.batches(0, 8) for name in batch.labeled_ids}
    assert not seen <= set(inner.split.labeled) and inner.job.key == "1of4-supervised_all-0"
    rows = list(train.run(*OWN, warm / "own", changes))
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6], "those of its warmup are not among them"
    assert len(pd.read_csv(warm / "own" / "warmup" / "history.csv")) == 2
    own = load_file(warm / "own" / "warmup" / "segmenters.safetensors")
    start = train.Training(train.job(*OWN, warm / "own", changes)).model.segmenters.state_dict()
    assert all(torch.equal(start[name], own[name]) for name in own)
    list(train.run(*OWN, warm / "shared"))
    shared = load_file(warm / "shared" / "segmenters.safetensors")
    ended = load_file(warm / "own" / "segmenters.safetensors")
    assert not all(torch.equal(shared[name], ended[name]) for name in shared)
    assert not (warm / "shared" / "warmup").exists()


def test_a_resume_of_an_own_warmup_is_refused_for_other_labels(warm):
    jobs = [
        train.job("warmup", *OWN[1:], warm / "own", {"method": {"warmup": "own", "labels": labels}})
        for labels in ("all", "partition")
    ]
    assert jobs[0].identity()["inputs"] != jobs[1].identity()["inputs"]
    common = train.job("warmup", "1of4", None, 0, warm / "none")
    assert set(common.identity()["inputs"]) == {"data", "split.json"}


@pytest.mark.parametrize(("rule", "coverage"), [({"fraction": 0.25}, 0.25), ({"keep": "threshold", "tau": 0.0}, 1.0)])
def test_a_training_is_diagnosed_by_the_rule_of_its_row(warm, rule, coverage):
    changes = {"train": {"steps": 1}, "method": {"filter": rule}}
    list(train.run(*KEY, warm / "rule", changes))
    found = pd.read_csv(warm / "rule" / "reliability.csv")
    assert set(found["score"]) == set(RANKED)
    assert set(found["split"]) == {"val", "unlabeled"}
    kept = found.loc[found["class"] == measures.EVERYTHING, "coverage"]
    assert kept.notna().all() and kept.mean() == pytest.approx(coverage, abs=0.08)  # of pixels: regions hold void
    assert kept.max() < 0.45 if coverage < 1 else kept.min() == 1


def test_another_number_of_processes_than_nproc_is_refused(warm, monkeypatch):
    monkeypatch.setattr(distributed, "world", lambda: 2)
    text = r"nproc: 1, but 2 processes were started; set nproc to the number of processes that RRN_LAUNCH starts"
    with pytest.raises(SettingsError, match=text):
        train.Training(train.job(*KEY, warm / "none"))


def test_identity_leaves_out_what_does_not_train(warm):
    first = train.job(*KEY, warm / "a").identity()
    elsewhere = {"loading": {"evaluation_batch": 1, "workers": 3}, "log": {"evidence": 1, "tensorboard": True}}
    assert first == train.job(*KEY, warm / "b", {"name": "tiny", **elsewhere}).identity()
    assert first != train.job(*KEY, warm / "b", {"threads": 2}).identity()
    assert first != train.job(*KEY, warm / "b", {"evaluate": {"flip": True}}).identity()  # history depends on it


@pytest.mark.parametrize(
    ("stage", "row", "unread"), [("train", "rrn", {"warmup"}), ("warmup", None, {"train", "method", "cutmix"})]
)
def test_identity_leaves_out_nothing_else(warm, stage, row, unread):
    run = train.job(stage, "1of4", row, 0, warm / "none")
    held = run.identity()["settings"]
    everything = run.settings.model_dump()
    assert everything.keys() - held.keys() == {"name", "ablation", "methods", "loading", "split"} | unread
    missing = {
        name: everything[name].keys() - values.keys() for name, values in held.items() if isinstance(values, dict)
    }
    assert {name: keys for name, keys in missing.items() if keys} == {"log": {"evidence", "tensorboard"}}


def test_one_of_several_processes_prints_its_rows_and_ends_with_torchrun(warm, tmp_path, monkeypatch, capfd):
    ends = []
    monkeypatch.setattr(train.distributed, "stop", lambda: ends.append(True))
    options = {"stage": KEY[0], "partition": KEY[1], "method": KEY[2], "seed": KEY[3], "out": tmp_path / "out"}
    monkeypatch.setattr("sys.argv", ["rrn.train", *(f"--{name}={value}" for name, value in options.items())])
    train.main()
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [row["step"] for row in rows] == pd.read_csv(tmp_path / "out" / "history.csv")["step"].tolist()
    assert ends


@pytest.mark.parametrize("images", ["val", "unlabeled"])
def test_images_are_looked_at_as_evaluate_says(warm, images):
    run = train.Training(train.job(*KEY, warm / "none"))
    run.predictor.protocol = run.predictor.protocol.model_copy(update={"mode": "pad", "window": (20, 27)})
    with pytest.raises(SettingsError, match="an image of 20 x 28 pixels"):
        list(run.diagnosis._predictions(getattr(run.diagnosis, images), (), [], lambda: None))


def test_val_goes_through_the_networks_once_for_miou_and_reliability(warm, monkeypatch):
    run = train.Training(train.job(*KEY, warm / "none"))
    seen = []
    monkeypatch.setattr(run.predictor, "logits", lambda images: seen.append(len(images)) or run.model.logits(images))
    _, reliability = run.diagnosis.measure(3, lambda: None)
    assert sum(seen) == len(run.diagnosis.val.ids) + len(run.diagnosis.unlabeled.ids)
    assert {row["split"] for row in reliability} == {"val", "unlabeled"}


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


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_heads_learn_at_a_rate_of_their_own(kind):
    changes = {"optimizer": {"kind": kind, "head": 10.0}}
    settings, model = tiny.settings("rrn", changes), tiny.model("rrn", changes)
    optimizer = learner.optimizers(model, settings)["segmenters"]
    encoders = {id(p) for name, p in model.segmenters.named_parameters() if ".network.encoder." in name}
    found = {}
    for group in optimizer.param_groups:
        inside = {id(p) in encoders for p in group["params"]}
        assert len(inside) == 1 and {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] > 0}
        found[inside.pop(), group["weight_decay"]] = group["factor"]
    decay = settings.optimizer.weight_decay
    assert found == {(True, decay): 1.0, (True, 0.0): 1.0, (False, decay): 10.0, (False, 0.0): 10.0}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.segmenters.parameters()))
    run = learner.Learner(model, settings, settings.train, decay=True)
    run.step(tiny.batch(), 3)
    rate = run.rate(3)
    assert rate == learner.learning_rate(3, settings.optimizer, settings.train, True)
    rates = [group["lr"] for group in run.optimizers["segmenters"].param_groups]
    assert rates == [rate, rate, 10 * rate, 10 * rate]


def test_a_head_of_factor_1_is_no_group_of_its_own():
    settings = tiny.settings("rrn")
    model = tiny.model("rrn")
    groups = learner.optimizers(model, settings)["segmenters"].param_groups
    ordered = [p for flat in (False, True) for p in model.segmenters.parameters() if (p.ndim <= 1) == flat]
    assert [id(p) for group in groups for p in group["params"]] == [id(p) for p in ordered] and len(groups) == 2


def test_adamw_has_betas_of_its_own_and_no_momentum():
    changes = {"optimizer": {"kind": "adamw", "lr": 0.001, "momentum": 0.5, "weight_decay": 0.01}}
    optimizer = learner.optimizers(tiny.model("rrn"), tiny.settings("rrn", changes))["segmenters"]
    assert type(optimizer) is torch.optim.AdamW and optimizer.defaults["betas"] == (0.9, 0.999)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]
    assert type(learner.optimizers(tiny.model("rrn"), tiny.settings("rrn"))["segmenters"]) is torch.optim.SGD


def test_half_precision_runs(warm):
    rows = list(train.run("train", "1of4", "rrn", 0, warm / "half", {"precision": "bf16", "train": {"steps": 2}}))
    assert rows[0]["coverage"] == 0.5 and all(torch.tensor(list(row.values())).isfinite().all() for row in rows)
