"""How far the work is: for a terminal, for a log, and for a file of printed lines."""

import io
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import tiny

from rrn.pipeline import progress
from rrn.pipeline.progress import StageReport, StepReport

NOTEBOOK = "runs/mine/train/1of4-rrn-0/notebook.ipynb"


class Terminal(io.StringIO):
    """What a person sees."""

    def isatty(self):
        return True


@pytest.fixture
def clock():
    """Seconds that a test sets."""
    times = [100.0]

    def read():
        return times[0]

    read.times = times
    return read


def report(folder, out, steps=100, clock=None, notebook=NOTEBOOK):
    return StepReport(out, folder / notebook, steps, *([clock] if clock else []))


def test_a_row_says_how_far_it_is_how_long_a_step_takes_and_what_is_left(tmp_path, clock):
    out = io.StringIO()
    shown = report(tmp_path, out, clock=clock)
    for step, now in [(25, 130), (50, 140), (75, 160), (100, 165)]:
        clock.times[0] = now
        shown.write(f"step {step}, lr 0.1, supervised 0.5\n")
    assert out.getvalue().splitlines() == [
        "step 25 of 100, lr 0.1, supervised 0.5",  # with what is read before the first step
        "step 50 of 100, lr 0.1, supervised 0.5, 0.4 s a step, 00:20 left",
        "step 75 of 100, lr 0.1, supervised 0.5, 0.6 s a step, 00:15 left",
        "step 100 of 100, lr 0.1, supervised 0.5, 0.467 s a step, 00:00 left",
    ]


def test_rows_that_a_resumed_run_repeats_say_nothing_of_its_speed(tmp_path, clock):
    out = io.StringIO()
    shown = report(tmp_path, out, clock=clock)
    shown.write("step 25, lr 0.1\nstep 50, lr 0.1\n")
    for step, now in [(75, 150), (100, 155)]:
        clock.times[0] = now
        shown.write(f"step {step}, lr 0.1\n")
    assert [line.count(" s a step") for line in out.getvalue().splitlines()] == [0, 0, 1, 1]
    assert "2 s a step, 00:50 left" in out.getvalue()


def test_a_log_that_cannot_be_written_is_said_once_and_stops_nothing(tmp_path):
    out = io.StringIO()
    (tmp_path / "runs/mine/log.txt").mkdir(parents=True)
    shown = report(tmp_path, out)
    shown.write("step 25, lr 0.1\nstep 50, lr 0.1\n")
    assert out.getvalue().splitlines() == [
        f"{tmp_path}/runs/mine/log.txt is not written: Is a directory",
        *("step 25 of 100, lr 0.1", "step 50 of 100, lr 0.1"),
    ]


def test_the_log_has_the_time_of_day_and_the_stage_and_goes_on(tmp_path):
    for rate in (0.1, 0.2):
        shown = report(tmp_path, io.StringIO())
        shown.write(f"model: x\nstep 25, lr {rate}\n")
        shown.close()
    lines = (tmp_path / "runs/mine/log.txt").read_text().splitlines()
    assert [line[21:] for line in lines] == [f"train@1of4-rrn-0 step 25 of 100, lr {rate}" for rate in (0.1, 0.2)]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", line[:20]) for line in lines)


@pytest.mark.parametrize(
    ("notebook", "log", "name"),
    [
        ("runs/mine/ablation/notebook.ipynb", "runs/mine/log.txt", "ablation"),
        ("scratch/try.ipynb", None, "try"),
        (NOTEBOOK, "runs/mine/log.txt", "train@1of4-rrn-0"),
    ],
)
def test_a_log_lies_beside_the_outputs_of_stages(tmp_path, notebook, log, name):
    shown = report(tmp_path, io.StringIO(), notebook=notebook)
    shown.write("step 1, lr 0.1\n")
    shown.close()
    assert shown.name == name
    found = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert found == ([log] if log else [])


def test_all_else_is_printed_as_it_is_in_whole_lines(tmp_path):
    out = io.StringIO()
    shown = report(tmp_path, out)
    for text in ("model: ", "x\nstep", " 2, lr 0.5\nstepping 3, no row\nthe e", "nd"):
        shown.write(text)
    shown.close()
    assert out.getvalue() == "model: x\nstep 2 of 100, lr 0.5\nstepping 3, no row\nthe end\n"
    out = io.StringIO()
    report(tmp_path, out, steps=None).write("step 2, lr 0.5\n")
    assert out.getvalue() == "step 2, lr 0.5\n"


def test_a_terminal_has_one_line_that_renews_itself(tmp_path, clock):
    out = Terminal()
    shown = report(tmp_path, out, 500, clock)
    for row in range(20):
        clock.times[0] += 0 if row < 16 else 50  # of a run that was resumed at step 400
        shown.write(f"step {25 * (row + 1)}, lr 0.1, supervised 0.5\n" + "beside\n" * (row == 18))
    shown.close()
    text = out.getvalue()
    assert text.count("\n") == 2 and "beside\n" in text, "the other line, and the end"
    last = text.rstrip().split("\r")[-1]
    assert last.startswith("train@1of4-rrn-0: 100%|") and "| 500/500 [" in last
    assert last.endswith(", lr 0.1, supervised 0.5, 2 s a step, 00:00 left]")


def test_stages_have_numbers(capsys):
    shown = StageReport(12)
    shown.line("warmup@0", "step 1 of 2, lr 0.1\n")
    shown.line("train@a-0", "begins\n")
    shown.line("warmup@0", "step 2 of 2, lr 0.1\n")
    shown.ended()
    shown.close()
    assert capsys.readouterr().out.splitlines() == [
        "1/12 warmup@0: step 1 of 2, lr 0.1",
        "2/12 train@a-0: begins",
        "1/12 warmup@0: step 2 of 2, lr 0.1",
    ]


def test_stages_in_a_terminal_share_one_line():
    out = Terminal()
    shown = StageReport(2, out)
    shown.line("train@a-0", "step 1 of 2, lr 0.1, 0.5 s a step, 00:10 left\n")
    shown.line("train@b-0", "Running stage\n")
    shown.ended()
    shown.ended()
    shown.close()
    text = out.getvalue()
    assert text.count("\n") == 2 and "train@b-0: Running stage\n" in text
    assert "| 0/2 [" in text and "train@a-0 step 1 of 2, lr 0.1, 0.5 s a step, 00:10 left]" in text
    assert "| 2/2 [" in text.rstrip("\n").split("\r")[-1]
    StageReport(0, out := Terminal()).close()
    assert out.getvalue() == ""


def test_stages_of_several_lanes_have_different_numbers(capsys):
    shown, names = StageReport(40), [f"train@{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: shown.line(name, "begins\n"), names))
    numbers = [int(line.partition("/")[0]) for line in capsys.readouterr().out.splitlines()]
    assert sorted(numbers) == list(range(1, 41))


def test_steps_are_those_of_the_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tiny.repository(tmp_path / "repository"))
    warmup, train = tmp_path / "2_warmup.ipynb", tmp_path / "3_train.ipynb"
    assert progress.steps_of(warmup, {"overrides": {"warmup": {"steps": 7}}}) == 7
    assert progress.steps_of(train, {"method": "rrn", "overrides": {"train": {"steps": 9}}}) == 9
    assert progress.steps_of(train, {"method": "rrn"}) == tiny.params(None)["train"]["steps"]
    assert progress.steps_of(tmp_path / "4_evaluate.ipynb", {"method": "rrn"}) is None
    for wrong in ({"method": "rnn"}, {"method": 5}, {"overrides": [1]}, {"overrides": "text"}):
        assert progress.steps_of(train, wrong) is None, "which the notebook says better"
