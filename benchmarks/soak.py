"""Kill a training twenty times, at random moments and inside the writing of its state; is anything lost?

    make soak                                 # about ten minutes; rewrites benchmarks/soak.csv
    python benchmarks/soak.py --kills 5 --seed 3 scratch/soak

In a copy of the repository, on the preset smoke with more steps, the training of `rrn` runs once undisturbed. Then it
runs under each of three commands (the stage itself, `dvc repro`, `dvc exp run --temp`) and is stopped again and again:
SIGKILL to all of its processes at a random moment, or as soon as a half-written state is seen, SIGTERM and Ctrl-C to
the command. The same command is given again, until it ends. Weights, history.csv, reliability.csv and run.json must be
those of the undisturbed run, to the last bit.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import psutil

ROOT = Path(__file__).resolve().parents[1]
RUN = "train/1of16-rrn-0"
STEPS = 400
CHANGES = [f"train.steps={STEPS}", "log.every=2", "log.checkpoint=2", "log.evaluate=50", "ablation.methods=[rrn]"]
FARTHEST = 12
"""Steps that a command takes at most before it is stopped; with 0 of them it is stopped while it starts."""
STARTING, STEP = 8.0, 0.2
"""Seconds of the start, and of a step and what is saved, within which the moment lies."""


@dataclass(frozen=True)
class Way:
    """A command that trains, and where its outputs lie at the end."""

    name: str
    command: list[str]
    out: str
    kills: list[str]


@dataclass(frozen=True)
class Stop:
    """One interruption: how, when (seconds after the start), and at which step the next run goes on (-1: the start)."""

    command: str
    how: str
    seconds: float
    resumed: int


def ways(kills: int, draw: random.Random) -> list[Way]:
    """Return the commands, and how each is stopped, in which order."""
    stage = [sys.executable, "-m", "rrn.stage", "build/notebooks/3_train.ipynb", "scratch/killed/notebook.ipynb"]
    stage += ["partition=1of16", "method=rrn", "seed=0", "out_dir=scratch/killed"]
    dvc, target = [sys.executable, "-m", "dvc"], f"train@{Path(RUN).name}"
    inside = max(1, kills // 3)
    main = ["SIGKILL"] * (kills - inside) + ["SIGKILL while writing"] * inside
    draw.shuffle(main)
    few = ["SIGKILL", "SIGTERM", "Ctrl-C"]
    return [
        Way("stage", stage, "scratch/killed", [*main, "SIGTERM", "Ctrl-C"]),
        Way("dvc repro", [*dvc, "repro", "--single-item", target], f"runs/smoke/{RUN}", few),
        Way(
            "dvc exp run --temp",
            [*dvc, "exp", "run", "--temp", "--force", "--single-item", target],
            "scratch/experiment",
            few,
        ),
    ]


def copy(folder: Path) -> None:
    """Make a repository of its own in `folder`, with data, notebooks and the warmup, on the preset smoke."""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    os.chdir(folder)
    here = str(Path.cwd())
    os.environ |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": here}
    os.environ["RRN_SCRATCH"] = f"{here}/kept"  # an experiment in a temporary folder finds it, too
    subprocess.run([sys.executable, "-m", "rrn.preset", "smoke", *CHANGES], check=True)
    git = ["git", "-c", "user.name=soak", "-c", "user.email=soak@localhost"]
    subprocess.run([*git, "commit", "--quiet", "--all", "--message", "More steps"], check=True)
    for arguments in (["pull", "data.dvc"], ["repro", "warmup"]):
        subprocess.run([sys.executable, "-m", "dvc", *arguments], check=True, stdout=subprocess.DEVNULL)


def start(command: list[str]) -> subprocess.Popen[bytes]:
    """Start a command in a group of its own."""
    with Path("soak.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def stop(process: subprocess.Popen[bytes], how: str, draw: random.Random) -> float | None:
    """Stop a command after some steps and a moment, or while it starts; return the seconds, or None if it has ended."""
    began, wanted = time.monotonic(), resumed() + draw.randint(0, FARTHEST)
    early, moment = draw.uniform(0, STARTING), draw.uniform(0, STEP)
    starting = wanted == resumed()
    while not (time.monotonic() - began > early if starting else resumed() > wanted):
        if process.poll() is not None:
            return None
    time.sleep(moment)
    while how.endswith("writing") and not any(Path("kept").glob("*/.*.part")):
        if process.poll() is not None:
            return None
    seconds = time.monotonic() - began
    everyone = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    if how.startswith("SIGKILL"):
        for one in everyone:
            one.suspend()  # nobody notices that another has gone
        for one in everyone:
            one.kill()
    else:
        os.killpg(process.pid, signal.SIGTERM if how == "SIGTERM" else signal.SIGINT)
    process.wait()
    psutil.wait_procs(everyone, timeout=60)
    return seconds


def resumed() -> int:
    """Return the step of the latest state that lies there, -1 if there is none."""
    states = Path("kept").glob("smoke-train*/step-*.pt")
    return max((int(path.stem.partition("-")[2]) for path in states), default=-1)


def soak(way: Way, draw: random.Random) -> Iterator[Stop]:
    """Stop a command in each of its ways, then let it end; yield what happened."""
    for how in way.kills:
        seconds = stop(start(way.command), how, draw)
        if seconds is None:
            raise SystemExit(f"{way.name} ended before it was stopped (see soak.log): take more steps")
        yield Stop(way.name, how, seconds, resumed())
        print(f"{way.name}: {how} after {seconds:.1f} s, state of step {resumed()}", flush=True)
    if start(way.command).wait():
        raise SystemExit(f"{way.name} failed: see soak.log")
    if "exp" in way.command:
        found = ["get", ".", f"runs/smoke/{RUN}", "--rev", _experiment(), "--out", way.out]
        subprocess.run([sys.executable, "-m", "dvc", *found], check=True)


def _experiment() -> str:
    command = [sys.executable, "-m", "dvc", "exp", "list", "--name-only"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]


def differing(out: Path, expected: Path) -> list[str]:
    """Return the names of the outputs, but the notebook, that are not the same in both folders."""
    names = {path.name for folder in (out, expected) for path in folder.iterdir()} - {"notebook.ipynb"}
    _, changed, missing = filecmp.cmpfiles(out, expected, sorted(names), shallow=False)
    return changed + missing


def main() -> None:
    """Run the command line; exit status 1 if a byte differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "scratch" / "soak")
    parser.add_argument("--kills", type=int, default=20, help="by SIGKILL, of the stage itself")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    copy(options.folder)
    draw, stops, wrong = random.Random(options.seed), list[Stop](), list[str]()
    if start([argument.replace("killed", "whole") for argument in ways(1, draw)[0].command]).wait():
        raise SystemExit("the undisturbed run failed: see soak.log")
    for way in ways(options.kills, draw):
        stops += soak(way, draw)
        found = differing(Path(way.out), Path("scratch/whole"))
        print(f"{way.name}: {len(way.kills)} interruptions, {', '.join(found) or 'nothing'} differs", flush=True)
        wrong += found
    table = pd.DataFrame([asdict(one) for one in stops])
    table.to_csv(ROOT / "benchmarks" / "soak.csv", index=False, float_format="%.1f")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
