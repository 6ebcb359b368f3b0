"""`make coverage` counts the lines that tests execute in whatever process, also in a copy of the repository."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

PROGRAM = """
import subprocess, sys
subprocess.run([sys.executable, "-m", "rrn.strip", "--check", "notebooks"], cwd=sys.argv[1], check=True)
"""


def test_lines_that_another_program_executes_count(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "scratch" / "coverage").mkdir(parents=True)
    (tmp_path / "program.py").write_text(PROGRAM)
    for name in ("rrn", "copy/rrn", "copy/notebooks"):
        source = ROOT / Path(name).name
        shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for command in (["run", "program.py", "copy"], ["combine", "--quiet"], ["json", "-o", "found.json"]):
        command = [sys.executable, "-m", "coverage", *command]
        told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stdout + told.stderr
    files = json.loads((tmp_path / "found.json").read_text())["files"]
    assert files["rrn/pipeline/strip.py"]["summary"]["percent_covered"] > 50
    assert "copy/rrn/pipeline/strip.py" not in files
