import json
import subprocess
import sys
import threading

import pytest
from conftest import PATIENCE

from rrn import config
from rrn.pipeline import scheduler
from rrn.pipeline.progress import StageReport

WAITS = {"warmup@0": None, "train@a-0": "warmup@0", "train@b-0": "warmup@0", "evaluate@a-0": "train@a-0"}


@pytest.fixture
def settings():
    return config.load(root=None)


def test_lanes_hold_the_stages_of_all_runs_each_after_the_one_it_reads(settings, root):
    waits = scheduler.order(settings.ablation)
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--name-only"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    kinds = ("warmup", "train", "evaluate")
    assert set(waits) == {name for name in listed.stdout.split() if name.startswith(kinds)}
    assert waits["evaluate@1of16-rrn-1"] == "train@1of16-rrn-1"
    assert waits["train@1of16-rrn-1"] == "warmup@1of16-1"
    order = list(waits)
    assert all(before is None or order.index(before) < order.index(stage) for stage, before in waits.items())


def test_what_waits_for_a_changed_stage_is_affected():
    assert scheduler.affected(WAITS, []) == []
    assert scheduler.affected(WAITS, ["ablation", "train@a-0"]) == ["train@a-0", "evaluate@a-0"]
    assert scheduler.affected(WAITS, ["warmup@0"]) == list(WAITS)


def test_a_stage_begins_when_the_one_it_waits_for_has_ended_and_two_stand_side_by_side():
    ended, together = [], threading.Barrier(2, timeout=PATIENCE)

    def start(stage):
        assert WAITS[stage] in (None, *ended)
        if stage.startswith("warmup"):
            threading.Event().wait(0.2)
        if stage.startswith("train"):
            together.wait()
        ended.append(stage)
        return 0

    assert scheduler.run_stages(list(WAITS), WAITS, 2, start) == 0
    assert sorted(ended) == sorted(WAITS)


def test_a_run_is_finished_before_another_begins():
    """Where a long study is stopped, what was trained is evaluated, too."""
    waits = {"warmup@0": None, "warmup@1": None, "train@a-0": "warmup@0", "train@b-0": "warmup@0"}
    waits |= {"evaluate@a-0": "train@a-0", "evaluate@b-0": "train@b-0"}
    started = []
    assert scheduler.run_stages(list(waits), waits, 1, lambda stage: started.append(stage) or 0) == 0
    assert started == ["warmup@0", "train@a-0", "evaluate@a-0", "train@b-0", "evaluate@b-0", "warmup@1"]


def test_no_more_stages_than_lanes_run_at_a_time():
    running, most, together = set(), [], threading.Barrier(3, timeout=PATIENCE)

    def start(stage):
        running.add(stage)
        most.append(len(running))
        if stage in "abc":
            together.wait()
        threading.Event().wait(0.02)
        running.remove(stage)
        return 0

    waits = dict.fromkeys("abcdefg")
    assert scheduler.run_stages(list(waits), waits, 3, start) == 0
    assert len(most) == 7
    assert max(most) == 3


def test_after_a_failure_what_runs_ends_and_nothing_begins(monkeypatch):
    ended, waiting, noticed = [], scheduler.wait, threading.Event()
    rounds = iter((lambda: None, noticed.set))

    def wait(running, **options):
        next(rounds, noticed.set)()
        return waiting(running, **options)

    def start(stage):
        if stage == "a":
            return 7
        assert noticed.wait(PATIENCE)
        ended.append(stage)
        return 0

    monkeypatch.setattr(scheduler, "wait", wait)

    waits = dict.fromkeys("abcd")
    assert scheduler.run_stages(list(waits), waits, 2, start) == 7
    assert ended == ["b"]


def test_what_has_changed_is_what_dvc_says(tmp_path):
    told = json.dumps({"train@a-0": [{"changed outs": {"x": "deleted"}}]})
    command = [sys.executable, "-c", f"import sys\nassert sys.argv[1:] == ['status', '--json']\nprint({told!r})"]
    assert scheduler.changed(command, tmp_path) == json.loads(told)
    with pytest.raises(subprocess.CalledProcessError):
        scheduler.changed([sys.executable, "-c", "raise SystemExit(3)"], tmp_path)


def test_every_line_of_a_stage_has_its_name_and_number(tmp_path, capsys):
    program = "import sys\nprint(*sys.argv[1:])\nprint()\nprint('went wrong', file=sys.stderr)\nraise SystemExit(5)"
    assert scheduler.reproduce([sys.executable, "-c", program], tmp_path, "train@a-0", StageReport(3)) == 5
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "1/3 train@a-0: --wait-for-lock repro --single-item train@a-0",
        "1/3 train@a-0: went wrong",
    ]


@pytest.mark.parametrize(
    ("processors", "changes", "gpu", "launcher", "expected"),
    [
        (2, {}, False, False, 2),
        (1, {}, False, False, 1),
        (64, {}, False, False, scheduler.MOST),
        (4, {"threads": 2}, False, False, 2),
        (4, {"nproc": 2}, False, False, 2),
        (4, {"loading": {"workers": 1}}, False, False, 2),
        (8, {"nproc": 2, "loading": {"workers": 1}}, False, False, 2),
        (2, {"threads": 8}, False, False, 1),
        (4, {"device": "auto"}, True, False, 1),
        (4, {"device": "cuda"}, True, False, 1),
        (4, {}, True, False, 4),  # the embedded study is of the CPU
        (4, {}, False, True, 1),
    ],
)
def test_lanes_fit_the_machine(tmp_path, monkeypatch, settings, processors, changes, gpu, launcher, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(processors)))
    monkeypatch.delenv("RRN_LAUNCH", raising=False)
    if launcher:
        monkeypatch.setenv("RRN_LAUNCH", "torchrun")
    if gpu:
        (tmp_path / "nvidiactl").touch()
    loading = settings.loading.model_copy(update=changes.get("loading", {}))
    assert scheduler.fitting(settings.model_copy(update={**changes, "loading": loading}), tmp_path) == expected
