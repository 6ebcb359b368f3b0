"""Notebooks in git: stripped, short, literal parameters, and nothing that belongs into rrn."""

import ast
import re
import subprocess

import nbformat
import pytest
from conftest import ROOT

from rrn.pipeline import strip

PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXPLORER = "explore_pseudo_labels"
"""The one notebook that is no stage: it writes nothing, and what it is for, the widget, stands at its end."""

IMPORTS = {"IPython", "dataclasses", "matplotlib", "numpy", "pandas", "pathlib", "rrn"}
COORDINATES = {"partition", "method", "seed", "out_dir", "results_dir", "overrides"}
LINES = 60


def committed(path):
    """Return what git has of a notebook, so that one that lies open with outputs does not fail."""
    show = ["git", "show", f":notebooks/{path.name}"]
    result = subprocess.run(show, cwd=ROOT, capture_output=True, text=True, check=False)
    return result.stdout if result.returncode == 0 else path.read_text()


@pytest.fixture(params=PATHS, ids=lambda path: path.name)
def path(request):
    return request.param


@pytest.fixture
def text(path):
    return committed(path)


@pytest.fixture
def notebook(text):
    return nbformat.reads(text, 4)


def code(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_every_stage_has_its_notebook():
    names = ["1_prepare", "2_warmup", "3_train", "4_evaluate", "5_ablation", "6_pictures"]
    assert set(names) <= {path.stem for path in PATHS}


def test_is_valid_and_stripped(text, notebook):
    nbformat.validate(notebook)
    assert strip.canonical(text) == text


def test_has_one_parameters_cell_of_literals(path, notebook):
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    names = set()
    for node in ast.parse(cell.source).body:
        assert isinstance(node, ast.Assign)
        ast.literal_eval(node.value)
        names.add(node.targets[0].id)
    if path.stem == EXPLORER:
        assert names == {"evidence"}
    else:
        assert names <= COORDINATES
        assert {"out_dir", "overrides"} <= names


def test_defaults_write_to_scratch(notebook):
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    for node in ast.parse(cell.source).body:
        if node.targets[0].id.endswith("_dir"):
            assert ast.literal_eval(node.value).startswith("scratch/")


def test_tells_a_story_and_is_short(path, notebook):
    first, *_, last = notebook.cells
    if path.stem == EXPLORER:
        assert "Explorer" in last.source
        last = [cell for cell in notebook.cells if cell.cell_type == "markdown"][-2]
    assert first.cell_type == last.cell_type == "markdown"
    title = first.source.splitlines()[0]
    assert title.startswith("# ") and title.endswith("?")
    assert "suspicious" in last.source
    lines = [line for source in code(notebook) for line in source.splitlines() if line.strip()]
    assert len(lines) <= LINES


def test_defines_nothing_and_imports_little(notebook):
    for node in ast.walk(ast.parse("\n".join(code(notebook)))):
        assert not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.Lambda)
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= IMPORTS
        if isinstance(node, ast.ImportFrom):
            assert node.module.split(".")[0] in IMPORTS


def test_tables_with_names_of_classes_are_read_as_names(notebook):
    """pandas alone reads a class called NA as a missing value."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert not re.findall(r"pd\.read_csv\(.*(?:reliability|per_class|frequencies)", code)
