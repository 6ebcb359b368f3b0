"""Verify a data set before anything is learnt from it: every file opens, fits and means something. No torch.

`verify` reads every listed image and label once, on all cores, and remembers what it found (see `rrn.data.facts`), so
that a further call takes a second. It names all problems, not only the first.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import combinations, islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rrn import parent
from rrn.config import IGNORE_INDEX, Settings
from rrn.data import facts, files
from rrn.data.facts import Facts, File, Memory
from rrn.data.files import DataError, RepeatedIds
from rrn.data.layouts import Layout
from rrn.data.report import Report
from rrn.data.sets import ImageSet

__all__ = ["MEMORY", "Report", "report", "verify"]

MEMORY = Path(".scratch", "verified.sqlite")
"""What is remembered, in a repository."""
CHUNK = 64
"""Images that one task of a process reads."""
FEW = 200
"""Files that are read in this process before others are started, which takes a second."""
AHEAD = 4
"""Chunks for each process that are under way at once; bounds the memory."""

Examined = list[tuple[facts.Status | None, Facts]]


@dataclass(frozen=True)
class Pair:
    """An image of a split; `label` is None if it has none and needs none."""

    split: str
    place: int
    name: str
    image: Path
    label: Path | None


def verify(
    dataset: ImageSet, memory: Path, full: bool = False, workers: int | None = None, progress: bool = False
) -> Report:
    """Read every image and label that the splits list, and say what is wrong with them.

    Args:
        dataset: the data set.
        memory: SQLite file of what is known already; made if missing, renamed with a warning if unusable.
        full: read files again that have not changed.
        workers: processes that read; default: one for each core.
        progress: whether to show a bar.

    Raises:
        DataError: `memory` cannot be written, or one of the processes was killed.
    """
    try:
        return _verified(dataset, memory, full, workers or os.cpu_count() or 1, progress)
    except sqlite3.OperationalError as error:
        raise DataError(
            f"{memory} cannot be read or written ({error}); it keeps what is verified: make room there, or let it be "
            "written, and give the same command again"
        ) from error
    except BrokenProcessPool as error:
        raise DataError(
            "a process that reads images and labels was killed, most likely for lack of memory: give the same command "
            "again, which goes on from what has been read"
        ) from error
    except sqlite3.DatabaseError as error:
        facts.put_aside(memory, error)
    return _verified(dataset, memory, full, workers or os.cpu_count() or 1, progress)


def report(settings: Settings, root: Path, full: bool = False) -> int:
    """Verify the data set of `settings` and print what was found.

    Args:
        settings: say where the data set lies.
        root: the repository.
        full: read files again that have not changed.

    Returns:
        0, or 1 if there are problems.
    """
    try:
        found = verify(ImageSet.open(settings, root), root / MEMORY, full, progress=sys.stderr.isatty())
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(found.summary())
    print(f"\nchecksum {found.checksum}, {len(found.problems) or 'no'} problems")
    for problem in found.problems:
        print(f"- {problem}")
    return 1 if found.problems else 0


def _verified(dataset: ImageSet, memory: Path, full: bool, workers: int, progress: bool) -> Report:
    """See `verify`; an unusable `memory` raises sqlite3.DatabaseError."""
    findings = Findings(dataset)
    total = sum(map(len, findings.ids.values()))
    with Memory(memory) as known, tqdm(total=total, unit="image", desc="verify", disable=not progress) as bar:
        for pair, image, label in _examined(findings.pairs(), known, full, workers):
            findings.add(pair, image, label)
            bar.update()
        bar.update(total - bar.n)
    return findings.report()


# ---- reading


def _examined(
    pairs: Iterable[Pair], memory: Memory, full: bool, workers: int
) -> Iterator[tuple[Pair, Facts, Facts | None]]:
    """Yield every pair, in order, with the facts of its files."""
    pairs = iter(pairs)
    under_way: deque[Chunk] = deque()
    with Readers(workers) as readers:
        while pending := list(islice(pairs, CHUNK)):
            under_way.append(Chunk(pending, memory, full, readers))
            if len(under_way) > AHEAD * workers:
                yield from under_way.popleft().finish(memory)
        while under_way:
            yield from under_way.popleft().finish(memory)


class Chunk:
    """Some pairs: what memory knows of their files, and the reading of the others, under way."""

    def __init__(self, pairs: list[Pair], memory: Memory, full: bool, readers: Readers) -> None:
        self.pairs = pairs
        self.facts: dict[File, Facts] = {}
        self.unread: list[File] = []
        for pair in pairs:
            self._recall((pair.image, "image"), memory, full)
            if pair.label is not None:
                self._recall((pair.label, "label"), memory, full)
        self.reading = readers.start(self.unread)

    def _recall(self, file: File, memory: Memory, full: bool) -> None:
        """Look up a file, or put it on the list of those to read."""
        try:
            known = memory.find(file, facts.status(*file)) if not full else None
        except DataError as error:
            known = Facts(problem=str(error))
        if known is None:
            self.unread.append(file)
        else:
            self.facts[file] = known

    def finish(self, memory: Memory) -> Iterator[tuple[Pair, Facts, Facts | None]]:
        """Wait for the reading, remember it, and yield each pair with the facts of its files."""
        read = list(zip(self.unread, self.reading.result(), strict=True))
        memory.keep((file, status, found) for file, (status, found) in read if status is not None)
        self.facts |= {file: found for file, (_, found) in read}
        for pair in self.pairs:
            label = None if pair.label is None else self.facts[pair.label, "label"]
            yield pair, self.facts[pair.image, "image"], label


class Readers:
    """Processes that read files; none is started for few files."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.files = 0
        self.pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Readers:
        """Start nothing yet."""
        return self

    def __exit__(self, *error: object) -> None:
        """Stop the processes."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def start(self, wanted: list[File]) -> Future[Examined]:
        """Read files, at once or in another process."""
        self.files += len(wanted)
        if self.workers > 1 and self.files > FEW:
            if self.pool is None:
                spawn = get_context("spawn")
                self.pool = ProcessPoolExecutor(self.workers, spawn, initializer=parent.end_together)
            return self.pool.submit(facts.examine, wanted)
        done: Future[Examined] = Future()
        done.set_result(facts.examine(wanted))
        return done


# ---- judging


class Findings:
    """What has been found so far."""

    def __init__(self, dataset: ImageSet) -> None:
        self.dataset = dataset
        self.layout: Layout = dataset.layout
        self.problems: dict[str, None] = {}
        self.ids = {s: self._listed(s) for s in dict.fromkeys((dataset.train, dataset.val, dataset.test))}
        columns = len(dataset.classes) + 1
        self.pixels = {s: np.zeros((len(ids), columns), dtype=np.int64) for s, ids in self.ids.items()}
        self.prints = {s: np.zeros(len(ids), dtype=np.uint64) for s, ids in self.ids.items()}
        meaning = sorted(self.layout.meaning.items())
        self.contents = hashlib.sha256(repr((dataset.classes, meaning, dataset.size)).encode())

    def _listed(self, split: str) -> tuple[str, ...]:
        """Return the ids of a split, each once; none if they cannot be had."""
        try:
            return tuple(self.dataset.ids(split))
        except RepeatedIds as error:
            self._note(str(error))
            return tuple(error.ids)
        except (DataError, OSError) as error:
            self._note(_wording(error, self.layout.root))
            return ()

    def _note(self, problem: str) -> None:
        """Write down a problem, once, on one line."""
        self.problems[" ".join(problem.split("\n"))] = None

    def pairs(self) -> Iterator[Pair]:
        """Yield every image of every split with its label, if it has or needs one."""
        for split, ids in self.ids.items():
            for place, name in enumerate(ids):
                try:
                    image = self.dataset.image_path(split, name)
                    label = self.dataset.label_path(split, name)
                    wanted = split != self.dataset.train or _lies_there(label)
                except (DataError, OSError) as error:
                    self._note(_wording(error, self.layout.root))
                else:
                    yield Pair(split, place, name, image, label if wanted else None)

    def add(self, pair: Pair, image: Facts, label: Facts | None) -> None:
        """Judge an image and its label, and count them."""
        unique = hashlib.sha256(os.fsencode(pair.image)).hexdigest() if image.problem else image.digest
        self.prints[pair.split][pair.place] = int(unique[:16], 16)
        for found in (image, label):
            if found is not None and found.digest:
                line = f"{pair.split} {pair.name} {found.digest}\n"
                self.contents.update(line.encode(errors="surrogateescape"))
        if image.problem:
            self._note(_with_folder(image.problem, pair.image))
        if label is not None and pair.label is not None:
            self._add_label(pair, pair.label, image, label)

    def _add_label(self, pair: Pair, path: Path, image: Facts, label: Facts) -> None:
        """Judge a label and count its pixels."""
        if label.problem:
            drawn = set(label.colours) - set(VOID_COLOURS)
            is_drawn = drawn and drawn <= set(self.layout.colours)
            self._note(in_colours(path) if is_drawn else _with_folder(label.problem, path))
            return
        if not image.problem and image.size != label.size:
            self._note(files.different_sizes(path, label.size, pair.image, image.size))
        counts = np.zeros(256, dtype=np.int64)
        counts[list(label.histogram)] = list(label.histogram.values())
        if wrong := files.illegal(counts, path, self.layout.meaning):
            self._note(wrong)
        row = self.pixels[pair.split][pair.place]
        for value, count in label.histogram.items():
            index = self.layout.meaning.get(value)
            if index is not None:
                row[-1 if index == IGNORE_INDEX else index] += count

    def report(self) -> Report:
        """Return what was found, and what only shows when all files are known."""
        for problem in (*self._shared(), *self._one_class()):
            self._note(problem)
        checksum = self.contents.hexdigest()[:16]
        data = self.dataset
        return Report(tuple(self.problems), checksum, data.classes, self.ids, self.pixels, data.train, data.val)

    def _shared(self) -> Iterator[str]:
        """Yield the images that lie in two splits; where others fixed these, one file that both list."""
        for first, second in combinations(self.ids, 2):
            if self.layout.public:
                yield from self._listed_twice(first, second)
                continue
            known = self.prints[first]
            for place in np.flatnonzero(np.isin(self.prints[second], known[known != 0])).tolist():
                other = self._path(second, place)
                one = self._path(first, int((known == self.prints[second][place]).argmax()))
                yield (
                    f"{other} of the split {second!r} is the same image as {one} of the split {first!r}: what is "
                    "learnt from must not be scored on; remove it from one of them"
                )

    def _listed_twice(self, first: str, second: str) -> Iterator[str]:
        """Yield the ids that name one file in two splits."""
        for name in sorted(set(self.ids[first]).intersection(self.ids[second])):
            path = self.dataset.image_path(second, name)
            if path == self.dataset.image_path(first, name):
                yield (
                    f"{path} is in the splits {first!r} and {second!r}: what is learnt from must not be scored on; "
                    "get the lists from their authors again"
                )

    def _path(self, split: str, place: int) -> Path:
        """Return the file of an image that has been found before."""
        return self.dataset.image_path(split, self.ids[split][place])

    def _one_class(self) -> Iterator[str]:
        """Say so if no label of the whole data set holds anything but one class and void."""
        total = np.sum([counts.sum(axis=0) for counts in self.pixels.values()], axis=0)
        present = np.flatnonzero(total[:-1])
        if len(present) != 1 or not total[-1] or len(self.dataset.classes) < 2:
            return
        split = next(s for s, counts in self.pixels.items() if counts.any())
        example = self.dataset.label_path(split, self.ids[split][int(self.pixels[split].any(axis=1).argmax())])
        yield one_class(example, self.dataset.classes, int(present[0]), self.layout.meaning)


VOID_COLOURS = ((0, 0, 0), (224, 224, 192))
"""Colours that data sets draw void in."""


def in_colours(path: Path) -> str:
    """Say that a label is drawn in the colours of its data set."""
    return (
        f"{path} is drawn in the RGB colours of the classes, but a label is one class index per pixel: convert each "
        "colour to its class index and save it as a grey or palette PNG of 8 bits"
    )


def one_class(example: Path, classes: tuple[str, ...], present: int, meaning: Mapping[int, int]) -> str:
    """Say that labels hold one class and void, and what that comes to; `example` is one of them."""
    void = ", ".join(str(value) for value, index in sorted(meaning.items()) if index == IGNORE_INDEX)
    other = next(index for index in range(len(classes)) if index != present)
    return (
        f"{example} and all other labels hold nothing but {present} ({classes[present]!r}) and void ({void}): void is "
        f"ignored, so {classes[other]!r} would never be learnt; if void marks the foreground, write {other} for it "
        f"({classes[other]!r})"
    )


def _with_folder(problem: str, path: Path) -> str:
    """Return a problem of a file, or that its folder is missing, which says more."""
    if path.parent.exists() or not problem.endswith("is missing"):
        return problem
    return f"there is no folder {path.parent}, but listed files must lie in it; put it there"


def _lies_there(path: Path) -> bool:
    """Tell whether there is anything of this name, readable or not."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _wording(error: Exception, root: Path) -> str:
    """Return the text of an error; of one of the system, with what to do."""
    if isinstance(error, OSError):
        return str(files.unreadable(error, Path(error.filename or root), "folder"))
    return str(error)
