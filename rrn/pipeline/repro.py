"""The front door: `python -m rrn.repro [--missing] [--jobs N] [--compare] [arguments of dvc repro]`.

Fetches the data that ships with the repository (`rrn.fetch`), moves runs that params.yaml does not list out of the way,
and runs the pipeline with the programs of this environment, runs side by side where processors are free. `--missing`
takes the word of git for runs whose pieces lie in results/finished-runs, wherever they were made: it trains the others,
and makes tables, figures and the page of results from all pieces. `--compare` then states how far the results lie from
those that git holds, which is what counts on another kind of machine.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from rrn import config
from rrn.data.decoding import DataError
from rrn.data.image_set import RENDERED, ImageSet
from rrn.pieces import store
from rrn.pipeline import aside, buildable, fetch, git, missing, scheduler
from rrn.pipeline.progress import StageReport
from rrn.preparation.report import Report
from rrn.runtime import atomic_io, locking

KEYS = ["name", "partition", "method"]
TOLERANCE = 2.0
"""Default of --tolerance, in points of IoU: a few times the deviation between seeds."""

DVC = fetch.DVC


def dvc(root: Path, *arguments: str) -> int:
    """Run dvc and return its exit status; Ctrl-C, which it and its stage hear too, lets them end first.

    `subprocess.call` would kill it after a quarter of a second, while its stage still saves.
    """
    with subprocess.Popen([*DVC, *arguments], cwd=root) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()
            raise


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does in a terminal: stop what was started here, too, stages before their dvc.

    dvc itself would end at once, and its stage go on.
    """
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(*_: Any) -> None:
    """Interrupt the programs that a terminal would; they save, and are waited for."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == os.getpgrp():
                process.send_signal(signal.SIGINT)
    raise KeyboardInterrupt


def ahead(root: Path, settings: config.Settings, jobs: int, wanted: Iterable[str] | None = None) -> int:
    """Run the warmups, trainings and evaluations that have changed, `jobs` at a time; return the first bad status.

    Args:
        root: the repository.
        settings: of params.yaml.
        jobs: stages at a time.
        wanted: only these stages, and what they wait for; None: all.
    """
    if status := dvc(root, "repro", "prepare"):
        return status
    waits = scheduler.order(settings.ablation)
    chosen = scheduler.stages_for(waits, waits if wanted is None else wanted)
    stages = [stage for stage in scheduler.affected(waits, scheduler.changed(DVC, root)) if stage in chosen]
    with closing(StageReport(len(stages))) as report:
        return scheduler.run_stages(stages, waits, jobs, lambda stage: scheduler.reproduce(DVC, root, stage, report))


def deviations(committed: pd.DataFrame, here: pd.DataFrame) -> pd.DataFrame:
    """Return the columns miou_mean* as committed, as here, and the differences; NaN where only one side has the row."""
    keys = [key for key in KEYS if key in committed and key in here]
    numbers = [column for column in here.filter(regex="^miou_mean") if column in committed]
    before, now = (table.set_index(keys)[numbers] for table in (committed, here))
    return pd.concat({"committed": before, "here": now, "deviation": now - before}, axis=1)


def reproduced(root: Path, settings: config.Settings, jobs: int | None, rest: list[str]) -> int:
    """Fetch the data and run the whole pipeline; return the first bad exit status.

    Args:
        root: the repository.
        settings: of params.yaml.
        jobs: stages at a time; None: as many as fit.
        rest: arguments of `dvc repro`, which then takes one stage at a time.

    Raises:
        fetch.FetchError, DataError: the data is not there; nothing was run or moved.
    """
    require_data(root, settings)
    aside.make_room(root, settings, rest)
    jobs = 1 if rest else jobs or scheduler.fitting(settings)
    return (0 if rest else ahead(root, settings, jobs)) or dvc(root, "repro", *rest)


def require_data(root: Path, settings: config.Settings) -> None:
    """Fetch the data that ships; raise FetchError or DataError where the data set is not there."""
    fetch.fetch(DVC, root)
    if (root / settings.dataset.path).resolve() != (root / RENDERED).resolve():
        ImageSet.open(settings, root)  # dvc would say less of data that are not there


def completed(root: Path, settings: config.Settings, jobs: int | None, rest: list[str]) -> int:
    """Run what the runs need whose pieces are missing, then make results of all pieces; return the first bad status.

    Nothing else is trained, though its runs/ may be absent: git has what came of it. Without a missing piece not even
    the data set is needed.

    Args:
        root: the repository.
        settings: of params.yaml.
        jobs: stages at a time; None: as many as fit.
        rest: options of `dvc repro`, which then takes one stage at a time.

    Raises:
        fetch.FetchError, DataError: data are needed, and not there; nothing was run or moved.
    """
    if "--dry" not in rest and (status := take_over(root, settings)):
        return status
    lacking, count = store.lacking(root, settings), len(store.listed_runs(settings))
    stages = [f"evaluate@{key}" for key in lacking]
    print(f"{count - len(lacking)} of {count} runs lie in {store.piece_folder(settings.name)}")
    for stage, why in zip(stages, lacking.values(), strict=True):
        print(f"{stage} is run: {why.partition(': `')[0]}", flush=True)
    joined = ["ablation", *missing.drawable(root, settings, lacking), "report"]
    if "--dry" in rest:  # dvc tells of no stage whose input another one has yet to write
        waits = scheduler.order(settings.ablation)
        chain = [stage for stage in waits if stage in scheduler.stages_for(waits, stages)]
        print(f"as far as something has changed, this runs {', '.join([*(chain and ['prepare']), *chain, *joined])}")
        return 0
    if stages:
        require_data(root, settings)
    fetch.allow_no_git(DVC, root)
    aside.make_room(root, settings, rest)
    jobs = 1 if rest else jobs or scheduler.fitting(settings)
    if stages and not rest and (status := ahead(root, settings, jobs, stages)):
        return status
    (root / missing.DRAWN).mkdir(parents=True, exist_ok=True)  # the page of results reads it
    calls = [[*(stages or ["notebooks"])], *(["--single-item", stage] for stage in joined)]
    return next((status for call in calls if (status := dvc(root, "repro", *rest, *call))), 0)


def take_over(root: Path, settings: config.Settings) -> int:
    """Copy the pieces that other studies have of missing runs, once the data are known; return 0 or a bad status."""
    if not missing.elsewhere(root, settings):
        return 0
    require_data(root, settings)
    status = dvc(root, "repro", "verify")
    if not status:
        report = Report.read(root / "runs" / settings.name / "verify", settings.dataset)
        missing.adopt(root, settings, report.checksum)
    return status


def compare(root: Path, name: str, tolerance: float) -> int:
    """Print how far results/<name>/ablation.csv is from the committed file; return 1 where that is too far, or 0."""
    file = f"results/{name}/ablation.csv"
    try:
        committed = git.committed(root, file)
    except git.GitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not (root / file).exists():
        print(f"error: the working tree has no {file} to compare", file=sys.stderr)
        return 1
    table = deviations(pd.read_csv(io.StringIO(committed)), pd.read_csv(root / file))
    worst = table["deviation"].abs().to_numpy()
    same = bool((worst <= tolerance).all())
    print(table.round(2).to_string())
    print(f"{'within' if same else 'NOT within'} {tolerance} points of what git holds")
    return 0 if same else 1


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the first exit status that is not 0; 3 if another one runs, 130 if stopped."""
    parser = argparse.ArgumentParser(prog="python -m rrn.repro", description=__doc__)
    parser.add_argument("--missing", action="store_true", help="train only what has no piece in results/")
    parser.add_argument("--jobs", type=int, help="stages at a time; by default as many as processors allow")
    parser.add_argument("--compare", action="store_true", help="compare with the committed results")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="in points of IoU")
    args, rest = parser.parse_known_args(argv)
    if args.jobs is not None and (rest or args.jobs < 1):
        parser.error("--jobs wants a number from 1, and no arguments of dvc repro, which takes one stage at a time")
    if args.missing and any(not word.startswith("-") for word in rest):
        parser.error("--missing finds its stages itself: leave their names out")
    try:
        root = config.find_root()
        settings = config.load(root=root)
        buildable.require_or_note(root, settings)
        if args.compare:  # whether that can be done is said before hours of work
            git.committed(root, f"results/{settings.name}/ablation.csv")
    except (config.SettingsError, FileNotFoundError, atomic_io.WriteError, git.GitError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    programs = str(Path(sys.executable).parent)  # of this environment, for the stages
    os.environ["PATH"] = os.pathsep.join([programs, os.environ.get("PATH", "")])
    try:
        with locking.exclusive(root / "dvc.lock"), stoppable():
            status = (completed if args.missing else reproduced)(root, settings, args.jobs, rest)
    except (locking.LockedError, atomic_io.WriteError, fetch.FetchError, git.GitError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 3 if isinstance(error, locking.LockedError) else 1
    except subprocess.CalledProcessError as error:  # dvc has said why
        return error.returncode
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return status or (compare(root, settings.name, args.tolerance) if args.compare else 0)


if __name__ == "__main__":
    raise SystemExit(main())
