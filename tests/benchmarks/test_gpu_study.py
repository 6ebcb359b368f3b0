"""The study and the drift of the GPU measurement, small: what they report, and that a cut leaves whole seeds."""

import importlib
import json
import math
import os
import re
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from conftest import ROOT, python, until
from small import write_folder

gpu_drift, gpu_part, gpu_repository, gpu_study = (
    importlib.import_module(name) for name in ("gpu_drift", "gpu_part", "gpu_repository", "gpu_study")
)
gpu_children = importlib.import_module("gpu_children")

FOREVER = 1e6
"""Seconds."""


@pytest.fixture(autouse=True)
def same_environment(monkeypatch):
    """Give back what a temporary repository takes out of the environment."""
    monkeypatch.setenv("RRN_SCRATCH", "nowhere")


@pytest.fixture
def said(monkeypatch):
    """What a study reports in this process."""
    lines = []
    monkeypatch.setattr(gpu_study, "say", lambda **values: lines.append(values))
    return lines


def command(script, *options):
    """Run a part as the driver does, and return what it says; the rest is no JSON."""
    done = python(ROOT, f"benchmarks/{script}.py", "--small", *options)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")], done.stderr


def finished(lines):
    return [line["finished"] for line in lines if "finished" in line]


def part(*cases, left=FOREVER, data=None):
    return gpu_part.Part(True, torch.device("cpu"), time.monotonic() + left, frozenset(cases), data)


def study(lent=None, most=2, seeds=range(3), **options):
    repository = gpu_repository.Repository(ROOT, "shapes", "1of16")
    size = replace(gpu_study.SMALL, seeds=seeds)
    return gpu_study.Study(lent or part(**options), repository, size, gpu_study.Pace(most, 0.0))


# ---- as commands


def test_the_study_reports_what_it_measures_and_goes_on_behind_what_is_finished():
    lines, log = command("gpu_study", "--finished", json.dumps(["shapes seed 0", "other seed 1"]))
    assert "Traceback" not in log
    rows = [line["row"] for line in lines if "row" in line]
    assert [(row["case"], row["unit"]) for row in rows] == [
        (f"shapes, {many} side by side", unit) for many in (1, 2) for unit in ("images/s", "ratio")
    ]
    assert all(math.isfinite(row["median"]) and row["minimum"] > 0 for row in rows)
    pace, *cases = finished(lines)
    assert gpu_study.Pace.known("shapes", [pace]).most in (1, 2)
    assert cases == ["shapes throughput", "shapes seed 1"]
    found = [line["study"] for line in lines if "study" in line]
    assert [line["row"] for line in found] == ["cps_cutmix", "rrn"]
    for line in found:
        assert (line["data"], line["seed"], line["steps"]) == ("shapes", 1, 3) and line["seconds"] > 0
        assert line["miou_mean"] == pytest.approx((line["miou_1"] + line["miou_2"]) / 2, abs=1e-3)
        assert 0 <= line["miou_ensemble"] <= 100
    assert lines[-1]["finished"] == "shapes seed 1" and {**lines[-2], **lines[-3]}.keys() == {"study"}


def test_drift_reports_no_difference_of_a_processor_to_itself():
    lines, log = command("gpu_drift")
    assert "Traceback" not in log and finished(lines) == ["twice", "cpu"]
    rows = [line["row"] for line in lines if "row" in line]
    assert len({(row["case"], row["measure"]) for row in rows}) == len(rows) == 2 * 2 * 2
    assert {row["unit"] for row in rows} == {"ratio"} and {row["median"] for row in rows} == {0.0}
    assert rows[0]["measure"] == "largest relative difference of weights, step 1"


# ---- seeds and time


def test_a_study_whose_time_is_up_leaves_whole_seeds(said, monkeypatch):
    class Ending(gpu_part.Part):
        def left(self):
            return 0.0 if any("finished" in line for line in said) else FOREVER

    lent = Ending(True, torch.device("cpu"), 0.0, frozenset(), None)
    study(lent, seeds=range(4)).seeds(gpu_children.complete_or_never)
    assert said[:3] == [{"study": {"seed": 0, "row": row}} for row in gpu_study.ROWS] + [
        {"finished": "shapes seed 0", "seconds": said[2]["seconds"]}
    ]
    why = {line["skipped"]: line["why"] for line in said[3:]}
    assert set(why) == {"shapes seed 1", "shapes seed 2"} and why["shapes seed 1"] == "out of time"
    said_seconds = re.fullmatch(r"out of time: a seed takes (\d+) s", why["shapes seed 2"])
    assert abs(int(said_seconds[1]) - said[2]["seconds"]) <= 0.6, "rounded, each from the same time"


def test_a_seed_that_would_not_end_in_time_is_not_begun(said):
    later = study(left=400.0)
    later.pace = gpu_study.Pace(4, 391.0)
    later.seeds(gpu_children.complete_or_never)
    assert said == [{"skipped": "shapes seed 0", "why": "out of time: a seed takes 391 s"}]


def test_what_is_known_of_the_pace_is_not_measured_again():
    pace = gpu_study.Pace(4, 211.6)
    assert pace.case("voc_animals") == "voc_animals: 4 side by side, 212 s a seed"
    cases = ["camvid: 2 side by side, 90 s a seed", pace.case("voc_animals"), "voc_animals seed 0"]
    assert gpu_study.Pace.known("voc_animals", cases) == gpu_study.Pace(4, 212.0)
    assert gpu_study.Pace.known("idd_lite", cases) is None


def test_a_study_that_is_finished_does_nothing(said, capsys):
    done = study(part("shapes: 2 side by side, 1 s a seed", "shapes seed 0", "shapes seed 1"), seeds=range(2))
    done.pace = None
    done.run()
    assert said == [] and capsys.readouterr().out == "" and done.pace == gpu_study.Pace(2, 1.0)


def test_a_failure_is_told_and_others_go_on_until_there_are_too_many(said):
    study(most=1, seeds=range(9)).seeds(gpu_children.fail)
    assert said == [
        {"failed": "shapes seed 0", "why": "LossError: a loss is nan"},
        {"failed": "shapes seed 1", "why": "a training ended with exit code 7, see the log"},
        {"failed": "shapes seed 2", "why": "LossError: a loss is nan"},
    ]


def test_an_error_of_a_training_is_told(said, tmp_path):
    broken = study(seeds=range(1))
    broken.repository = gpu_repository.Repository(tmp_path, "shapes", "1of16")
    broken.seeds(gpu_study.train_seed)
    assert said == [{"failed": "shapes seed 0", "why": said[0]["why"]}]
    assert said[0]["why"].startswith("FileNotFoundError: no params.yaml beside a dvc.yaml in ")


def test_no_process_outlives_the_study():
    with gpu_study.Children() as children:
        pids = [children.answer(children.start(gpu_children.send_pid_and_wait, None, 0)) for _ in range(2)]
        processes = list(children.running.values())
    assert len(set(pids)) == 2 and not any(process.is_alive() for process in processes)


def test_processes_end_with_one_that_is_killed():
    with gpu_study.Children() as children:
        pid = children.answer(children.start(gpu_children.start_one_and_be_killed, None, 0))
    until(lambda: has_ended(pid))


def has_ended(pid):
    """Tell whether a process has, even if nobody has asked for its exit code."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# ---- the repository


def test_a_data_set_without_test_is_scored_on_val_with_eight_labeled_images(tmp_path):
    data = write_folder(tmp_path / "mine", {"train": 40, "val": 4})
    with gpu_repository.temporary(("rrn",), gpu_study.TINY, data, few=False) as lent:
        run = lent.training("warmup", None, 0)
        assert lent.data == "mine" and lent.partition == "1of4" and len(run.split.labeled) == 10
        assert run.settings.dataset.val == run.settings.dataset.test == "val" and len(run.split.test) == 4
        assert lent.root.is_dir() and "RRN_SCRATCH" not in os.environ
    assert not lent.root.exists()


def test_rendered_images_are_those_of_the_data_set(tmp_path):
    gpu_repository.render(tmp_path / "some", {"test": 2})
    image, label = gpu_repository.shapes.render("test", 1)
    stored = np.array(gpu_repository.Image.open(tmp_path / "some/labels/test/test_0001.png"))
    assert np.array_equal(stored, label)
    photo = np.array(gpu_repository.Image.open(tmp_path / "some/images/test/test_0001.jpg"), dtype=int)
    assert np.abs(photo - image).mean() < 8


def test_real_images_are_trained_on_at_full_size():
    full = gpu_study.changes(replace(part(data=ROOT), small=False), gpu_study.FULL)
    assert full["augment"]["crop"] == 160 and full["model"] == {
        "encoder": "tu-tf_efficientnet_lite0",
        "weights": "lite0",
    }
    values = gpu_study.config.merge(gpu_study.config.read(gpu_repository.PARAMS), full)
    settings = gpu_study.config.resolve(values, "rrn")
    assert (settings.optimizer.lr, settings.warmup.steps, settings.train.steps) == (0.01, 250, 1000)
    embedded = gpu_study.changes(replace(part(), small=False), gpu_study.FULL)
    assert embedded["augment"]["crop"] == 64


# ---- differences


def test_relative_differences():
    ones = {"a": torch.ones(4, dtype=torch.float64), "b": torch.zeros(2, dtype=torch.float64)}
    assert gpu_drift.largest(ones, ones) == 0.0
    assert gpu_drift.largest(ones, {**ones, "a": ones["a"] * 1.25}) == pytest.approx(0.2)
    assert gpu_drift.largest(ones, {**ones, "b": ones["b"] + 1e-9}) == 1.0


def test_drift_is_told_step_by_step():
    def snapshot(value):
        return gpu_drift.Snapshot({"w": torch.tensor([value, 0.0])}, {"loss": torch.tensor(2 * value)})

    rows = list(gpu_drift.apart("cpu", {1: snapshot(1.0), 10: snapshot(1.0)}, {1: snapshot(1.0), 10: snapshot(0.5)}))
    assert [(row.measure.rpartition(" of ")[2], row.median) for row in rows] == [
        ("weights, step 1", 0.0),
        ("terms, step 1", 0.0),
        ("weights, step 10", 0.5),
        ("terms, step 10", 0.5),
    ]
