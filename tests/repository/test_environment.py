"""`make environment` says which Python is needed, mends what is half made and deletes nothing else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, copy_repository

from rrn import environment

WANTED = environment.python_versions()
STUB = """#!/bin/sh
echo "$*" >> '{log}'
case "$*" in
"-I -c import sys"*) echo {version} ;;
"-I -c ") ;;
"-I rrn/environment.py"*) exec {python} "$@" ;;
"-I -m pip --version") test -e "$(dirname "$0")/pip" ;;
"-m venv --clear "*) rm -rf "$4"; mkdir -p "$4/bin"; touch "$4/pyvenv.cfg" "$4/bin/pip"; cp "$0" "$4/bin/python" ;;
"-m pip install --quiet -e "*) ;;
*) exit 9 ;;
esac
"""
"""A Python that says its version, and makes environments whose Python is a copy of it; it installs nothing."""


@pytest.fixture
def clone(tmp_path):
    """What `make environment` needs, in a folder with a space in its name."""
    place = tmp_path / "My Projects" / "rrn"
    (place / "rrn").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "rrn/environment.py"):
        shutil.copy(ROOT / name, place / name)
    return place


def stub(path, version):
    """Write a Python of some version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log = next(parent for parent in path.parents if parent.name == "My Projects").parent / "log"
    path.write_text(STUB.format(log=log, version=version, python=sys.executable))
    path.chmod(0o755)
    return path


def make(clone, *words, **more):
    """Make the environment; return the exit status, what was said, and what Pythons were told to do."""
    outer = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PYTHON", "VENV"}
    own = {name: value for name, value in os.environ.items() if name not in outer} | more
    command = ["make", "--silent", "environment", *words]
    done = subprocess.run(command, cwd=clone, env=own, capture_output=True, text=True, check=False)
    log = clone.parents[1] / "log"
    told = [line for line in log.read_text().splitlines() if not line.startswith("-I")] if log.exists() else []
    log.unlink(missing_ok=True)
    return done.returncode, done.stderr, [" ".join(line.split()[:3]) for line in told]


MADE = ["-m venv --clear", "-m pip install"]


@pytest.mark.parametrize("version", ["3.11.4", "3.11.15", "3.12.0", "3.13.7"])
def test_an_environment_is_made_once(clone, version):
    python = stub(clone / "pythons" / "a python", version)
    assert make(clone, f"PYTHON={python}") == (0, "", MADE)
    assert (clone / ".venv/bin/python").read_text() == python.read_text()
    assert make(clone, f"PYTHON={python}") == (0, "", [])


@pytest.mark.parametrize("version", ["3.11.2", "3.11.3", "3.10.13", "3.14.0", "3.6.15", "4.0.0"])
def test_a_python_that_does_not_fit_is_told_before_anything_is_made(clone, version):
    python = stub(clone / "pythons" / "python", version)
    status, said, told = make(clone, f"PYTHON={python}")
    assert status == 2 and told == [] and not (clone / ".venv").exists()
    expected = (
        f"error: {python} is Python {version}; Python {WANTED} is needed: name one, `make environment PYTHON=...`"
    )
    assert said.splitlines()[0] == expected


@pytest.mark.parametrize(
    ("found", "taken"),
    [
        ({"python3.11": "3.11.9", "python3.13": "3.13.1"}, "python3.11"),
        ({"python3.11": "3.11.2", "python3.12": "3.12.1", "python3.13": "3.13.1"}, "python3.12"),
        ({"python3.13": "3.13.1", "python3": "3.9.2"}, "python3.13"),
        ({"python3": "3.12.4"}, "python3"),
    ],
)
def test_without_a_name_the_first_python_that_fits_is_taken(clone, found, taken):
    pythons = {name: stub(clone / "pythons" / name, version) for name, version in found.items()}
    assert make(clone, PATH=path_of_these_alone(clone)) == (0, "", MADE)
    assert (clone / ".venv/bin/python").read_text() == pythons[taken].read_text()


def test_without_a_name_and_without_one_that_fits_all_that_were_found_are_named(clone):
    for name, version in (("python3.11", "3.11.2"), ("python3", "3.9.2")):
        stub(clone / "pythons" / name, version)
    status, said, told = make(clone, PATH=path_of_these_alone(clone))
    assert status == 2 and told == []
    assert said.splitlines()[0] == (
        f"error: python3.11 is Python 3.11.2, python3 is Python 3.9.2; Python {WANTED} is needed: name one, "
        "`make environment PYTHON=...`"
    )


def path_of_these_alone(clone):
    """Return a PATH with the Pythons of the test and no others, but with the programs that make needs."""
    programs = clone / "programs"
    programs.mkdir()
    for name in ("bash", "sh", "sed", "id", "make", "rm", "mkdir", "touch", "cp", "dirname", "test"):
        (programs / name).symlink_to(shutil.which(name))
    return f"{clone / 'pythons'}{os.pathsep}{programs}"


def test_a_python_that_is_not_there_is_one_sentence(clone):
    for words in (["PYTHON=no_such_python"], ["PYTHON=/no/such python"]):
        status, said, _ = make(clone, *words)
        name = words[0].partition("=")[2]
        expected = f"error: there is no Python {name} that runs; Python {WANTED} is needed: name one,"
        assert status == 2 and said.splitlines()[0] == f"{expected} `make environment PYTHON=...`"
        assert len(said.splitlines()) == 2  # and that of make


def of_another_version(venv):
    stub(venv / "bin/python", "3.14.1")
    (venv / "bin/pip").touch()


def without_pip(venv):
    stub(venv / "bin/python", "3.11.9")


def of_a_python_that_is_gone(venv):
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").symlink_to("/no/such/python")


def of_a_python_that_does_not_run(venv):
    without_pip(venv)
    (venv / "bin/python").write_text("no program")


def hardly_begun(venv):
    venv.mkdir()


@pytest.mark.parametrize(
    "begun",
    [of_another_version, without_pip, of_a_python_that_is_gone, of_a_python_that_does_not_run, hardly_begun],
)
def test_what_is_half_made_or_does_not_fit_is_made_again(clone, begun):
    begun(clone / ".venv")
    (clone / ".venv/pyvenv.cfg").touch()
    python = stub(clone / "pythons" / "python", "3.11.9")
    assert make(clone, f"PYTHON={python}") == (0, "", MADE)
    assert make(clone, f"PYTHON={python}") == (0, "", [])


@pytest.mark.parametrize("python", ["3.11.2", "3.11.9", None])
@pytest.mark.parametrize("config", [True, False], ids=["of venv", "of another program"])
def test_one_that_fits_stays_whatever_python_is_named(clone, python, config):
    without_pip(clone / ".venv")
    (clone / ".venv/bin/pip").touch()
    (clone / ".venv/mine").touch()
    if config:
        (clone / ".venv/pyvenv.cfg").touch()
    named = stub(clone / "pythons" / "python", python) if python else "no_such_python"
    assert make(clone, f"PYTHON={named}") == (0, "", MADE[1:])
    assert make(clone, f"PYTHON={named}") == (0, "", [])
    assert (clone / ".venv/mine").exists()


def test_what_is_no_environment_is_not_deleted(clone):
    python, venv = stub(clone / "pythons" / "python", "3.11.9"), clone / ".venv"
    venv.mkdir()
    (venv / "notes").write_text("mine")
    expected = f"error: {venv} is no virtual environment, and holds no Python {WANTED} with pip: move it away, or"
    for _ in range(2):
        status, said, told = make(clone, f"PYTHON={python}")
        assert status == 2 and told == []
        assert said.splitlines()[0] == f"{expected} name another place, `make environment VENV=...`"
    assert (venv / "notes").read_text() == "mine"
    venv.rename(clone / "elsewhere")
    of_another_version(clone / "others")
    (clone / "others/pyvenv.cfg").touch()
    venv.symlink_to(clone / "others")
    assert f"error: {venv} is a link, and holds no Python" in make(clone, f"PYTHON={python}")[1]
    assert (clone / "others/bin/python").exists()
    venv.unlink()
    venv.touch()
    assert "is no virtual environment" in make(clone, f"PYTHON={python}")[1]
    assert make(clone, f"PYTHON={python}", "VENV=another place") == (0, "", MADE)
    assert make(clone, f"PYTHON={python}", f"VENV={clone}/another place") == (0, "", [])


def test_a_real_environment_gets_the_pip_that_it_lacks_and_keeps_what_it_has(tmp_path):
    venv = tmp_path / "a venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (venv / "mine").touch()
    environment.make_environment(venv, sys.executable)
    subprocess.run([venv / "bin/python", "-m", "pip", "--version"], check=True)
    assert (venv / "mine").exists()


def test_every_recipe_works_in_a_folder_whose_name_has_spaces(clone):
    """Every program that a recipe starts is one word, whatever folder it is in."""
    for venv in (".venv", f"{clone}/.venv"):
        command = ["make", "--dry-run", "--assume-old=environment", f"VENV={venv}"]
        targets = ("data", "repro", "explore", "bench", "mutants", "soak", "coverage", "test", "check", "smoke")
        shown = subprocess.run([*command, *targets], cwd=clone, capture_output=True, text=True, check=True).stdout
        assert shown.count(f'"{clone}/.venv/bin/') == shown.count("/.venv/bin/") > len(targets)


def test_the_readme_says_which_python_is_needed():
    assert WANTED == ">=3.11.4,<3.14"
    assert "Python 3.11.4 to 3.13" in (ROOT / "README.md").read_text()


# ---- a Python that is not that of the environment


FOREIGN = f"error: this Python, {sys.executable} ({sys.version.split()[0]}), is not that of the environment: it has no "
CURE = "run `. .venv/bin/activate` first, or use `.venv/bin/python` (`make environment` makes it)\n"


def foreign(*command, folder=ROOT, **more):
    """Run this interpreter without any package."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | more
    return subprocess.run(
        [sys.executable, "-S", *command], cwd=folder, env=own, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("program", ["stage", "strip", "report", "data", "preset", "repro", "predict"])
def test_a_python_without_the_packages_is_one_sentence(program):
    result = foreign("-m", f"rrn.{program}", "a", "b")
    assert result.returncode == 1
    assert result.stderr == f"{FOREIGN}papermill, pydantic, torch; {CURE}"


def test_an_import_by_a_foreign_python_says_the_same():
    result = foreign("-c", "import rrn")
    assert result.returncode == 1
    assert result.stderr.endswith(f"ImportError: {FOREIGN.removeprefix('error: ')}papermill, pydantic, torch; {CURE}")


@pytest.mark.parametrize("version", [(3, 11, 2), (3, 14, 0), (3, 9, 18)])
def test_a_python_of_another_version_is_told_which_is_needed(monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", version)
    name = ".".join(map(str, version))
    with pytest.raises(ImportError, match=rf"\({name}\), is not that of the environment: {WANTED} is needed; run"):
        environment.require_environment()


def test_whoever_answers_for_it_may_use_any_python(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    monkeypatch.setenv("RRN_ANY_PYTHON", "1")
    environment.require_environment()


def test_the_python_of_the_environment_is_told_nothing(monkeypatch, tmp_path):
    environment.require_environment()
    monkeypatch.setattr(environment, "LOCKED", tmp_path / "none")  # an installed copy: pip has looked
    environment.require_environment()


def test_dvc_called_by_its_path_shows_the_sentence_of_its_stage(tmp_path):
    copy = copy_repository(tmp_path / "copy", without=("datastore/", "data/", "results/", "tests/", "dvc.lock"))
    subprocess.run([sys.executable, "-m", "dvc", "config", "core.autostage", "false"], cwd=copy, check=True)
    other = tmp_path / "bin" / "python"
    other.parent.mkdir()
    other.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    other.chmod(0o755)
    command = [sys.executable, "-m", "dvc", "repro", "notebooks"]
    for first, status in ((other.parent, 255), (Path(sys.executable).parent, 0)):
        path = os.pathsep.join((str(first), "/usr/bin", "/bin"))
        own = {**os.environ, "PATH": path, "PYTHONPATH": ""}
        result = subprocess.run(command, cwd=copy, env=own, capture_output=True, text=True, check=False)
        assert result.returncode == status, result.stderr
        assert ("is not that of the environment: it has no" in result.stderr) == bool(status)
