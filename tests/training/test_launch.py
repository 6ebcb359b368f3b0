import os
import re
import sys

import pytest

from rrn.training import launch


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module that can be started by name."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("RRN_LAUNCH", raising=False)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def test_lines_come_as_they_are_printed(module):
    name = module("talker", "import sys\nprint('one')\nprint(*sys.argv[1:], file=sys.stderr)")
    assert list(launch.lines(name, "--steps", "3")) == ["one", "--steps 3"]


def failure(name, **options):
    """Return what the error of a module that fails says."""
    with pytest.raises(launch.LaunchError) as caught:
        list(launch.lines(name, **options))
    return str(caught.value)


def test_a_failure_says_the_last_lines_and_what_to_do(module):
    told = failure(module("failer", "print('loss is nan')\nraise SystemExit(4)"))
    assert told == f"failer exited with status 4; its last lines:\nloss is nan\n\n{launch.ADVICE}"
    assert "the same command then goes on from the last checkpoint" in launch.ADVICE and "RRN_TIMEOUT" in launch.ADVICE


def test_torchruns_summary_is_repeated_whole(module):
    name = module("failer", "print('noise')\nprint('failer FAILED')\nprint('why\\n' * 100)\nraise SystemExit(1)")
    assert f"its last lines:\nfailer FAILED\n{'why' + chr(10)}" in failure(name) and failure(name).count("why\n") == 100


def test_without_a_summary_tracebacks_of_processes_are_repeated(module):
    found = failure(module("failer", "print('[rank1]: ValueError')\nprint('noise\\n' * 50)\nraise SystemExit(1)"))
    assert found.splitlines()[1] == "[rank1]: ValueError" and found.count("noise") < launch.TAIL


MEMBER = """
import torch
from torch.distributed.elastic.multiprocessing.errors import record
from rrn.runtime import distributed

@record
def main():
    distributed.start(torch.device("cpu"))
    if distributed.rank() == 1:
        raise ValueError("label 77 is no class")
    while True:
        distributed.all_reduce_sum(torch.tensor(1.0))

main()
"""


def test_an_error_of_one_process_ends_the_others_and_is_told(module):
    assert re.search(r"Root Cause(.|\n)*ValueError: label 77 is no class", failure(module("member", MEMBER), nproc=2))


def test_two_processes_go_through_torchrun(module):
    name = module(
        "ranks", 'import os, sys\nsys.stdout.write(f\'rank {os.environ["RANK"]} {os.environ["WORLD_SIZE"]}\\n\')'
    )
    lines = sorted(line for line in launch.lines(name, nproc=2) if line.startswith("rank"))
    assert lines == ["rank 0 2", "rank 1 2"]


def test_a_command_of_the_user_starts_it(module, monkeypatch):
    name = module("talker", "print('hello')")
    monkeypatch.setenv("RRN_LAUNCH", f"{sys.executable} -X utf8")
    assert launch.needed(1)
    assert launch.command(name, "a") == [sys.executable, "-X", "utf8", "-m", name, "a"]
    assert list(launch.lines(name)) == ["hello"]


def test_one_process_needs_no_launcher(monkeypatch):
    monkeypatch.delenv("RRN_LAUNCH", raising=False)
    assert not launch.needed(1)
    assert launch.needed(2)


def test_it_is_stopped_with_its_reader(module, tmp_path):
    source = "import os, signal, time\nfrom pathlib import Path\n"
    source += f"signal.signal(signal.SIGTERM, lambda *_: (Path({str(tmp_path)!r}, 'asked').touch(), os._exit(0)))\n"
    name = module("sleeper", f"{source}print(os.getpid())\ntime.sleep(6000)")
    lines = launch.lines(name)
    process = int(next(lines))
    lines.close()
    assert (tmp_path / "asked").exists()  # it was not left to itself, nor killed in the end
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
