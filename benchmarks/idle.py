"""How long `dvc repro` takes when nothing has changed.

    python benchmarks/run.py idle                         # after `make repro`

The quick form takes a repository of one stage in a temporary folder: the start of DVC alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import Row, row

from rrn import config

ROUNDS = 5
STAGE = "stages:\n  one:\n    cmd: echo 1 > one.txt\n    outs: [one.txt]\n"


def dvc(root: Path, *arguments: str) -> str:
    """Run dvc in a repository and return what it prints.

    Raises:
        CalledProcessError: if it fails.
    """
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout


def idle(root: Path, rounds: int) -> list[float]:
    """Return the seconds of each `dvc repro`.

    Raises:
        SystemExit: if there is something to do: it could take hours.
    """
    if changed := json.loads(dvc(root, "status", "--json")):
        raise SystemExit(f"{', '.join(sorted(changed))} changed: run `make repro` first, an idle run is measured here")
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        dvc(root, "repro")
        seconds.append(time.perf_counter() - start)
    return seconds


def rows(quick: bool) -> list[Row]:
    """Measure seconds of an idle `dvc repro`."""
    if not quick:
        return [row("dvc repro", "nothing changed", "s", idle(config.find_root(), ROUNDS))]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        dvc(root, "init", "--no-scm", "--quiet")
        (root / "dvc.yaml").write_text(STAGE, encoding="utf-8")
        dvc(root, "repro")
        return [row("dvc repro of one stage", "nothing changed", "s", idle(root, 2))]
