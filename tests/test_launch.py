import os
import sys

import pytest

from rrn.training import launch


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module that can be started by name."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("RRN_LAUNCH", raising=False)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def test_lines_come_as_they_are_printed(module):
    name = module("talker", "import sys\nprint('one')\nprint(*sys.argv[1:], file=sys.stderr)")
    assert list(launch.launch(name, "--steps", 3)) == ["one", "--steps 3"]


def test_a_failure_ends_with_the_last_lines(module):
    name = module("failer", "print('loss is nan')\nraise SystemExit(4)")
    with pytest.raises(launch.LaunchError, match=r"failer exited with status 4(.|\n)*loss is nan"):
        list(launch.launch(name))


def test_torchruns_summary_is_repeated_whole(module):
    name = module("failer", "print('noise')\nprint('failer FAILED')\nprint('why\\n' * 100)\nraise SystemExit(1)")
    with pytest.raises(launch.LaunchError) as caught:
        list(launch.launch(name))
    assert str(caught.value) == "failer exited with status 1; its last lines:\nfailer FAILED\n" + "why\n" * 100 + "\n"


def test_without_a_summary_tracebacks_of_processes_are_repeated(module):
    text = "print('[rank1]: ValueError')\nprint('RendezvousConnectionError\\n' * 50)\nraise SystemExit(1)"
    with pytest.raises(launch.LaunchError) as caught:
        list(launch.launch(module("failer", text)))
    found = str(caught.value).splitlines()
    assert (
        found[1] == "[rank1]: ValueError"
        and found[-1].startswith("the torchrun that held the store")
        and len(found) < 50
    )


def test_two_processes_go_through_torchrun(module):
    name = module(
        "ranks", 'import os, sys\nsys.stdout.write(f\'rank {os.environ["RANK"]} {os.environ["WORLD_SIZE"]}\\n\')'
    )
    lines = sorted(line for line in launch.launch(name, nproc=2) if line.startswith("rank"))
    assert lines == ["rank 0 2", "rank 1 2"]


def test_a_command_of_the_user_starts_it(module, monkeypatch):
    name = module("talker", "print('hello')")
    monkeypatch.setenv("RRN_LAUNCH", f"{sys.executable} -X utf8")
    assert launch.wanted(1)
    assert launch.command(name, "a") == [sys.executable, "-X", "utf8", "-m", name, "a"]
    assert list(launch.launch(name)) == ["hello"]


def test_one_process_needs_no_launcher(monkeypatch):
    monkeypatch.delenv("RRN_LAUNCH", raising=False)
    assert not launch.wanted(1)
    assert launch.wanted(2)


def test_it_is_stopped_with_its_reader(module, tmp_path):
    source = "import os, signal, time\nfrom pathlib import Path\n"
    source += f"signal.signal(signal.SIGTERM, lambda *_: (Path({str(tmp_path)!r}, 'asked').touch(), os._exit(0)))\n"
    name = module("sleeper", f"{source}print(os.getpid())\ntime.sleep(6000)")
    lines = launch.launch(name)
    process = int(next(lines))
    lines.close()
    assert (tmp_path / "asked").exists()  # it was not left to itself, nor killed in the end
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
