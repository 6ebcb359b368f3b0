"""`benchmarks/gpu.py`: parts of their own, line by line, nothing lost, nothing mixed; and where its numbers go."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile

import pandas as pd
import pytest
from agents import alive
from conftest import ROOT, python, until

gpu, gpu_record, run = (importlib.import_module(name) for name in ("gpu", "gpu_record", "run"))

ROW = {"measure": "a step", "unit": "s", "median": 0.1, "lower": 0.1, "upper": 0.1, "minimum": 0.1, "rounds": 3}
FACTS = {
    **{"gpu": "NVIDIA H100", "driver_version": "580.1", "cuda": "13.0", "cudnn": 92400, "cores": 16, "memory_gb": 128},
    **{"python": "3.12.3", "torch": "2.11.0", "date": "2026-11-28"},
}
SAYS = """import json, sys
print("a word of a library")
finished = json.loads(sys.argv[sys.argv.index("--finished") + 1])
for case in {cases}:
    if case not in finished:
        print(json.dumps({{"row": {row} | {{"case": case}}}}))
        print(json.dumps({{"finished": case, "seconds": 1.0}}))
print("and an error", file=sys.stderr)
"""


def part(cases=("one", "two")):
    """Return the program of a part that measures these cases."""
    return SAYS.format(cases=list(cases), row=ROW)


@pytest.fixture
def repository(tmp_path):
    """A repository with the driver and parts that measure nothing."""
    benchmarks = tmp_path / "repository" / "benchmarks"
    benchmarks.mkdir(parents=True)
    shutil.copy(ROOT / "benchmarks" / "gpu.py", benchmarks)
    (tmp_path / "repository" / "params.yaml").write_text("name: fake\n")
    for name in gpu.PARTS:
        (benchmarks / f"gpu_{name}.py").write_text(part())
    (benchmarks / "gpu_facts.py").write_text(f"import json\nprint(json.dumps({{'facts': {FACTS}}}))\n")
    return tmp_path / "repository"


def measure(repository, out, *options):
    """Run the command in its small form, which asks for no GPU."""
    return python(repository, "benchmarks/gpu.py", "--out", out, "--small", *options)


def lines(folder):
    return [json.loads(text) for text in (folder / "results.jsonl").read_text().splitlines()]


def rows(folder):
    return [(line["part"], line["row"]["case"]) for line in lines(folder) if "row" in line]


def test_parts_run_in_order_of_worth_and_are_filed(repository, tmp_path):
    done = measure(repository, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {"results.jsonl", "results.md", "study.csv", "log.txt"}
    assert rows(out) == [(name, case) for name in list(gpu.PARTS)[1:] for case in ("one", "two")]
    log = (out / "log.txt").read_text()
    assert log.count("a word of a library\n") == log.count("and an error\n") == 5 and "==== study" in log
    text = (out / "results.md").read_text()
    assert text.startswith("# Tiny sizes on a CPU: these numbers mean nothing\n")
    assert "- gpu: NVIDIA H100" in text and "| two | a step | 0.1 | s | 0.1 | 0.1 | 0.1 | 3 |" in text
    assert "Not measured" not in text


def test_minutes_are_shared_out():
    every = gpu.limits(list(gpu.PARTS), 8)
    assert sum(every.values()) == pytest.approx(480) and every["step"] == pytest.approx(180)
    assert gpu.limits(["facts", "study"], 10)["study"] == pytest.approx(600 * 1.8 / 2.0)


def test_a_part_that_fails_loses_nothing(repository, tmp_path):
    (repository / "benchmarks" / "gpu_step.py").write_text(part(["one"]) + "sys.exit('error: no memory | left')\n")
    done = measure(repository, tmp_path / "out", "--only", "step", "tests")
    assert done.returncode == 1
    assert rows(tmp_path / "out") == [("step", "one"), ("tests", "one"), ("tests", "two")]
    why = "ended with status 1: error: no memory | left"
    assert {"part": "step", "failed": "step", "why": why} in lines(tmp_path / "out")
    assert f"failed: step ({why})" in done.stdout
    assert (
        "| step | step | failed: ended with status 1: error: no memory / left |"
        in (tmp_path / "out" / "results.md").read_text()
    )


def test_a_case_that_fails_is_measured_again(repository, tmp_path):
    (repository / "benchmarks" / "gpu_step.py").write_text(
        part(["one"]) + "print(json.dumps({'failed': 'two', 'why': 'so'}))\n"
    )
    assert measure(repository, tmp_path / "out", "--only", "step").returncode == 1
    again = measure(repository, tmp_path / "out", "--only", "step")
    assert "finished: one" not in again.stdout and "failed: two (so)" in again.stdout


def test_a_part_that_does_not_end_is_ended(repository, tmp_path):
    """With all that it started, which would hold the pipe."""
    grace = "GRACE = 15.0"
    driver = repository / "benchmarks" / "gpu.py"
    text = driver.read_text()
    assert grace in text
    driver.write_text(text.replace(grace, "GRACE = 0.5"))
    started = tmp_path / "started"
    hang = "import pathlib, subprocess\nchild = subprocess.Popen(['sleep', '3600'])\n"
    hang += f"pathlib.Path({str(started)!r}).write_text(str(child.pid))\nchild.wait()\n"
    (repository / "benchmarks" / "gpu_step.py").write_text(part(["one"]) + hang)
    done = measure(repository, tmp_path / "out", "--only", "step", "drift", "--minutes", "0.1")
    assert done.returncode == 0, done.stderr
    assert {"part": "step", "skipped": "step", "why": "stopped 0 seconds after its time"} in lines(tmp_path / "out")
    assert ("step", "one") in rows(tmp_path / "out")
    until(lambda: not alive(int(started.read_text())))


def test_a_killed_run_has_written_every_line_and_is_gone_on_with(repository, tmp_path):
    started, out = tmp_path / "started", tmp_path / "out"
    hang = "if 'one' not in finished:\n    import os, pathlib, time\n    sys.stdout.flush()\n"
    hang += f"    pathlib.Path({str(started)!r}).write_text(str(os.getpid()))\n    time.sleep(3600)\n"
    (repository / "benchmarks" / "gpu_step.py").write_text(part(["one"]) + hang)
    command = [sys.executable, "benchmarks/gpu.py", "--out", str(out), "--small", "--only", "step"]
    with subprocess.Popen(command, cwd=repository, stdout=subprocess.DEVNULL) as process:
        until(lambda: started.exists() and started.read_text() and ("step", "one") in rows(out))
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 143
    until(lambda: not alive(int(started.read_text())))
    with (out / "results.jsonl").open("a") as file:
        file.write('{"part": "step", "ro')  # as where the machine went off
    done = measure(repository, out, "--only", "step")
    assert done.returncode == 0, done.stderr
    assert rows(out) == [("step", "one")]


def test_an_earlier_run_is_resumed_and_left_as_it_is(repository, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert measure(repository, first, "--only", "step").returncode == 0
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    first.chmod(0o555)
    done = measure(repository, second, "--resume", first, "--only", "step", "drift")
    first.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in first.iterdir()} == before
    assert rows(second) == [("step", "one"), ("step", "two"), ("drift", "one"), ("drift", "two")]
    assert done.stdout.count("finished: one") == 1


def test_numbers_of_other_code_are_not_mixed(repository, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert measure(repository, first, "--only", "step").returncode == 0
    (repository / "params.yaml").write_text("name: other\n")
    refused = measure(repository, first)
    assert refused.returncode == 2
    reason = "holds results already, of other code, another GPU or another size: name another --out"
    assert f"error: {first} {reason}; they can be read with --resume" in refused.stderr
    done = measure(repository, second, "--resume", first, "--only", "step")
    assert f" lines of {first} are of other code, another GPU or another size: measured again" in done.stdout
    assert done.stdout.count("finished: one") == 1 and rows(second) == [("step", "one"), ("step", "two")]


def test_what_is_refused(repository, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    cases = {
        f"{out} holds thesis.txt, which gpu.py did not write: name another --out": (out,),
        f"{tmp_path / 'no'} has no results.jsonl: name a folder that": (tmp_path / "a", "--resume", tmp_path / "no"),
        f"{out} is no folder data set: it has no classes.txt": (tmp_path / "a", "--data", out),
        f"{out} has no wheels/*.whl: `python benchmarks/gpu_pack.py": (tmp_path / "a", "--pack", out),
        "--minutes must be more than 0": (tmp_path / "a", "--minutes", "-1"),
        "invalid choice: 'steps'": (tmp_path / "a", "--only", "steps"),
    }
    for message, arguments in cases.items():
        done = measure(repository, *arguments)
        assert done.returncode == 2 and message in done.stderr, done.stderr
    assert (out / "thesis.txt").read_text() == "mine" and not (tmp_path / "a").exists()


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "results.jsonl").write_text('{"run": 1}\n{"par\n{"part": "step"}\n')
    with pytest.raises(gpu.Refused, match=r"results\.jsonl: line 2 is damaged \(.*\); remove it"):
        gpu.read(tmp_path)


def test_only_packages_that_are_missing_are_unpacked(tmp_path):
    (tmp_path / "wheels").mkdir()
    for name in ("pytest-8.0-py3-none-any.whl", "rrn_nowhere-1.0-py3-none-any.whl"):
        with zipfile.ZipFile(tmp_path / "wheels" / name, "w") as wheel:
            wheel.writestr(f"{name.partition('-')[0]}.py", "")
    gpu.unpack(tmp_path, tmp_path / "unpacked")
    assert [path.name for path in (tmp_path / "unpacked").iterdir()] == ["rrn_nowhere.py"]


def test_seeds_of_the_study_are_a_table():
    seed = {"data": "camvid", "seed": 0, "row": "rrn", "miou_mean": 50.5}
    assert gpu.study([{"part": "study", "study": seed}]) == "data,seed,row,miou_mean\ncamvid,0,rrn,50.5\n"
    assert gpu.study([{"part": "step"}]) == ""


# ---- Where numbers go ----


def measured(small=False, **values):
    row = ROW | {"case": "rrn, bf16"} | values
    run_line = {"run": {"code": "c", "gpu": "g", "small": small}}
    return [run_line, {"part": "facts", "facts": FACTS}, {"part": "step", "row": row}]


def test_numbers_are_recorded(tmp_path, monkeypatch, capsys):
    results, document = tmp_path / "results.csv", tmp_path / "gpu.md"
    shutil.copy(run.RESULTS, results)
    document.write_text(f"before\n{gpu_record.BEGIN}\nformer\n{gpu_record.END}\nafter\n")
    monkeypatch.setattr(gpu_record, "RESULTS", results)
    monkeypatch.setattr(gpu_record, "DOCUMENT", document)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in measured()))
    for _ in range(2):  # the second time changes nothing
        assert gpu_record.main([str(tmp_path / "out")]) == 0
        assert "results.csv and gpu.md are written" in capsys.readouterr().out
        table, text = pd.read_csv(results), document.read_text()
        row = table[table["benchmark"] == "gpu_step"].iloc[0]
        assert row["processor"] == "NVIDIA H100, driver 580.1" and row["kernels"] == "CUDA 13.0, cuDNN 92400"
        assert len(table) == len(pd.read_csv(run.RESULTS)) + 1
        assert text.startswith("before\n") and text.endswith(f"{gpu_record.END}\nafter\n") and "former" not in text
        assert "- step: NVIDIA H100, driver 580.1, CUDA 13.0, cuDNN 92400, torch 2.11.0, 2026-11-28." in text
        assert "| rrn, bf16: a step | at most 0.12 | 0.1 | yes |" in text and "| at least 2.5 | not yet |  |" in text
        assert "| rrn, bf16 | a step | 0.1 | s | 3 |" in text


def test_a_goal_that_is_missed_says_so():
    table = gpu_record.rows(measured(median=0.2))
    assert "| rrn, bf16: a step | at most 0.12 | 0.2 | no |" in gpu_record.goals(table)


@pytest.mark.parametrize(
    ("lines", "message"),
    [(measured(small=True), "was measured with --small"), (measured()[:2], "nothing in it that was measured")],
)
def test_what_is_not_recorded(lines, message):
    with pytest.raises(gpu.Refused, match=message):
        gpu_record.rows(lines)


def test_the_page_holds_what_the_file_holds():
    text = gpu_record.DOCUMENT.read_text()
    assert gpu_record.documented(text, pd.read_csv(run.RESULTS)) == text
    with pytest.raises(gpu.Refused, match=r"gpu\.md lacks the lines"):
        gpu_record.documented("no marks", pd.read_csv(run.RESULTS))


# ---- The real parts, in their small form ----


def test_every_part_runs_without_what_the_pipeline_needs(tmp_path):
    """On a CPU, where neither DVC nor Jupyter nor papermill can be imported; test_cuda_tests tries the part `tests`."""
    for name in ("dvc", "papermill", "nbformat", "nbclient", "jupyterlab", "ipywidgets", "IPython", "pooch"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name} is not here')\n")
    before = os.environ.get("PYTHONPATH")
    command = [sys.executable, "benchmarks/gpu.py", "--out", str(tmp_path / "out"), "--small", "--minutes", "60"]
    command += ["--only", *(part for part in gpu.PARTS if part != "tests")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(tmp_path), before]))}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + (tmp_path / "out" / "log.txt").read_text()
    found = lines(tmp_path / "out")
    assert {line["part"] for line in found if "row" in line} == set(gpu.PARTS) - {"tests"}
    assert not [line for line in found if "failed" in line]
    cases = {line["finished"] for line in found if "finished" in line}
    assert {"rates", "rrn, cps_cutmix, reference", "kernels", "compile", "whole", "sliding", "twice", "cpu"} <= cases
    assert (tmp_path / "out" / "study.csv").read_text().count("\n") >= 3
