"""The tool that says whether tests notice wrong code, on code and tests of four functions."""

import importlib
import json

import pandas as pd
from conftest import ROOT, python

tool = importlib.import_module("mutants")

CODE = '''"""Four functions."""

from functools import cache

LIMIT = 10


def rest(number: int) -> int:
    """Take 10 away as often as it can be done."""
    while number > LIMIT:
        number -= 10
    return number


@cache
def larger(a, b):
    return (
        a
        if a > b
        else b
    )


def unseen(text):
    return text.lower()


def loose(number):
    return number * 3
'''
TESTS = """
import pytest
from small.counting import larger, loose, rest


def test_rest():
    assert rest(25) == 5


def test_larger():
    assert larger(1, 2) == 2 and larger(2, 1) == 2


@pytest.mark.parametrize("number", [1])
def test_loose(number):
    assert loose(number) > 0
"""
RUN = """
import sys
sys.path.insert(0, sys.argv[1])
import mutants
from pathlib import Path
mutants.PACKAGES, mutants.PATIENCE = (), (4.0, 10.0)
for name in ("counting", "failing"):
    table = mutants.examine(Path.cwd(), "small/counting.py", (f"tests/test_{name}.py",), 1000)
    print(table.to_json(orient="records"))
"""


def write(root, **files):
    for name, text in files.items():
        path = root / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def changes(text):
    return {(mutant.before, mutant.after) for mutant in tool.mutants(text)}


def test_code_is_changed_also_under_decorators_and_names_types_and_docstrings_are_not():
    found = changes(CODE)
    assert ("if a > b", "if a >= b") in found
    assert {("LIMIT = 10", "LIMIT = 11"), ("number -= 10", "number += 10")} <= found
    assert ("return text.lower()", "return text.upper()") in found
    assert not [before for before, _ in found if "def " in before or "@" in before or '"""' in before]
    assert len({mutant.text for mutant in tool.mutants(CODE)}) == len(tool.mutants(CODE))


def test_a_difference_is_shown_without_the_lines_around_it():
    assert tool.differing("a\nb\n  c\nd", "a\nb\n  x\nd") == ("c", "x")
    assert tool.differing("a\nb\nb\nc", "a\nb\nc") == ("b", "")
    assert tool.differing("a", "a\nb") == ("", "b")


def test_a_line_belongs_to_its_innermost_statement_and_a_head_ends_before_its_body():
    heads = tool.statements(CODE)
    line = {text.strip(): number for number, text in enumerate(CODE.splitlines(), 1)}
    assert heads[line["while number > LIMIT:"]] == range(10, 11)
    assert heads[line["number -= 10"]] == range(11, 12)
    assert heads[line["if a > b"]] == range(17, 22)


def test_tests_of_a_line_come_fastest_first_and_all_of_them_where_the_import_executes_it():
    seconds = {"t.py::slow": 2.0, "t.py::fast": 1.0, "t.py::other": 0.5, "u.py::far": 0.1}
    executing = {1: {""}, 2: {"t.py::slow", "t.py::fast"}, 3: {"t.py::"}}
    heads = {line: range(line, line + 1) for line in (1, 2, 3, 4)}

    def chosen(line):
        return tool.selected(tool.Mutant((line, line), "", "", ""), heads, seconds, executing)

    assert chosen(2) == ["t.py::fast", "t.py::slow"]
    assert chosen(3) == chosen(1) == ["t.py::other", "t.py::fast", "t.py::slow"]  # a fixture counts for its file
    assert chosen(4) == []


def test_each_mutant_is_killed_survives_or_runs_out_of_time_and_a_suite_that_fails_by_itself_is_refused(tmp_path):
    failing = TESTS.replace("== 5", "== 6")
    write(tmp_path, small__counting=CODE, tests__test_counting=TESTS, tests__test_failing=failing)
    done = python(tmp_path, "-c", RUN, ROOT / "benchmarks")
    text = "small/counting.py: tests/test_failing.py fails without any mutant: run it with pytest first"
    assert text in done.stderr
    table = pd.DataFrame(json.loads(done.stdout.splitlines()[-1]))
    verdict = dict(zip(table["after"], table["verdict"], strict=True))
    assert verdict["number += 10"] == "timeout"
    assert verdict["number -= 11"] == verdict["LIMIT = None"] == verdict["if (a > b) and False"] == "killed"
    assert verdict["return text.upper()"] == verdict["return number * 4"] == verdict["if a >= b"] == "survived"
    assert (tmp_path / "small/counting.py").read_text() == CODE
    assert [path.name for path in (tmp_path / "small").iterdir()] == ["counting.py"]


def test_a_row_takes_the_place_of_the_former_one_of_its_module(tmp_path):
    table = pd.DataFrame({"line": [1, 2, 3, 4], "verdict": ["killed", "timeout", "survived", "killed"]})
    table.attrs["mutants"] = 9
    path = tmp_path / "mutants.csv"
    for module, killed in (("b.py", "killed"), ("a.py", "killed"), ("b.py", "timeout")):
        tool.record(path, module, table.replace({"verdict": {"killed": killed}}))
    written = pd.read_csv(path)
    assert written["module"].tolist() == ["a.py", "b.py"] and written["timeout"].tolist() == [1, 3]
    row = written.loc[0, "mutants":"score"].tolist()
    assert row == [9, 4, 2, 1, 1, 0.75]
    lost = pd.read_csv(tmp_path / "mutants_survived.csv")
    assert lost[["module", "line"]].to_numpy().tolist() == [["a.py", 3], ["b.py", 3]]


def test_every_recorded_survivor_is_of_a_recorded_module():
    scores, lost = (pd.read_csv(ROOT / "benchmarks" / name) for name in ("mutants.csv", "mutants_survived.csv"))
    assert set(scores["module"]) <= set(tool.SUITES)
    assert scores.set_index("module")["survived"].to_dict() == {
        module: int((lost["module"] == module).sum()) for module in scores["module"]
    }
    assert (scores["sampled"] == scores[["mutants"]].clip(upper=300)["mutants"]).all()
