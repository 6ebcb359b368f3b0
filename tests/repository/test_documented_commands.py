"""Commands in README.md and docs/ are read by the parsers that they are for, and what they name exists."""

import importlib.util
import itertools
import re
import shlex
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT
from dvc.cli import DvcParserError
from dvc.cli.parser import get_main_parser
from ruamel.yaml import YAML

from rrn import config
from rrn.pipeline import aside, presets, repro
from rrn.prediction import command as predict_command
from rrn.preparation import command as data_command

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = ("python", "make", "dvc", "tensorboard")
OTHERS = ("conda", ".venv/bin/pip", ".venv/bin/jupyter")
TARGETS = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
VARIABLES = [f"{name}=..." for name in re.findall(r"^([A-Z]+) \?=", (ROOT / "Makefile").read_text(), re.MULTILINE)]
STAGES = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"]
ELSEWHERE = "../elsewhere"


@dataclass(frozen=True)
class Command:
    """A command as it is shown.

    `number` counts commands of a page, `before` are the items of the presets laid on above it, in its block.
    """

    page: str
    number: int
    words: tuple[str, ...]
    before: tuple[str, ...] = ()

    def __str__(self):
        return f"{self.page}:{self.number} {' '.join(self.words)}"

    @property
    def items(self):
        """What a preset command lays on; nothing for other commands."""
        return self.words[3:] if self.words[1:3] == ("-m", "rrn.preset") else ()


def lines(text):
    """Yield the command lines of a page, each with whether it stands in a block; in a text they are spans."""
    for line in text.splitlines():
        if line.startswith("    "):
            yield line.strip(), True
        else:
            yield "", False
            yield from ((span, False) for span in re.findall(r"`([^`]+)`", line))


def parts(line):
    """Yield the words of each command of a line, without variables that are set for it and without other programs."""
    if not re.search(r"(^|[\s/])(python|make|dvc) |-m rrn|^\.venv/", line) or line.startswith("#"):
        return
    for joined, words in itertools.groupby(shlex.split(line, comments=True), lambda word: word == "&&"):
        words = list(itertools.dropwhile(lambda word: re.match(r"[A-Z_]+=", word), words))
        if not joined and words and words[0] not in OTHERS:
            if Path(words[0]).name in PROGRAMS:
                words[0] = Path(words[0]).name
            yield tuple(re.sub(r"\bDIR\b", ELSEWHERE, word) for word in words)


def commands(page, text):
    """Return the commands of a page."""
    found, before = [], ()
    for line, in_block in lines(text):
        before = before if in_block else ()
        for words in parts(line):
            found.append(Command(page, len(found) + 1, words, before))
            before += found[-1].items if in_block else ()
    return found


SHOWN = [command for page in PAGES for command in commands(page.relative_to(ROOT).as_posix(), page.read_text())]


def settings_of(items):
    """Return the settings that a preset command leaves, if they are valid for all its rows."""
    items = [item for item in items if item != "NAME..."]
    values = YAML(typ="safe", pure=True).load(presets.apply(ROOT, items))
    for method in values["ablation"]["methods"]:
        config.resolve(values, method)
    return config.resolve(values)


def states(page):
    """Yield the settings of the repository and those after each preset of a page."""
    yield config.load(root=ROOT)
    for command in SHOWN:
        if command.page == page and command.items:
            yield settings_of(command.items)
            yield settings_of(command.before + command.items)


def targets(settings):
    """Return the names of all stages as DVC has them."""
    named = {*STAGES}
    for name, stage in STAGES.items():
        lists = [getattr(settings.ablation, over[len("${ablation.") : -1]) for over in stage.get("matrix", {}).values()]
        named |= {f"{name}@{'-'.join(map(str, key))}" for key in itertools.product(*lists) if key}
    return named


def check_dvc(arguments, page):
    options = get_main_parser().parse_args(arguments)
    settings_of(getattr(options, "set_param", None) or [])
    for target in getattr(options, "targets", None) or []:
        known = (ROOT / target).exists() or any(target in targets(settings) for settings in states(page))
        assert known, f"no stage {target}"


def check_repro(arguments, page):
    """Run what is not DVC's or slow of `rrn.repro`, and see what it would have DVC do."""
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(repro, "dvc", lambda root, *arguments: calls.append(arguments) or 0)
        patch.setattr(repro, "ahead", lambda root, settings, jobs, wanted=None: 0)
        patch.setattr(aside, "set_aside", lambda root, settings: [])
        patch.setattr(repro, "compare", lambda root, name, tolerance: 0)
        assert repro.main(arguments) == 0
    check_dvc(list(calls[-1]), page)


def check_predict(arguments, page):
    if arguments == ["--help"]:
        return
    run = predict_command.parser().parse_intermixed_args(arguments).run
    if str(run) in [command.words[4] for command in SHOWN if command.page == page and "rrn.export" in command.words]:
        return
    found = [settings for settings in states(page) if run.parts[:3] == ("runs", settings.name, "train")]
    assert any(f"train@{run.name}" in targets(settings) for settings in found), f"no run {run}"


def check_benchmark(script, arguments):
    source = (ROOT / script).read_text()
    for option in arguments:
        assert not option.startswith("-") or f'add_argument("{option}"' in source, f"{script} has no {option}"


def check_module(name, arguments, page):
    """Check a command of a module; one without arguments may just name it."""
    found = importlib.util.find_spec(name)
    assert found is not None, f"no module {name}"
    if name == "rrn.repro":
        check_repro(arguments, page)
    elif name == "rrn.preset":
        settings_of(arguments)
    elif name == "rrn.predict":
        check_predict(arguments, page)
    elif name == "rrn.data" and arguments:
        data_command.parser().parse_args(arguments)
    elif name != "rrn.data":
        assert 'if __name__ == "__main__"' in Path(found.origin).read_text()


def check(command):
    """Raise an error if a command cannot be what is meant."""
    program, *arguments = command.words
    assert program in PROGRAMS, f"no program {program}"
    if program == "make":
        assert {word for word in arguments if word not in VARIABLES} <= set(TARGETS), f"no target {arguments}"
    elif program == "dvc":
        check_dvc(arguments, command.page)
    elif program == "tensorboard":
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of what it brings
            from tensorboard.program import TensorBoard
        TensorBoard().configure(argv=[program, *arguments])
    elif arguments[0] == "-m":
        check_module(arguments[1], arguments[2:], command.page)
    elif arguments[0] != "-c":
        check_benchmark(arguments[0], arguments[1:])


@pytest.mark.parametrize("command", SHOWN, ids=str)
def test_a_command_does_what_the_page_says(command):
    check(command)


def test_commands_are_found():
    found = {" ".join(command.words[: 3 if command.words[1] == "-m" else 2]) for command in SHOWN}
    modules = {f"python -m rrn.{name}" for name in ("preset", "predict", "repro", "data", "preparation.shapes")}
    assert found >= modules | {"python benchmarks/filtering.py", "make repro", "make test", "dvc exp"}
    count = sum(len(re.findall(r"-m rrn\.", page.read_text())) for page in PAGES)
    assert count == sum(command.words[1] == "-m" for command in SHOWN)


@pytest.mark.parametrize("command", [c for c in SHOWN if c.items and c.before], ids=str)
def test_presets_of_a_block_add_up(command):
    settings_of(command.before + command.items)


@pytest.mark.parametrize(
    "items",
    [
        *itertools.product(("voc", "cityscapes"), ("resnet50", "resnet101")),
        *itertools.product(("voc",), ("resnet50",), ("ablation.partitions=[1of16]",), ("ablation.seeds=[0]",)),
        ("smoke", "name=mine", "dataset.test=val", "ablation.partitions=[1of4]"),
        ("name=mine", "dataset.test=val", "ablation.partitions=[1of4]", "lite0"),
    ],
    ids=" ".join,
)
def test_presets_that_the_text_combines(items):
    settings = settings_of([*items, f"dataset.path={ELSEWHERE}"])
    assert settings.dataset.path == ELSEWHERE
    assert "train@1of16-rrn-0" in targets(settings) or settings.ablation.partitions == ("1of4",)


def test_benchmarks_that_the_text_names():
    for page in PAGES:
        for script in re.findall(r"benchmarks/\w+\.py", page.read_text()):
            assert (ROOT / script).is_file(), f"{page} names {script}"


@pytest.mark.parametrize(
    "line",
    [
        ".venv/bin/python -m rrn.prest smoke",
        ".venv/bin/python -m rnn.preset smoke",
        ".venv/bin/pyton -m rrn.preset smoke",
        ".venv/bin/python -m rrn.preset smok",
        ".venv/bin/python -m rrn.preset voc resnet50",
        '.venv/bin/python -m rrn.preset smoke "ablation.partition=[1of4]"',
        '.venv/bin/python -m rrn.preset "ablation.methods=[rnn]"',
        ".venv/bin/python -m rrn.preset smoke && make rpro",
        ".venv/bin/python -m rrn.predict runs/shapes/train/1of16-rrn-0 images out --overlays",
        ".venv/bin/python -m rrn.predict runs/shapes/train/1of16-rnn-0 images out",
        ".venv/bin/python -m rrn.predict runs/shapes/train/1of16-rrn-0 images",
        ".venv/bin/python -m rrn.repro --comparison",
        ".venv/bin/python -m rrn.repro train@1of16-rnn-0      # one run",
        ".venv/bin/python -m rrn.data verify --all",
        ".venv/bin/python -m rrn.data lists voc",
        "python benchmarks/trials.py --fiel trials.csv",
        "PATH=$PWD/.venv/bin:$PATH dvc exp run -S methods.rrn.roh=votes evaluate@1of16-rrn-0",
        "dvc exp run --queues evaluate",
    ],
)
def test_a_misspelled_command_is_noticed(line, capsys):
    wrong = (AssertionError, SystemExit, config.SettingsError, ModuleNotFoundError, DvcParserError)
    with pytest.raises(wrong):
        for command in commands("README.md", f"Text:\n\n    {line}\n"):
            check(command)
