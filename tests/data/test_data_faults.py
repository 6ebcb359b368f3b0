"""Data that change, workers that die and disks that are full, while a run reads."""

import os
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from conftest import PATIENCE, until
from disks import Disk, small_disk
from small import REPOSITORY, partitioned, small_settings, write_folder

from rrn.config import Settings
from rrn.data.batches import Batch, WholeImages, training_loader
from rrn.data.decoding import DataError
from rrn.data.image_set import ImageSet
from rrn.data.splits import Split
from rrn.preparation import archives, verification
from rrn.preparation.archives import Archive, unpack
from rrn.runtime import atomic_io

Data = tuple[ImageSet, Split, Settings]


@pytest.fixture
def data(tmp_path: Path) -> Data:
    root = write_folder(tmp_path / "data")
    settings = small_settings(root, loading={"cache": False})
    dataset = ImageSet.open(settings, tmp_path)
    return dataset, partitioned(dataset, settings, "1of4"), settings


def batches(data: Data, workers: int = 0, cache: bool = False) -> Iterator[Batch]:
    dataset, split, settings = data
    loading = settings.loading.model_copy(update={"workers": workers, "cache": cache})
    changed = settings.model_copy(update={"loading": loading})
    return iter(training_loader(dataset, split, changed, 0, 0, 1000, "train"))


def rewrite(path: Path) -> None:
    """Write other bytes of the same length; the first ones are a header."""
    contents = path.read_bytes()
    path.write_bytes(contents[:-40] + bytes(20) + contents[-20:])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def lengthen(path: Path) -> None:
    """Append bytes, which decoding does not mind, and give it the time of before."""
    before = path.stat()
    path.write_bytes(path.read_bytes() + bytes(1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def touch_back(path: Path) -> None:
    """Write it again while the clock is an hour back."""
    before = path.stat()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns - 3600 * 10**9))


CHANGES: dict[Callable[[Path], None], str] = {
    Path.unlink: "cannot be found any more",
    rewrite: "has changed",
    truncate: "has changed",
    lengthen: "has changed",
    become_a_folder: "has changed",
    touch_back: "has changed",
}


@pytest.mark.parametrize(("workers", "kind"), [(0, "image"), (0, "label"), (2, "image")])
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_stops_the_run_and_is_named(
    data: Data, workers: int, kind: str, change: Callable[[Path], None]
) -> None:
    dataset, split, _ = data
    reading = batches(data, workers)
    next(reading)
    paths = [getattr(dataset, f"{kind}_path")("train", name) for name in split.labeled]
    for path in paths:
        shutil.copy2(path, path.with_suffix(".kept"))
        change(path)
    with pytest.raises(DataError) as error:
        list(reading)
    text = str(error.value)
    named = next(name for name in split.labeled if f"({name!r})" in text)
    path = dataset.root / f"{kind}s" / "train" / f"{named}.{'jpg' if kind == 'image' else 'png'}"
    where, what = path, CHANGES[change]
    if kind == "image" and not path.is_file():  # images are looked for by their ending
        where, what = f"of 'train' in {dataset.root}", "cannot be found any more"
    assert text.startswith(f"{kind} {where} ({named!r}) {what} since this run began to read it: put it back as it was")
    assert text.endswith(
        "goes on from the last checkpoint; if the data set is meant to change, `dvc repro` begins anew with it"
    )
    for path in paths:  # as it was, and the run goes on
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.with_suffix(".kept").rename(path)
    assert next(batches(data, workers)).labeled_ids


def test_an_unlabeled_image_that_changes_is_named(data: Data) -> None:
    dataset, split, _ = data
    reading = batches(data)
    next(reading)
    for name in split.unlabeled:
        rewrite(dataset.image_path("train", name))
    with pytest.raises(DataError, match=r"image .*train\d+\.jpg \('train\d+'\) has changed since this run"):
        list(reading)


def test_a_file_that_changes_before_an_evaluation_is_named(data: Data) -> None:
    dataset, split, _ = data
    images = WholeImages(dataset, "val", split.val, 2)
    assert len(list(images)) == 2
    rewrite(dataset.label_path("val", split.val[3]))
    with pytest.raises(DataError, match=rf"label .*{split.val[3]}.png \('{split.val[3]}'\) has changed since"):
        list(images)


def test_a_run_with_decoded_images_goes_on_with_those_of_its_beginning(data: Data) -> None:
    expected = [batch for batch, _ in zip(batches(data), range(4), strict=False)]
    reading = batches(data, cache=True)
    found = [next(reading)]
    for name in data[1].labeled:
        data[0].image_path("train", name).unlink()
    found += [next(reading) for _ in range(3)]
    assert all(bool((one.images == other.images).all()) for one, other in zip(found, expected, strict=True))
    with pytest.raises(DataError, match=r"train\d+.jpg \(or .png\) is missing"):  # the next one is told
        batches(data, cache=True)


PROGRAM = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
import psutil, test_data_faults as tests
from small import partitioned, small_settings
root = Path(sys.argv[1])
settings = small_settings(root, loading={"cache": False})
dataset = tests.ImageSet.open(settings, root.parent)
reading = tests.batches((dataset, partitioned(dataset, settings, "1of4"), settings), 2)
next(reading)
print(*[child.pid for child in psutil.Process().children()], flush=True)
sys.stdin.readline()
list(reading)
"""


@pytest.fixture
def reading(data: Data) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A process that has read a batch and waits for a line to read on, and its two workers."""
    places = [REPOSITORY / "tests", REPOSITORY / "tests" / "helpers", Path(__file__).parent]
    command = [sys.executable, "-c", PROGRAM, data[0].root, *places]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        workers = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
        assert len(workers) == 2
        yield process, workers
        process.kill()


def require_gone(workers: list[psutil.Process]) -> None:
    until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in workers))


def test_a_killed_worker_stops_the_run_with_the_setting_that_helps(
    reading: tuple[subprocess.Popen[str], list[psutil.Process]],
) -> None:
    process, workers = reading
    workers[0].kill()
    require_gone(workers[:1])  # while nothing is read, and torch's handler would speak
    _, errors = process.communicate("\n", timeout=PATIENCE)
    assert process.returncode == 1
    expected = (
        f"of 2 processes that prepare batches pid {workers[0].pid} was killed by signal 9: most likely for lack of"
    )
    assert f"\nrrn.data.prefetch.WorkerError: {expected} memory, or /dev/shm is full; " in errors
    assert "lower loading.workers (now 2; with 0 there is no such process), then give the same command again" in errors
    require_gone(workers)


def test_the_workers_of_a_killed_run_end_with_it(
    reading: tuple[subprocess.Popen[str], list[psutil.Process]],
) -> None:
    """Else they hold its lock for some seconds, and the next run is refused."""
    process, workers = reading
    for worker in workers:
        worker.suspend()  # torch's own look for their parent, every five seconds, if they are awake
    process.kill()
    require_gone(workers)


# ---- the disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk") as made:
        yield made


def test_decoded_images_that_find_no_room_leave_nothing_and_the_next_run_decodes_them(data: Data, disk: Disk) -> None:
    dataset = replace(data[0], decoded=disk.folder / "decoded")
    disk.fill(4096)
    message = r"cannot be kept in .*/decoded \(.*No space left on device.*\): set loading.cache: false, make room there"
    with pytest.raises(DataError, match=message):
        WholeImages(dataset, "val", data[1].val, 2, cache=True)
    assert [path.suffix for path in dataset.decoded.iterdir()] == [".lock"]
    disk.empty()
    assert len(list(WholeImages(dataset, "val", data[1].val, 2, cache=True))) == 2
    disk.set_writable(False)  # what lies there is read all the same
    assert len(list(WholeImages(dataset, "val", data[1].val, 2, cache=True))) == 2
    with pytest.raises(
        DataError, match=r"Read-only file system.*RRN_SCRATCH name a folder that has some and may be wr"
    ):
        WholeImages(dataset, "test", data[1].test, 2, cache=True)


@pytest.mark.parametrize("full", [True, False])
def test_what_is_verified_finds_no_room_and_the_next_run_keeps_it(
    data: Data, disk: Disk, full: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    out, root = disk.folder / "verify", data[0].root.parent
    disk.fill(0) if full else disk.set_writable(False)
    with pytest.raises(atomic_io.WriteError, match=r"report.json cannot be written \(.*\): "):
        verification.print_verification(data[2], root, out)
    disk.empty() if full else disk.set_writable(True)
    assert verification.print_verification(data[2], root, out) == 0
    assert [path.name for path in out.iterdir()] == ["report.json"]
    assert "no problems" in capsys.readouterr().out


def readers(process: psutil.Process) -> list[psutil.Process]:
    """Return the processes that read for one."""
    return [child for child in process.children() if "spawn_main" in " ".join(child.cmdline())]


def end(pair: object, exif: str) -> None:
    """Die as the system kills."""
    os.kill(os.getpid(), 9)


def test_a_killed_process_of_verify_is_reported_and_the_next_run_finishes(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "FEW", 0)
    with monkeypatch.context() as patch, pytest.raises(DataError) as error:
        patch.setattr(verification.facts, "examine", end)
        verification.verify(data[0], workers=2)
    assert str(error.value).startswith("a process that reads images and labels was killed, most likely for lack of mem")
    assert not readers(psutil.Process())
    assert not verification.verify(data[0], workers=2).problems


VERIFYING = """
import os, signal, sys, threading, psutil
from pathlib import Path
from rrn.preparation import verification
begun, wanted = Path(sys.argv[1]), sys.argv[2]
def wait(pair, exif):
    (begun / str(os.getpid())).touch()
    signal.sigwait([signal.SIGUSR1])  # which does not come
def tell():
    pids = []
    while len(pids) < 2 or len(list(begun.iterdir())) < (2 if wanted == "begun" else 0):
        signal.sigtimedwait([signal.SIGUSR2], 0.02)
        pids = [c.pid for c in psutil.Process().children() if "spawn_main" in " ".join(c.cmdline())]
    print(*pids, flush=True)
if __name__ == "__main__":
    threading.Thread(target=tell, daemon=True).start()
    verification.FEW, verification.CHUNK, verification.facts.examine = 0, 1, wait
    pairs = [verification.Pair("train", place, "x", None, None) for place in range(4)]
    list(verification._examined(pairs, "refuse", 2))
"""


@pytest.mark.parametrize("wanted", ["started", "begun"])
def test_the_processes_of_a_killed_verify_end_with_it(tmp_path: Path, wanted: str) -> None:
    """Each holds the pipe that it is given work through, and would wait for ever."""
    program, begun = tmp_path / "verifying.py", tmp_path / "begun"
    program.write_text(VERIFYING, encoding="utf-8")
    begun.mkdir()
    command, environment = [sys.executable, program, begun, wanted], dict(os.environ, PYTHONPATH=str(REPOSITORY))
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
    workers = [psutil.Process(int(pid)) for pid in line.split() if psutil.pid_exists(int(pid))]
    assert line.split()
    require_gone(workers)


def archive(folder: Path) -> Archive:
    with zipfile.ZipFile(folder / "a.zip", "w") as zipped:
        for name in "abc":
            zipped.writestr(f"inside/{name}", random.Random(0).randbytes(40_000))
    return Archive("a.zip", "http://localhost/a.zip", None, "inside")


def test_an_archive_that_finds_no_room_leaves_no_half_file_and_is_unpacked_again(disk: Disk) -> None:
    known, target = archive(disk.folder), disk.folder / "data"
    disk.fill(60_000)
    with pytest.raises(OSError, match="No space left on device"):
        unpack(disk.folder / "a.zip", known, target)
    assert not list(target.iterdir())
    disk.empty()
    unpack(disk.folder / "a.zip", known, target)
    assert [path.stat().st_size for path in sorted(target.iterdir())] == [40_000] * 3


def test_a_download_that_finds_no_room_leaves_no_half_file(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(url: str, output: str, caller: object) -> None:
        with Path(output).open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass

    monkeypatch.setattr(archives, "DOWNLOADER", download)
    with pytest.raises(OSError, match=r"cannot be written \(No space left on device\): make room there, or name"):
        archives.fetch_archive(Archive("a.zip", "http://localhost/a.zip", None, ""), disk.folder)
    assert not list(disk.folder.iterdir())
