"""Output files are whole or absent, whatever happens to the disk or to the process that writes."""

import errno
import os
import re
import signal
import subprocess
import sys

import evidences
import pandas as pd
import pytest
from conftest import ROOT
from disks import small_disk
from matplotlib.figure import Figure

from rrn.data import splits
from rrn.data.splits import Split
from rrn.paper import report, table_format
from rrn.pipeline import presets, strip
from rrn.plotting import style
from rrn.reliability import evidence
from rrn.runtime import atomic_io

SPLIT = Split("1of4", "seeded", "seed 0", "0" * 16, ("a", "b"), (), ("1",), ("2", "3"), ("4",), ("5",))
TABLE = table_format.Table("table", pd.DataFrame({"x": [1.5]}), ["x"], [["1.5"]], 0, "Numbers.")


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk") as made:
        yield made


def pack(folder, written):
    """Pack an evidence.zip that lies elsewhere."""
    source = evidences.write(written / "whole.zip")
    evidence.Evidence.read(source).pack(folder / "evidence.zip", ["val"])


WRITERS = {
    "text": lambda folder, _: atomic_io.write(folder / "a.txt", "text"),
    "table": lambda folder, _: TABLE.write(folder),
    "figure": lambda folder, _: style.save(Figure(figsize=(1, 1)), folder / "figure"),
    "split": lambda folder, _: splits.write_split(SPLIT, folder),
    "evidence": lambda folder, _: evidences.write(folder / "evidence.zip"),
    "packed evidence": pack,
    "notebooks": lambda folder, _: strip.strip(ROOT / "notebooks", folder),
}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("full", [True, False])
def test_a_full_or_read_only_disk_keeps_the_former_files_and_no_half_ones(tmp_path, disk, name, full):
    folder, write = disk.folder / "out", WRITERS[name]
    write(folder, tmp_path)
    before = contents(folder)
    assert before
    if full:
        disk.fill(0)
    else:
        disk.set_writable(False)
    with pytest.raises(atomic_io.WriteError) as error:
        write(folder, tmp_path)
    reason, cure = ("No space left on device", "make room there") if full else ("Read-only file system", "let it be w")
    assert re.match(rf"{folder}/\S+ cannot be written \({reason}\): {cure}", str(error.value))
    assert str(error.value).endswith(", or name another place; then give the same command again")
    assert contents(folder) == before
    if full:
        disk.empty()
    else:
        disk.set_writable(True)
    write(folder, tmp_path)
    assert contents(folder) == before


def test_a_process_that_dies_leaves_the_former_file_and_the_next_one_clears_up(tmp_path):
    path = tmp_path / "a.txt"
    atomic_io.write(path, "before")
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom rrn.runtime import atomic_io\n"
        "with atomic_io.atomic_path(Path(sys.argv[1])) as unfinished:\n"
        "    unfinished.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, path], check=False).returncode == -signal.SIGKILL
    assert path.read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 2
    atomic_io.write(path, "after")
    assert contents(tmp_path) == {"a.txt": b"after"}


def test_an_interrupted_file_goes_and_other_errors_are_what_they_are(tmp_path):
    for error in (KeyboardInterrupt(), ValueError("wrong"), OSError(errno.EIO, "Input/output error")):
        with pytest.raises(type(error)) as found, atomic_io.atomic_path(tmp_path / "a.txt") as unfinished:
            unfinished.write_text("half")
            raise error
        assert found.value is error
        assert not list(tmp_path.iterdir())


def test_what_lies_in_the_way_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        atomic_io.WriteError, match=r"file/a.txt cannot be written \((File exists|Not a directory)\): let it"
    ):
        atomic_io.write(tmp_path / "file" / "a.txt", "text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(atomic_io.WriteError, match=r"/folder cannot be written \(Is a directory\)"):
        atomic_io.write(tmp_path / "folder", "text")


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (lambda: presets.main(["smoke"]), "params.yaml"),
        (lambda: report.main(), "results/report.html"),
        (lambda: strip.main(["notebooks", "build"]), "build/"),
        (lambda: strip.main(["build"]), "build/.notebooks.part/"),
    ],
)
def test_commands_end_with_one_line_and_a_status(light_copy, monkeypatch, capsys, command, path):
    monkeypatch.chdir(light_copy)
    monkeypatch.setattr(report, "page", lambda studies: "page")
    (light_copy / "results" / "n").mkdir(parents=True)
    (light_copy / "results" / "n" / "ablation.md").touch()
    monkeypatch.setattr(presets.buildable, "require_or_note", lambda root, settings: None)  # which keeps a file, too
    monkeypatch.setattr(report, "read_study", lambda folder, told: None)
    before = (light_copy / "params.yaml").read_bytes()
    monkeypatch.setattr(atomic_io.Path, "write_bytes", full)
    assert command() == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.match(rf"error: \S*{path}\S* cannot be written \(No space left on device\): make room there", line)
    assert (light_copy / "params.yaml").read_bytes() == before
    assert not list(light_copy.rglob("*.part"))


OF_THEIR_OWN = {
    "rrn/runtime/atomic_io.py": "the one place",
    "rrn/runtime/locking.py": "a lock",
    "rrn/preparation/shapes.py": "makes the embedded data, which DVC checks",
    "rrn/environment.py": "a mark that is compared as a whole",
    "rrn/pipeline/stage.py": "a folder of temporary files",
    "rrn/pipeline/progress.py": "a log that grows line by line",
    "rrn/annotations/writing.py": "files of a folder that is made whole or not at all",
    "rrn/exporting/command.py": "likewise",
    "rrn/prediction/videos.py": "the unfinished file of atomic_path, which only av can write",
}
WRITING = re.compile(
    r"""(?<!unfinished)\.write_(text|bytes)\(|(?<!unfinished\.)open\([^)]*["'][wax]b?\+?["']"""
    r"""|\.to_csv\((?!index|\*\*FORMAT|file, )|\.savefig\((?!unf|buf|str)"""
)


def test_everything_that_is_written_is_written_whole():
    paths = {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted((ROOT / "rrn").rglob("*.py"))}
    assert {name for name, text in paths.items() if WRITING.search(text)} <= set(OF_THEIR_OWN)
