import ast
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest
from conftest import PATIENCE, ROOT, until
from disks import small_disk
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from ruamel.yaml import YAML

from rrn.pipeline import gpus, stage, strip
from rrn.runtime import locking
from rrn.runtime.portable import PORTABLE

STAGES = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"]

PARAMETERS = "seed = 0\nmethod = 'rrn'\noverrides = {}"


def notebook(path, *sources, parameters=PARAMETERS):
    book = nbformat.v4.new_notebook(metadata=strip.METADATA)
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


@pytest.mark.parametrize(
    "value",
    [
        *("!!python/object/apply:os.system [exit]", "!!python/name:os.system", "!unknown x", "[1", "a: b: c"),
        *("2026-11-24", "2026-99-99", "!!binary aGk=", "!!set {a, b}", "&a [*a]", "*missing", "!!int x"),
    ],
)
def test_what_is_no_literal_is_refused(tmp_path, capsys, value):
    path = notebook(tmp_path / "a.ipynb")
    assert stage.main([str(path), str(tmp_path / "out" / "b.ipynb"), f"seed={value}"]) == 2
    assert f"error: {f'seed={value}'!r} gives seed no value of numbers, texts, lists and" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


TEXTS = [
    *(
        '"; import os; os._exit(3) #',
        "'''",
        '"""',
        "\\",
        '\\"',
        "a\nimport os",
        "{seed}",
        "{{x}}",
        "%(x)s",
        "${x}",
        "$(x)",
    ),
    *(
        "\r\n",
        "\t",
        "\0",
        "é 日本 \u2028",
        "\\x41",
        "\\N{BULLET}",
        "!!python/object",
        "None",
        "True",
        "1e-3",
        "# no comment",
        "",
    ),
]


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_texts_arrive_as_they_are_and_run_nothing(tmp_path, text):
    path = notebook(tmp_path / "a.ipynb")
    wanted = {"method": text, "overrides": {text: [text, {"a": text}]}}
    values = stage.parameters([f"{key}={json.dumps(value)}" for key, value in wanted.items()], path)
    assert values == wanted
    book = parameterize_notebook(load_notebook_node(str(path)), values, kernel_name="rrn", language="python")
    (cell,) = [cell for cell in book.cells if "injected-parameters" in cell.metadata.tags]
    statements = ast.parse(cell.source).body
    assert {node.targets[0].id: ast.literal_eval(node.value) for node in statements} == wanted


def test_code_in_a_parameter_arrives_in_a_kernel_as_text(tmp_path, run):
    text = "\"; import os; os._exit(3) #\n'''{seed}\\"
    path = notebook(tmp_path / "a.ipynb", "print(ascii(method), flush=True)")
    result = run(path, tmp_path / "b.ipynb", f"method={json.dumps(text)}")
    assert result.returncode == 0, result.stderr
    assert ascii(text) in result.stdout


def test_a_missing_notebook_says_what_makes_it(tmp_path, capsys):
    assert stage.main([str(tmp_path / "a.ipynb"), str(tmp_path / "b.ipynb")]) == 2
    assert "run `dvc repro notebooks`" in capsys.readouterr().err


def test_a_notebook_that_names_no_kernel_or_is_none_is_refused(tmp_path, capsys):
    cell = nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    nameless = nbformat.writes(nbformat.v4.new_notebook(cells=[cell]))
    path = tmp_path / "a.ipynb"
    for text, said in (("no JSON", "Notebook does not appear"), (nameless, "No kernel name found in notebook")):
        path.write_text(text)
        assert stage.main([str(path), str(tmp_path / "b.ipynb")]) == 2
        assert f"error: {path} cannot be read: {said}" in capsys.readouterr().err


@pytest.fixture
def run(tmp_path):
    def start(path, out, *items, folder=tmp_path, **environment):
        command = [sys.executable, "-m", "rrn.stage", str(path), str(out), *items]
        surroundings = dict(os.environ, **environment)
        return subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True, check=False)

    return start


def test_sockets_of_a_kernel_are_its_own_and_go_with_it(tmp_path, run):
    source = "from pathlib import Path\nprint([f'{path} {path.is_socket()}' for path in Path.cwd().iterdir()])\n"
    source += "print([line.split()[-1] for line in open('/proc/net/unix') if 'rrn-' in line])"
    path = notebook(tmp_path / "a.ipynb", source)
    result = run(path, tmp_path / "b.ipynb", TMPDIR=str(tmp_path))
    assert result.returncode == 0, result.stderr
    here, sockets = map(ast.literal_eval, outputs(tmp_path / "b.ipynb").splitlines())
    assert here and not [found for found in here if found.endswith("True")]
    assert len({socket for socket in sockets if socket.startswith("./rrn-")}) == 5
    assert not list(tmp_path.glob("rrn-*"))


def test_a_folder_of_temporary_files_whose_name_is_too_long_for_sockets(tmp_path, run):
    far = tmp_path / ("x" * 90)
    far.mkdir()
    result = run(notebook(tmp_path / "a.ipynb"), tmp_path / "b.ipynb", TMPDIR=str(far))
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: sockets have short names, and the folder of temporary files is {far}/rrn-")
    assert result.stderr.endswith("let TMPDIR name one of at most 77 bytes\n") and not list(far.iterdir())


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


PLACES = (
    "import beside, matplotlib, os, sys, warnings\nbeside.warn()\nwarnings.warn('of a cell')\nprint(object())",
    "print(os.getcwd(), os.path.expanduser('~/notes'), sys.executable, os.path.abspath('runs/a b/c.csv'))",
    "warnings.warn_explicit('of a package', UserWarning, matplotlib.__file__, 7)",
    "from IPython.display import HTML, display\ndisplay(HTML(f'<a href=\"file://{os.getcwd()}/a.png\">a</a>'))\n[os.getcwd()]",
    "print('/data/voc', 'runs/mine/train', '1/2', f'{os.getcwd()}2', 'x' + os.getcwd())",
)


def test_no_output_names_a_place_of_this_machine(tmp_path, run):
    texts = []
    for name in ("one", "another place"):
        place = tmp_path / name
        place.mkdir()
        (place / "beside.py").write_text("import warnings\n\ndef warn():\n    warnings.warn('slow', RuntimeWarning)\n")
        path = notebook(place / "a.ipynb", *PLACES[:-1])
        result = run(path, "b.ipynb", folder=place, HOME=str(place / "home"))
        assert result.returncode == 0, result.stderr
        texts.append((place / "b.ipynb").read_text())
    assert texts[0] == texts[1]
    for place in (str(tmp_path), sys.prefix, sys.base_prefix, "ipykernel_"):
        assert place not in texts[0]
    for left in (
        "./beside.py:4: RuntimeWarning: slow",
        "cell:3: UserWarning: of a cell",
        ". ~/notes ./bin/python ./runs/a b",
    ):
        assert left in texts[0]
    assert "/site-packages/matplotlib/__init__.py:7: UserWarning: of a package" in texts[0]
    assert "file://./a.png" in texts[0] and "['.']" in texts[0]


@pytest.mark.parametrize("home", ["/", "", "/nowhere/"])
def test_other_paths_in_outputs_stay(tmp_path, run, home):
    result = run(notebook(tmp_path / "a.ipynb", f"import os\n{PLACES[-1]}"), "b.ipynb", HOME=home)
    assert result.returncode == 0, result.stderr
    assert outputs(tmp_path / "b.ipynb") == f"/data/voc runs/mine/train 1/2 {tmp_path}2 x{tmp_path}\n"


def test_results_do_not_depend_on_the_processor_or_on_what_the_user_set(tmp_path, run):
    names = sorted(PORTABLE)
    path = notebook(tmp_path / "a.ipynb", f"import os, torch\nprint([os.environ[n] for n in {names}])")
    result = run(path, tmp_path / "b.ipynb", ATEN_CPU_CAPABILITY="default", MKL_CBWR="AUTO")
    assert result.returncode == 0, result.stderr
    assert str([PORTABLE[name] for name in names]) in result.stdout


def test_the_runner_does_not_compile_a_grammar_that_it_never_uses(tmp_path):
    path = notebook(tmp_path / "a.ipynb")
    program = "import sys\nfrom rrn.pipeline import stage\nstage.main(sys.argv[1:])\nprint('lark' in sys.modules)"
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


def wait_for(path):
    """Wait until a notebook has written a file and sleeps."""
    until(path.exists)
    time.sleep(0.3)


SLOW = """
import os, time
from pathlib import Path
from rrn.runtime.signals import StopRequest
with StopRequest() as signals:
    Path("pid").write_text(str(os.getpid()))
    while not signals.asked:
        time.sleep(0.05)
    time.sleep(3)  # a step, and what is to be saved
    Path("saved").touch()
"""
HASTY = "import os, time\nfrom pathlib import Path\nPath('pid').write_text(str(os.getpid()))\ntime.sleep(6000)"


@pytest.mark.parametrize(("source", "left"), [(HASTY, ["pid"]), (SLOW, ["pid", "saved"])], ids=["hasty", "slow"])
def test_sigterm_stops_the_kernel_and_its_children_when_they_have_saved(tmp_path, source, left):
    path = notebook(tmp_path / "a.ipynb", source)
    command = [sys.executable, "-m", "rrn.stage", str(path), "b.ipynb"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "pid")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "stopped, and what was computed is kept: the same command goes on from there\n" in errors
    assert "the notebook as far as it got: b.ipynb\n" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name in ("pid", "saved")) == left


# ---- one output, one runner


@pytest.mark.parametrize("name", [name for name, entry in STAGES.items() if "rrn.stage" in entry["cmd"]])
def test_a_second_run_of_any_stage_is_refused_at_once_and_told_who_holds_it(root, tmp_path, monkeypatch, capsys, name):
    monkeypatch.setenv("RRN_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("RRN_DEVICES", "0")  # nor does it wait for a device
    book, output = re.findall(r"build/notebooks/(\S+) (\S+ipynb)", STAGES[name]["cmd"])[0]
    output = tmp_path / output.replace("${name}", "n").replace("${key}", "k")
    with locking.exclusive(output), gpus.reserve():
        assert stage.main([str(root / "notebooks" / book), str(output)]) == 3
    error = capsys.readouterr().err
    assert error.startswith(f"error: {output} is being written by another process, pid {os.getpid()} on ")
    assert re.search(r" since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S* \(python\S* ", error)
    assert error.endswith(
        "wait until it is ready, or end it and give this command again; it goes on from the last checkpoint\n"
    )
    assert not output.parent.exists()


# ---- faults


def test_no_place_for_the_lock(tmp_path, monkeypatch, capsys):
    path = notebook(tmp_path / "a.ipynb")
    (tmp_path / "file").touch()
    monkeypatch.setenv("RRN_SCRATCH", str(tmp_path / "file"))
    assert stage.main([str(path), str(tmp_path / "b.ipynb")]) == 1
    error = capsys.readouterr().err
    assert re.search(
        r"error: \S+\.lock cannot be written \(File exists\): let it be written, or let RRN_SCRATCH", error
    )
    assert not (tmp_path / "b.ipynb").exists()


TALK = "print('x\\n' * size)"


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk") as made:
        yield made


def test_a_full_disk_keeps_the_notebook_as_far_as_it_got_and_the_next_run_finishes(tmp_path, disk, run):
    path = notebook(tmp_path / "a.ipynb", "print('before')", TALK, parameters="size = 10")
    output = disk.folder / "out" / "b.ipynb"
    disk.fill(100_000)
    result = run(path, output, "size=20000")
    assert result.returncode == 1
    assert f"error: {output} cannot be written (No space left on device): make room there, or" in result.stderr
    assert "Traceback" not in result.stderr
    assert [file.name for file in output.parent.iterdir()] == ["b.ipynb"]
    assert outputs(output) == "before\n"
    disk.empty()
    assert run(path, output).returncode == 0
    assert outputs(output) == "before\n" + "x\n" * 10 + "\n"


def test_a_read_only_folder_is_named(tmp_path, disk, run):
    path = notebook(tmp_path / "a.ipynb")
    disk.set_writable(False)
    output = disk.folder / "out" / "b.ipynb"
    result = run(path, output, RRN_SCRATCH=str(tmp_path / "scratch"))
    assert result.returncode == 1
    expected = f"error: {output} cannot be written (Read-only file system): let it be written, or name another place; "
    assert result.stderr.splitlines()[0] == expected + "then give the same command again"
    assert not list((tmp_path / "scratch").iterdir())


def test_no_room_for_temporary_files(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stage, "pin_kernel", full)
    assert stage.main([str(notebook(tmp_path / "a.ipynb")), str(tmp_path / "b.ipynb")]) == 1
    assert re.search(
        r"error: \S+/rrn-\w+ cannot be written \(No space left on device\): .* set TMPDIR", capsys.readouterr().err
    )


def test_a_kernel_that_dies_is_reported_and_the_next_run_finishes(tmp_path, run):
    deaths = "if seed == 1:\n    os.kill(os.getpid(), signal.SIGKILL)\nif seed == 2:\n    os._exit(7)"
    path = notebook(tmp_path / "a.ipynb", "import os, signal\nprint('before')", deaths, "print('after')")
    for seed in (1, 2):
        result = run(path, tmp_path / "b.ipynb", f"seed={seed}")
        assert result.returncode == 1
        assert (
            "error: Kernel died: it was killed, perhaps for lack of memory (lower batch, loading.eva" in result.stderr
        )
        assert result.stderr.endswith(f"the notebook as far as it got: {tmp_path / 'b.ipynb'}\n")
        assert outputs(tmp_path / "b.ipynb") == "before\n"
        assert not list(tmp_path.glob("*.lock"))
    assert run(path, tmp_path / "b.ipynb").returncode == 0
    assert outputs(tmp_path / "b.ipynb") == "before\nafter\n"


def test_a_killed_runner_takes_its_kernel_with_it_and_the_next_run_finishes(tmp_path, run):
    path = notebook(
        tmp_path / "a.ipynb",
        "import os, time\nparent = os.getppid()\nos.getppid = lambda: parent\n"
        "from pathlib import Path\nPath('pid').write_text(str(os.getpid()))\ntime.sleep(6000 * seed)",
    )
    command = [sys.executable, "-m", "rrn.stage", str(path), "b.ipynb", "seed=1"]
    with subprocess.Popen(command, cwd=tmp_path) as process:
        wait_for(tmp_path / "pid")
        process.kill()
    kernel = int((tmp_path / "pid").read_text())
    # ipykernel, which looks for its parent once a second, still finds it
    until(lambda: not psutil.pid_exists(kernel) or psutil.Process(kernel).status() == psutil.STATUS_ZOMBIE)
    assert json.loads((tmp_path / "b.ipynb").read_text())["cells"]
    assert run(path, tmp_path / "b.ipynb").returncode == 0
    assert not list(tmp_path.glob("*.lock"))
