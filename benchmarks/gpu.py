"""Everything about the CUDA path that wants measuring, sorted by worth, in the minutes that a GPU is at hand.

    python3 benchmarks/gpu.py --out DIR                                # 8 minutes; `make gpu` does it in results/gpu
    python3 benchmarks/gpu.py --out DIR --pack FOLDER --minutes 10     # packages and a data set from gpu_pack.py
    python3 benchmarks/gpu.py --out DIR --resume EARLIER --only study  # what EARLIER lacks, and nothing else
    python3 benchmarks/gpu.py --out DIR --small                        # does it all run? on a CPU, in tiny sizes

It needs no environment and no installation: Python 3.11 or 3.12 with torch, and the packages of `gpu_pack.py` or of
requirements.lock. Each part is a process of its own with a limit of its own:

    facts       the GPU, its driver and libraries, and how fast it multiplies matrices
    step        a training step at full size, beside its rivals, in turns
    tests       all tests that are marked for CUDA
    evaluation  whole images and sliding windows, batch norm folded or not
    drift       one seed twice, and against the CPU
    study       two rows, seed by seed, on the data set of --data or --pack, else on the embedded one

DIR holds results.jsonl, written line by line, results.md and study.csv, which are made from it, and log.txt. A DIR
of the same code and GPU is gone on with. `gpu_record.py` puts the numbers into benchmarks/results.csv and docs/gpu.md.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib.metadata
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MINUTES = 8.0
PARTS = {"facts": 0.2, "step": 3.0, "tests": 1.5, "evaluation": 1.0, "drift": 0.5, "study": 1.8}
"""Name of each part and its minutes of 8; what one leaves over, the last one gets."""
SHARED = ("gpu_part", "gpu_repository", "measuring", "reference_step", "training")
"""What the parts import of this folder."""
GRACE = 15.0
"""Seconds after its time in which a part may end by itself."""
LINES, TABLES, STUDY, LOG = "results.jsonl", "results.md", "study.csv", "log.txt"
COLUMNS = ("part", "case", "measure", "median", "unit", "lower", "upper", "minimum", "rounds")

Line = dict[str, Any]
"""One object of results.jsonl."""


class Refused(Exception):
    """What was asked for cannot be done; the message is for the user."""


@dataclass(frozen=True)
class Identity:
    """What must be the same for numbers to stand side by side.

    Attributes:
        code: checksum of rrn/, of these benchmarks and of the settings.
        gpu: name and driver, as the driver says; empty: none.
        small: whether sizes are tiny.
    """

    code: str
    gpu: str
    small: bool


def identity(small: bool) -> Identity:
    """Say what this measurement is of."""
    return Identity(code(), "" if small else gpu(), small)


def code() -> str:
    """Return 12 hexadecimal digits of all files that a number depends on."""
    files = [*ROOT.glob("rrn/**/*.py"), *ROOT.glob("presets/*.yaml"), ROOT / "params.yaml"]
    files += [HERE / f"gpu_{part}.py" for part in PARTS] + [path for name in SHARED for path in HERE.glob(f"{name}.py")]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(ROOT)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:12]


def gpu() -> str:
    """Return name and driver of the first GPU, as `nvidia-smi` says them; nothing where there is none."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return ""
    asked = [command, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.partition("\n")[0]


# ---- What is known --------------------------------------------------------------------------------------------------


def read(folder: Path) -> list[Line]:
    """Return the lines of an earlier measurement; a last one that was cut off is left out.

    Raises:
        Refused: there is no such measurement, or a line other than the last is damaged.
    """
    path = folder / LINES
    if not path.is_file():
        raise Refused(f"{folder} has no {LINES}: name a folder that an earlier run of gpu.py wrote")
    lines = path.read_text(encoding="utf-8").splitlines()
    found: list[Line] = []
    for number, text in enumerate(lines, start=1):
        try:
            found.append(json.loads(text))
        except ValueError as error:
            if number < len(lines):
                raise Refused(f"{path}: line {number} is damaged ({error}); remove it") from error
    return found


def of(lines: Sequence[Line], wanted: Identity) -> tuple[list[Line], int]:
    """Return the lines that are of the same code, GPU and size, and how many are not."""
    kept, same = [], False
    for line in lines:
        if "run" in line:
            same = line["run"] == vars(wanted)
        if same:
            kept.append(line)
    return kept, len(lines) - len(kept)


def earlier(out: Path, resume: Path | None, wanted: Identity) -> list[Line]:
    """Return the lines to go on from: those of DIR, or those of the run to resume.

    Raises:
        Refused: DIR holds something else; nothing in it is ever overwritten.
    """
    there = {path.name for path in out.iterdir()} if out.is_dir() else set()
    strange = sorted(there - {LINES, TABLES, STUDY, LOG})
    if strange:
        raise Refused(f"{out} holds {', '.join(strange[:5])}, which gpu.py did not write: name another --out")
    if (out / LINES).is_file() and (resume is None or resume.resolve() != out.resolve()):
        known, others = of(read(out), wanted)
        if others or resume:
            reason = "of other code, another GPU or another size" if others else "and --resume names another folder"
            raise Refused(f"{out} holds results already, {reason}: name another --out; they can be read with --resume")
        return known
    if resume is None:
        return []
    known, others = of(read(resume), wanted)
    if others:
        print(f"{others} lines of {resume} are of other code, another GPU or another size: measured again")
    if others and resume.resolve() == out.resolve():
        raise Refused(f"{out} holds results of other code, another GPU or another size: name another --out")
    return known


def finished(lines: Sequence[Line], part: str) -> list[str]:
    """Return the cases of a part that need not be measured again."""
    return [line["finished"] for line in lines if line.get("part") == part and "finished" in line]


# ---- The parts, one after the other ---------------------------------------------------------------------------------


@dataclass
class Record:
    """The folder of a measurement, written line by line."""

    folder: Path
    lines: list[Line]

    def begin(self, run: Identity) -> None:
        """Write what is known already, and that a run begins."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(line) + "\n" for line in self.lines)
        replace(self.folder / LINES, text)
        self.add({"run": vars(run)})

    def add(self, line: Line) -> None:
        """Write one line, and what is made of them all; tell what became of a case."""
        self.lines.append(line)
        with (self.folder / LINES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        replace(self.folder / TABLES, tables(self.lines))
        replace(self.folder / STUDY, study(self.lines))
        for what in ("finished", "failed", "skipped"):
            if what in line:
                print(f"  {what}: {line[what]}" + (f" ({line['why']})" if "why" in line else ""), flush=True)

    def log(self) -> IO[str]:
        """Open the log."""
        return (self.folder / LOG).open("a", encoding="utf-8")


def replace(path: Path, text: str) -> None:
    """Write a file whole: whoever reads it, or ends this process, never meets half of it."""
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def limits(chosen: Sequence[str], minutes: float) -> dict[str, float]:
    """Return the seconds of each part, of so many minutes in all."""
    whole = sum(PARTS[part] for part in chosen)
    return {part: 60 * minutes * PARTS[part] / whole for part in chosen}


def measure(record: Record, chosen: Sequence[str], options: argparse.Namespace, path: str) -> None:
    """Run parts in order of worth; the last one gets all the time that is left."""
    end = time.monotonic() + 60 * options.minutes
    for part, seconds in limits(chosen, options.minutes).items():
        left = end - time.monotonic()
        seconds = left if part == chosen[-1] else min(seconds, left)
        if seconds <= 0:
            record.add({"part": part, "skipped": part, "why": "out of time"})
            continue
        print(f"{part}: {seconds:.0f} seconds", flush=True)
        command = [sys.executable, str(HERE / f"gpu_{part}.py"), "--seconds", f"{seconds:.1f}"]
        command += ["--finished", json.dumps(finished(record.lines, part))]
        command += ["--small"] if options.small else []
        command += ["--data", str(options.data)] if options.data else []
        run_part(record, part, command, seconds, path)


def run_part(record: Record, part: str, command: Sequence[str], seconds: float, path: str) -> None:
    """Run one part, file what it reports, and end it where it does not end by itself."""
    environment = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "RRN_ANY_PYTHON": "1"}
    with record.log() as log:
        print(f"==== {part}", file=log, flush=True)
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None and process.stderr is not None
        said: list[str] = []
        errors = threading.Thread(target=keep, args=(process.stderr, log, said))
        errors.start()
        stopped = threading.Event()
        timer = threading.Timer(seconds + GRACE, lambda: (stopped.set(), kill(process)))
        timer.start()
        try:
            for text in process.stdout:
                file_line(record, part, text, log)
            status = process.wait()
        finally:
            timer.cancel()
            kill(process)
            errors.join()
    if stopped.is_set():
        record.add({"part": part, "skipped": part, "why": f"stopped {GRACE:.0f} seconds after its time"})
    elif status:
        why = said[-1].strip() if said else "it said nothing"
        record.add({"part": part, "failed": part, "why": f"ended with status {status}: {why}"})


def file_line(record: Record, part: str, text: str, log: IO[str]) -> None:
    """File a line of a part: an object is a result, anything else belongs into the log."""
    try:
        line = json.loads(text)
    except ValueError:
        line = None
    if not isinstance(line, dict):
        log.write(text)
        log.flush()
        return
    record.add({"part": part} | line)


def kill(process: subprocess.Popen[str]) -> None:
    """End a part and all that it started; nothing if they have ended."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def keep(stream: IO[str], log: IO[str], said: list[str]) -> None:
    """Write what comes into the log, and keep the last line that says something."""
    for text in stream:
        log.write(text)
        log.flush()
        if text.strip():
            said[:] = [text]


# ---- What is made of the lines --------------------------------------------------------------------------------------


def latest(lines: Sequence[Line]) -> list[Line]:
    """Return the measured rows, part by part; of a case that was measured again only the last."""
    rows: dict[tuple[str, str, str], Line] = {}
    for line in lines:
        if "row" in line:
            row = {"part": line["part"]} | line["row"]
            rows[row["part"], row["case"], row["measure"]] = row
    return sorted(rows.values(), key=lambda row: list(PARTS).index(row["part"]))


def unfinished(lines: Sequence[Line]) -> list[Line]:
    """Return what failed or was skipped and has not been finished since: part, what, why."""
    open_cases: dict[tuple[str, str], Line] = {}
    for line in lines:
        for what in ("failed", "skipped", "finished"):
            if what in line:
                key = line["part"], line[what]
                open_cases.pop(key, None)
                if what != "finished":
                    open_cases[key] = {"part": key[0], "case": key[1], "why": f"{what}: {line['why']}"}
    return list(open_cases.values())


def facts(lines: Sequence[Line]) -> dict[str, Any]:
    """Return what the part `facts` found last; nothing if it has not run."""
    return next((line["facts"] for line in reversed(lines) if "facts" in line), {})


def tables(lines: Sequence[Line]) -> str:
    """Return results.md."""
    text = ["# Measured on a GPU\n" if not any(line.get("run", {}).get("small") for line in lines) else SMALL]
    text += [f"- {name}: {value}" for name, value in facts(lines).items()]
    rows = latest(lines)
    for part in PARTS:
        of_part = [row for row in rows if row["part"] == part]
        if of_part:
            text += [f"\n## {part}\n", *markdown([written(row) for row in of_part], COLUMNS[1:])]
    seeds = [line["study"] for line in lines if "study" in line]
    if seeds:
        text += ["\n## Seeds of the study\n", *markdown(seeds, list(seeds[0]))]
    left = unfinished(lines)
    if left:
        text += ["\n## Not measured\n", *markdown(left, ("part", "case", "why"))]
    return "\n".join(text) + "\n"


SMALL = "# Tiny sizes on a CPU: these numbers mean nothing\n"


def written(row: Line) -> Line:
    """Return a row with its numbers as text of four digits."""
    return {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()}


def markdown(rows: Sequence[Line], columns: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a table."""
    yield "| " + " | ".join(columns) + " |"
    yield "|" + " :-- |" * len(columns)
    for row in rows:
        yield "| " + " | ".join(str(row.get(column, "")).replace("|", "/") for column in columns) + " |"


def study(lines: Sequence[Line]) -> str:
    """Return study.csv: a line a training, of whole seeds."""
    seeds = [line["study"] for line in lines if "study" in line]
    text = io.StringIO()
    if seeds:
        writer = csv.DictWriter(text, list(seeds[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(seeds)
    return text.getvalue()


# ---- The command ----------------------------------------------------------------------------------------------------


def unpack(pack: Path, folder: Path) -> str:
    """Unpack the wheels that this Python lacks, and return where.

    Raises:
        Refused: it is no folder of `gpu_pack.py`.
    """
    wheels = sorted(pack.glob("wheels/*.whl"))
    if not wheels:
        raise Refused(f"{pack} has no wheels/*.whl: `python benchmarks/gpu_pack.py FOLDER --megabytes N` fills a pack")
    for wheel in wheels:
        name = wheel.name.partition("-")[0]
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
    return str(folder)


def packed_data(pack: Path) -> Path | None:
    """Return the data set of a pack; None if it has none."""
    return next((path for path in sorted(pack.glob("data/*")) if path.is_dir()), None)


def search_path(packages: str) -> str:
    """Return PYTHONPATH for the parts: this repository, these benchmarks, unpacked packages, and what it was."""
    paths = [str(ROOT), str(HERE), packages, os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(path for path in paths if path)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where results go")
    parser.add_argument(
        "--resume", type=Path, metavar="EARLIER", help="a DIR of before, only read; what it has is kept"
    )
    parser.add_argument("--minutes", type=float, default=MINUTES, help="in all; default: %(default)s")
    parser.add_argument(
        "--only", nargs="+", choices=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}; facts is always known"
    )
    parser.add_argument("--data", type=Path, help="a folder data set for the study; default: that of the pack")
    parser.add_argument("--pack", type=Path, metavar="FOLDER", help="packages and a data set from gpu_pack.py")
    parser.add_argument("--small", action="store_true", help="tiny sizes on a CPU")
    options = parser.parse_args(arguments)
    if not options.minutes > 0:
        parser.error("--minutes must be more than 0")
    return options


def check(options: argparse.Namespace) -> None:
    """Make paths absolute, and refuse data that are not there before minutes are spent.

    Raises:
        Refused: the data set or the pack is no folder of its kind.
    """
    if options.pack:
        options.pack = options.pack.resolve()
        options.data = options.data or packed_data(options.pack)
    if options.data:
        options.data = options.data.resolve()
        if not (options.data / "classes.txt").is_file():
            raise Refused(f"{options.data} is no folder data set: it has no classes.txt (docs/data.md)")


def main(arguments: list[str] | None = None) -> int:
    """Measure; return 1 if a part failed."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        check(options)
        wanted = identity(options.small)
        if not wanted.gpu and not options.small:
            print("nvidia-smi names no GPU here; parts that need one will say so", file=sys.stderr)
        record = Record(options.out.resolve(), earlier(options.out, options.resume, wanted))
        with tempfile.TemporaryDirectory() as folder:
            packages = unpack(options.pack, Path(folder)) if options.pack else ""
            record.begin(wanted)
            wished = set(options.only or PARTS) | ({"facts"} if not facts(record.lines) else set())
            measure(record, [part for part in PARTS if part in wished], options, search_path(packages))
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"results: {options.out}")
    return int(any(line["why"].startswith("failed") for line in unfinished(record.lines)))


if __name__ == "__main__":
    sys.exit(main())
