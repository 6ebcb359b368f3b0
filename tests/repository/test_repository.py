"""The shape of the repository: who imports whom, and that the pipeline depends on what it uses."""

import ast
import io
import json
import re
import subprocess
import sys
import tokenize

import pandas as pd
import pytest
from conftest import ROOT, git
from ruamel.yaml import YAML
from studies import table_cells

from rrn import config
from rrn.pieces.made_with import made_with

MODULES = {p.relative_to(ROOT).as_posix(): p for p in sorted((ROOT / "rrn").rglob("*.py"))}
NOTEBOOKS = {p.name: p for p in sorted((ROOT / "notebooks").glob("*.ipynb"))}
STAGES = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"]
WITHOUT_TORCH = {"prepare", "ablation", "pictures"}
LINES = 300
NOT_OF_THE_STAGE = {
    "prepare": {"ablation", "name"},
    "warmup": {"name", "loading", "cutmix", "train", "method"},
    "train": {"name", "loading", "warmup"},
    "evaluate": {"name", "ablation"},
    "ablation": {"name"},
    "pictures": {"name"},
}
"""Settings that modules of a stage read, but never for this stage, or without effect on results."""

ENTRIES = {
    name
    for name, path in MODULES.items()
    if name.count("/") == 1 or path.name == "__main__.py"
    if len([line for line in path.read_text().splitlines() if line]) <= 5 and "__main__" in path.read_text()
}
"""`python -m rrn.repro` and others: a name for what a room does."""
MAY_IMPORT = {
    "environment": "",
    "runtime": "",
    "settings": "runtime",
    "config": "runtime settings",
    "data": "runtime settings config",
    "annotations": "runtime config data",
    "preparation": "runtime config data annotations",
    "models": "runtime config data",
    "method": "runtime config data models",
    "reliability": "runtime settings config data",
    "runs": "runtime settings config data models method",
    "evaluation": "runtime config data models method reliability runs",
    "evaluate": "runtime config data models method reliability runs evaluation",
    "prediction": "runtime config data models method reliability runs evaluation",
    "exporting": "runtime config data models method runs evaluation prediction",
    "training": "runtime config data models method reliability runs evaluation",
    "train": "runtime config data models method reliability runs evaluation training",
    "pieces": "runtime settings config data reliability",
    "plotting": "runtime config data reliability",
    "paper": "runtime settings config data reliability pieces plotting",
    "explorer": "runtime config data reliability plotting",
    "pipeline": "runtime settings config data preparation pieces",
}
"""Rooms, and what lies in rrn/ itself, with the rooms that they may import besides themselves."""
ROOMS_WITH_TORCH = (
    *("models", "method", "runs", "evaluation", "evaluate", "prediction"),
    *("exporting", "training", "train"),
)
WITH_TORCH = {
    *(name for name in MODULES if name.removesuffix(".py").split("/")[1] in ROOMS_WITH_TORCH),
    *("rrn/export.py", "rrn/predict.py", "rrn/data/batches.py", "rrn/data/prefetch.py", "rrn/data/transforms.py"),
    *("rrn/runtime/distributed.py", "rrn/runtime/memory.py", "rrn/runtime/seeding.py"),
} - {"rrn/training/launch.py"}
"""No other module needs torch, directly or not: the front door, the checks of data and the explorer start at once."""


def code_of(path):
    """Return the Python source of a module or a notebook."""
    if path.suffix == ".py":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


def imported_names(path):
    """Yield the dotted names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(code_of(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def direct(path):
    """Return the modules of rrn that a file imports."""
    files = {f"{name.replace('.', '/')}.py" for name in imported_names(path)}
    return files & set(MODULES)


def closure(path):
    """Return the modules of rrn that a file imports, directly or not."""
    found, todo = set(), direct(path)
    while todo:
        name = todo.pop()
        found.add(name)
        todo |= direct(MODULES[name]) - found
    return found


def room(name):
    """Return the room of a file, or the module that lies in rrn/ itself."""
    return name.removesuffix(".py").split("/")[1]


def test_the_folder_decides_who_may_import_whom():
    found = {(name, room(other)) for name in MODULES.keys() - ENTRIES for other in direct(MODULES[name])}
    wrong = {(name, of) for name, of in found if of not in (room(name), *MAY_IMPORT.get(room(name), "").split())}
    assert wrong == {("rrn/__init__.py", "environment")}


def test_rooms_are_small_and_say_what_is_in_them():
    folders = {path.parent for path in MODULES.values()}
    for folder in folders:
        inside = {path.stem for path in folder.glob("*.py") if path.relative_to(ROOT).as_posix() not in ENTRIES}
        inside -= {"__init__"}
        assert len(inside) <= (9 if folder.name == "rrn" else 14), folder
        words = set(re.findall(r"\w+", (folder / "__init__.py").read_text()))
        assert folder.name == "rrn" or inside <= words, f"{folder}: {inside - words}"


def public_definitions():
    """Return the public classes and functions: name -> modules; `main` and `parser` are what every command has."""
    found = {}
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text()).body:
            public = isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
            if public and node.name not in ("main", "parser"):
                found.setdefault(node.name, []).append(module)
    return found


SCORED = ["rrn/evaluation/scores.py", "rrn/models/pseudo_label_scores.py"]


def test_a_name_means_one_thing():
    """But for a score: a step computes it of crops to filter by it, an evaluation of whole images to measure it."""
    twice = {name: modules for name, modules in public_definitions().items() if len(modules) > 1}
    scores = {
        name for name in twice if twice[name] == ["rrn/evaluation/scores.py", "rrn/models/pseudo_label_scores.py"]
    }
    assert set(twice) - scores == set(), twice


def test_there_are_no_cycles():
    for name, path in MODULES.items():
        assert name not in closure(path), f"{name} imports itself through others"


@pytest.mark.parametrize("name", sorted(set(MODULES) - WITH_TORCH))
def test_modules_without_torch(name):
    for module in {name} | closure(MODULES[name]):
        packages = {imported.split(".")[0] for imported in imported_names(MODULES[module])}
        assert not packages & {"torch", "torchvision", "torchmetrics", "timm"}, module


@pytest.mark.parametrize("stage", sorted(WITHOUT_TORCH))
def test_stages_without_torch_start_none(stage):
    modules = sorted(closure(notebook_of(stage)))
    names = ", ".join(module.removesuffix(".py").replace("/", ".") for module in modules)
    program = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def test_packages_hold_no_code():
    for name, path in MODULES.items():
        if path.name == "__init__.py" and name != "rrn/__init__.py":
            assert not code_lines(path.read_text()), name
            assert 5 <= len(path.read_text().splitlines()) <= 12, name
    first = ast.parse(MODULES["rrn/__init__.py"].read_text()).body[1:]
    assert [ast.unparse(line) for line in first] == ["from rrn import environment", "environment.require_environment()"]


def code_lines(text):
    """Return the numbers of the lines that hold code: no comments, docstrings or blank lines."""
    blank = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type not in blank]
    lines = {n for t in tokens if t.string for n in range(t.start[0], t.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines -= set(range(node.lineno, node.end_lineno + 1))
    return lines


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_short(name):
    assert len(code_lines(MODULES[name].read_text())) < LINES


def notebook_of(stage):
    (name,) = re.findall(r"build/notebooks/(\S+)", STAGES[stage]["cmd"])
    return NOTEBOOKS[name]


RUNS = [stage for stage in STAGES if "build/notebooks/" in STAGES[stage]["cmd"]]
PLAIN = [stage for stage in STAGES if stage not in RUNS and stage != "notebooks"]
"""Stages that run a module, not a notebook."""


def code_of_stage(stage):
    """Return what a stage depends on of the code: rooms, and modules that lie in rrn/ itself."""
    return {dep for dep in STAGES[stage]["deps"] if "rrn" in dep.split("/")}


def places(modules):
    """Return where modules lie in the copy of the code that has no comments and docstrings: a room, or the module."""
    return {"/".join(["build", *name.split("/")[:2]]) for name in modules}


@pytest.mark.parametrize("stage", RUNS)
def test_stages_depend_on_the_rooms_that_their_notebooks_import(stage):
    assert code_of_stage(stage) == places(closure(notebook_of(stage)))
    assert f"build/notebooks/{notebook_of(stage).name}" in STAGES[stage]["deps"]


@pytest.mark.parametrize("stage", PLAIN)
def test_stages_without_a_notebook_depend_on_the_rooms_of_their_module(stage):
    (module,) = re.findall(r"python -m rrn\.(\w+)", STAGES[stage]["cmd"])
    name = f"rrn/{module}.py" if f"rrn/{module}.py" in MODULES else f"rrn/{module}/__main__.py"
    assert code_of_stage(stage) == places({name} | closure(MODULES[name]))


def test_the_copies_that_stages_depend_on_are_made_of_all_notebooks_and_all_code():
    made = STAGES["notebooks"]
    assert (made["deps"], made["outs"]) == (["notebooks", "rrn"], ["build/notebooks", "build/rrn"])
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 200


def test_no_training_depends_on_how_anything_is_drawn():
    idle = {f"build/rrn/{name}" for name in ("plotting", "paper", "pieces", "explorer", "pipeline", "preparation")}
    for stage in ("warmup", "train"):
        assert not code_of_stage(stage) & idle


def test_what_computes_depends_on_the_switches_that_decide_the_bits():
    assert "rrn/runtime/portable.py" in MODULES
    assert [stage for stage in RUNS if "build/rrn/runtime" not in STAGES[stage]["deps"]] == []


def test_files_of_the_package_lie_in_the_room_that_reads_them():
    """So that the stages that depend on the room depend on the file, too."""
    others = [path for path in tracked("rrn") if path.suffix != ".py"]
    assert others
    for path in others:
        readers = {room(name) for name, module in MODULES.items() if path.name in module.read_text()}
        assert readers == {room(path.relative_to(ROOT).as_posix())}, path


def test_the_data_are_hashed_by_one_stage_and_known_to_the_others_by_their_checksum():
    """Each further stage that depended on the folder would walk it again on an idle `dvc repro`."""
    assert [stage for stage in STAGES if "${dataset.path}" in STAGES[stage]["deps"]] == ["verify"]
    assert "runs/${name}/verify" in STAGES["prepare"]["deps"]
    reading = {"warmup", "train", "evaluate"}
    assert {s for s in RUNS if any(dep.endswith("/split.json") for dep in STAGES[s]["deps"])} == reading


@pytest.mark.parametrize("stage", RUNS)
def test_stages_depend_on_the_settings_they_show(stage):
    shown = set()
    for node in ast.walk(ast.parse(code_of(notebook_of(stage)))):
        if isinstance(node, ast.keyword) and node.arg == "include":
            shown |= set(ast.literal_eval(node.value))
    assert shown
    assert shown <= {name.split(".")[0] for name in STAGES[stage]["params"]}


def sections_read(path):
    """Return the sections of Settings that a module or a notebook reads."""
    found = set()
    for node in ast.walk(ast.parse(code_of(path))):
        if isinstance(node, ast.Attribute) and node.attr in config.Settings.model_fields:
            owner = node.value
            if getattr(owner, "id", getattr(owner, "attr", None)) == "settings":
                found.add(node.attr)
    return found


@pytest.mark.parametrize("stage", RUNS)
def test_stages_depend_on_the_settings_their_modules_read(stage):
    modules = closure(notebook_of(stage)) - {"rrn/config.py"}
    read = set().union(sections_read(notebook_of(stage)), *(sections_read(MODULES[name]) for name in modules))
    listed = {name.split(".")[0] for name in STAGES[stage]["params"]}
    assert read - listed == NOT_OF_THE_STAGE[stage]
    stated = set(made_with(config.load("rrn"))) if stage == "evaluate" else set()
    assert listed - read <= {"methods", "method"} | stated


def test_evaluate_depends_on_all_that_a_piece_says_it_was_made_with():
    """Or else a piece could be of other settings while dvc takes its stage for done."""
    stated = made_with(config.load("rrn"))
    parts = {f"log.{key}" for key in stated.pop("log")}
    assert {*stated, *parts} <= set(STAGES["evaluate"]["params"])


def test_what_changes_no_bit_runs_nothing_again_and_what_evidence_shows_no_training():
    listed = {stage: set(STAGES[stage].get("params", [])) for stage in STAGES}
    loading = {stage: {name for name in names if name.startswith("loading")} for stage, names in listed.items()}
    rounding = {"evaluate": {"loading.evaluation_batch", "loading.evaluation_pixels"}}
    assert {stage: names for stage, names in loading.items() if names} == rounding
    assert [stage for stage, names in listed.items() if names & {"log", "log.evidence"}] == ["evaluate"]
    assert not any("log.tensorboard" in names for names in listed.values()), "what is only watched is the same"
    keys = {f"log.{key}" for key in config.Settings.model_fields["log"].annotation.model_fields}
    others = keys - {"log.evidence", "log.tensorboard"}
    assert others <= listed["warmup"] and others <= listed["train"]


@pytest.mark.parametrize("stage", RUNS)
def test_settings_listed_exist(stage):
    known = set(config.Settings.model_fields)
    assert {name.split(".")[0] for name in STAGES[stage]["params"]} <= known


@pytest.mark.parametrize("stage", RUNS)
def test_parameters_passed_exist_in_the_notebook(stage):
    cells = json.loads(notebook_of(stage).read_text())["cells"]
    (cell,) = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
    known = {node.targets[0].id for node in ast.parse("".join(cell["source"])).body}
    passed = set(re.findall(r"(\w+)=", STAGES[stage]["cmd"]))
    assert passed <= known
    assert "out_dir" in passed


def test_nothing_but_the_embedded_data_goes_to_the_remote_that_git_holds():
    """Runs go to a remote of the user's own, which has to be named: there is no default one."""
    assert "remote = " not in (ROOT / ".dvc" / "config").read_text()
    for name, stage in STAGES.items():
        for out in [*stage["outs"], *stage.get("metrics", [])]:
            assert isinstance(out, str) or list(out.values()) == [{"cache": False}], f"{name}: {out}"
    (data,) = YAML(typ="safe").load((ROOT / "data.dvc").read_text())["outs"]
    assert (data["path"], data["remote"]) == ("data/shapes", "datastore")


def tracked(*patterns):
    names = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard", *patterns)
    return [ROOT / name for name in names.splitlines() if (ROOT / name).is_file()]


def test_no_absolute_path_is_committed():
    for path in tracked("*.ipynb", "dvc.lock", "*.yaml", "*.dvc", ".dvc/config"):
        text = path.read_text()
        found = re.findall(r"""(?:^|[\s"'=:])(/(?:[\w.-]+/)+[\w.-]*)""", text, flags=re.MULTILINE)
        assert not found, f"{path.name}: {found[:3]}"


def test_lock_belongs_to_the_pipeline():
    """It has neither stages that are gone nor, in what pictures reads, runs of rows that are."""
    lock = YAML(typ="safe", pure=True).load((ROOT / "dvc.lock").read_text())["stages"]
    command = [sys.executable, "-m", "dvc", "stage", "list", "--name-only"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(lock) == set(listed.split())
    for dep in lock["pictures"]["deps"]:
        stage = dep["path"].split("/")[-1]
        runs = [entry for name, entry in lock.items() if name.startswith(f"{stage}@")]
        if runs:
            folders = [out for run in runs for out in run["outs"] if out["path"].startswith("runs/")]
            assert dep["nfiles"] == sum(out["nfiles"] for out in folders)


def test_pages_map_every_room():
    rooms = {f"rrn/{room(name)}/" for name in MODULES if name.count("/") > 1}
    lying = {f"rrn/{path.name}" for path in (ROOT / "rrn").glob("*.py")} - ENTRIES - {"rrn/__init__.py"}
    assert not [name for name in rooms | lying if f"`{name}`" not in (ROOT / "README.md").read_text()]
    text = (ROOT / "docs" / "architecture.md").read_text()
    missing = [
        name
        for name in MODULES.keys() - ENTRIES
        if not name.endswith("__init__.py") and f"`{name.split('/')[-1]}`" not in text
    ]
    assert not missing


@pytest.mark.parametrize(("page", "name"), [("docs/results.md", "study"), ("docs/real.md", "camvid_controls")])
def test_pages_show_the_tables_of_the_results(page, name):
    table, caption = (ROOT / "results" / name / "ablation.md").read_text().strip().split("\n\n")
    text = (ROOT / page).read_text()
    rows, shown = table_cells(table), table_cells(text)
    assert rows in [shown[place : place + len(rows)] for place in range(len(shown))] and caption in text


def test_readme_shows_the_means_and_differences_of_the_results():
    text = (ROOT / "results" / "study" / "ablation.md").read_text()
    rows = [row for row in table_cells(text) if row[0] == "1of16"]
    readme = re.findall(
        r"^\| (?:\*\*)?(\w+)[^|]* \| (.+?) \| (.*?) \|$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert [list(row) for row in readme if "±" in row[1]] == [[row[1], row[3], row[5]] for row in rows]


def test_readme_is_read_in_one_sitting():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 100 and max(map(len, lines)) <= 140
    screen = "\n".join(lines[:30])
    assert all(
        word in screen
        for word in ("overview.png", "| **rrn** |", "make environment", "make repro", "method.py", "train.py")
    )


def test_the_page_of_experiments_shows_the_means_of_the_results():
    text = (ROOT / "docs" / "experiments.md").read_text()
    shown = re.findall(
        r"^\| results/shapes/metrics/(\w+)-(\w+)\.json \| (\S+) \| (\S+) \| (\S+) \|$", text, re.MULTILINE
    )
    table = pd.read_csv(ROOT / "results" / "shapes" / "ablation.csv").set_index(["partition", "method"])
    assert {row[:2] for row in shown} == set(table.index)
    for *row, ensemble, mean, deviation in shown:
        known = table.loc[tuple(row), ["miou_ensemble", "miou_mean", "miou_std"]].tolist()
        assert [float(ensemble), float(mean), float(deviation)] == pytest.approx(known, abs=1e-3)


def test_links_lead_somewhere():
    for page in tracked("*.md"):
        links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
        broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
        assert not broken, page.name


def test_code_is_finished():
    marks = "TO" + "DO", "FIX" + "ME", "type: " + "ignore", "no" + "qa", "except" + ":"
    for path in tracked("*.py", "*.ipynb"):
        text = path.read_text()
        assert not [mark for mark in marks if mark in text], path.name
