import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest

from rrn import stage

PARAMETERS = "seed = 0\nmethod = 'rrn'\noverrides = {}"


def notebook(path, *sources, parameters=PARAMETERS):
    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    book.cells += [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(book, path)
    return path


def outputs(path):
    texts = [out.get("text", "") for c in nbformat.read(path, 4).cells for out in c.get("outputs", [])]
    return "".join(texts)


def test_values_are_literals(tmp_path):
    path = notebook(tmp_path / "a.ipynb")
    items = ["seed=1e-3", "method=no", "overrides={train: {steps: 3}}"]
    expected = {"seed": 0.001, "method": "no", "overrides": {"train": {"steps": 3}}}
    assert stage.parameters(items, path) == expected


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("sed=1", "a.ipynb has no parameter 'sed'; did you mean 'seed'?"),
        ("zzz=1", "a.ipynb has no parameter 'zzz'; it has method, overrides, seed"),
        ("seed", "expected key=value, got 'seed'"),
    ],
)
def test_a_wrong_parameter_is_refused_before_anything_runs(tmp_path, capsys, item, message):
    path = notebook(tmp_path / "a.ipynb")
    assert stage.main([str(path), str(tmp_path / "out" / "b.ipynb"), item]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not (tmp_path / "out").exists()


def test_a_missing_notebook_says_what_makes_it(tmp_path, capsys):
    assert stage.main([str(tmp_path / "a.ipynb"), str(tmp_path / "b.ipynb")]) == 2
    assert "run `dvc repro notebooks`" in capsys.readouterr().err


@pytest.fixture
def run(tmp_path):
    def start(path, out, *items, **environment):
        command = [sys.executable, "-m", "rrn.stage", str(path), str(out), *items]
        surroundings = dict(os.environ, **environment)
        return subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, text=True, check=False)

    return start


def test_two_runs_are_byte_equal_and_use_this_interpreter(tmp_path, run):
    foreign = tmp_path / "foreign" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    (foreign / "kernel.json").write_text('{"argv": ["false"], "display_name": "x", "language": "python"}')
    path = notebook(
        tmp_path / "a.ipynb",
        "import sys, os\nprint('seed', seed, sys.executable, flush=True)",
        "import matplotlib.pyplot as plt\nfrom tqdm.auto import tqdm\n"
        "for _ in tqdm(range(3)):\n    pass\nplt.plot([1, 2])",
    )
    results = [
        run(path, tmp_path / name / "b.ipynb", "seed=7", JUPYTER_PATH=str(tmp_path / "foreign"))
        for name in ("one", "two")
    ]
    assert [result.returncode for result in results] == [0, 0], results[0].stderr
    assert f"seed 7 {sys.executable}" in results[0].stdout
    one, two = ((tmp_path / name / "b.ipynb").read_text() for name in ("one", "two"))
    assert one == two
    assert "image/png" in one


def test_results_do_not_depend_on_the_processor_or_on_what_the_user_set(tmp_path, run):
    names = sorted(stage.PORTABLE)
    path = notebook(tmp_path / "a.ipynb", f"import os, torch\nprint([os.environ[n] for n in {names}])")
    result = run(path, tmp_path / "b.ipynb", ATEN_CPU_CAPABILITY="default", MKL_CBWR="AUTO")
    assert result.returncode == 0, result.stderr
    assert str([stage.PORTABLE[name] for name in names]) in result.stdout


def test_the_runner_does_not_compile_a_grammar_that_it_never_uses(tmp_path):
    path = notebook(tmp_path / "a.ipynb")
    program = "import sys\nfrom rrn import stage\nstage.main(sys.argv[1:])\nprint('lark' in sys.modules)"
    command = [sys.executable, "-c", program, str(path), str(tmp_path / "b.ipynb")]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "False"


def test_a_failing_cell_shows_its_traceback_and_keeps_the_notebook(tmp_path, run):
    path = notebook(tmp_path / "a.ipynb", "print('before')", "raise ValueError('too few images')")
    result = run(path, tmp_path / "b.ipynb")
    assert result.returncode == 1
    assert "error: ValueError: too few images" in result.stderr
    assert "raise ValueError" in result.stderr
    assert f"the notebook as far as it got: {tmp_path / 'b.ipynb'}" in result.stderr
    assert "\x1b[" not in result.stderr
    assert "before" in outputs(tmp_path / "b.ipynb")


def test_a_killed_kernel_is_reported(tmp_path, run):
    path = notebook(tmp_path / "a.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    result = run(path, tmp_path / "b.ipynb")
    assert result.returncode == 1
    assert "killed, perhaps for lack of memory" in result.stderr


def test_sigterm_stops_the_kernel_and_its_children(tmp_path):
    path = notebook(
        tmp_path / "a.ipynb",
        "import os, time\nfrom pathlib import Path\nPath('pid').write_text(str(os.getpid()))\ntime.sleep(60)",
    )
    command = [sys.executable, "-m", "rrn.stage", str(path), "b.ipynb"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "stopped; the notebook as far as it got: b.ipynb" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
