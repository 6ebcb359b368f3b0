"""Verify a data set before anything is learned from it: every file opens, fits and means something. No torch.

`verify` reads every listed image and label, on all cores, and names all problems, not only the first. The stage
`verify` keeps what it found in runs/<name>/verify, which the prepare stage reads; DVC runs it again when the data
change.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rrn.config import IGNORE_INDEX, Settings
from rrn.data import decoding
from rrn.data.decoding import DataError, Exif
from rrn.data.formats.base import Color, Layout
from rrn.data.formats.folder import Folder
from rrn.data.id_lists import RepeatedIds
from rrn.data.image_set import ImageSet
from rrn.preparation import facts, published_lists, stray_files
from rrn.preparation.facts import Facts
from rrn.preparation.report import Problems, Report, problems_in_words
from rrn.runtime import processes

CHUNK = 64
"""Images that one task of a process reads."""
FEW = 200
"""Images that are read in this process; starting others takes a second."""


@dataclass(frozen=True)
class Pair:
    """An image of a split; `label` is None if it has none and needs none."""

    split: str
    place: int
    name: str
    image: Path
    label: Path | None


def verify(dataset: ImageSet, workers: int | None = None, progress: bool = False) -> Report:
    """Read every image and label that the splits list, and say what is wrong with them.

    Args:
        dataset: the data set.
        workers: processes that read; default: one for each core.
        progress: whether to show a bar.

    Raises:
        DataError: one of the processes was killed.
    """
    findings = Findings(dataset)
    pairs, cores = list(findings.pairs()), os.cpu_count() or 1
    bar = tqdm(pairs, unit="image", desc="verify", disable=not progress)
    try:
        for pair, (image, label) in zip(bar, _examined(pairs, dataset.exif, workers or cores), strict=True):
            findings.add(pair, image, label)
    except BrokenProcessPool as error:
        raise DataError(
            "a process that reads images and labels was killed, most likely for lack of memory: close other programs, "
            "and give the same command again"
        ) from error
    return findings.report()


def _examined(pairs: Iterable[Pair], exif: Exif, workers: int) -> Iterator[tuple[Facts, Facts | None]]:
    """Yield the facts of the files of every pair, in order."""
    paths, examine = [(pair.image, pair.label) for pair in pairs], partial(facts.examine, exif=exif)
    if workers == 1 or len(paths) <= FEW:
        yield from map(examine, paths)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=processes.die_with_parent) as pool:
        yield from pool.map(examine, paths, chunksize=CHUNK)


def print_verification(settings: Settings, root: Path, out: Path | None = None) -> int:
    """Verify the data set of `settings` and print what was found.

    Args:
        settings: say where the data set lies.
        root: the repository.
        out: where to keep what was found, if nothing is wrong, for the prepare stage. Published lists are fetched then,
            as they lie in the folder of the data set, which DVC must not see changed by a later stage.

    Returns:
        0, or 1 if there are problems.

    Raises:
        DataError: there is no such data set, or its lists cannot be had.
        atomic_io.WriteError: `out` cannot be written.
    """
    dataset = ImageSet.open(settings, root)
    if out is not None and settings.split.protocol != "seeded":
        published_lists.fetch_all(settings.dataset.kind, dataset.root / "lists", settings.split.protocol)
    found = verify(dataset, progress=sys.stderr.isatty())
    if out is not None and not found.problems:
        found.write(root / out, settings.dataset)
    print(found.summary())
    print(f"\nchecksum {found.checksum}, {problems_in_words(len(found.problems))}")
    for problem in found.problems:
        print(f"- {problem}")
    return 1 if found.problems else 0


# ---- judging


class Findings:
    """What has been found so far."""

    def __init__(self, dataset: ImageSet) -> None:
        self.dataset = dataset
        self.layout: Layout = dataset.layout
        self.problems = Problems()
        self.ids = {s: self._listed(s) for s in dict.fromkeys((dataset.train, dataset.val, dataset.test))}
        columns = len(dataset.classes) + 1
        self.pixels = {s: np.zeros((len(ids), columns), dtype=np.int64) for s, ids in self.ids.items()}
        self.prints = {s: np.zeros(len(ids), dtype=np.uint64) for s, ids in self.ids.items()}
        meaning = sorted(self.layout.meaning.items())
        known = (dataset.classes, meaning, dataset.size)
        self.contents = hashlib.sha256(repr(known if dataset.exif == "refuse" else (*known, dataset.exif)).encode())
        self.palettes: dict[int, dict[Color, list[Path]]] = defaultdict(lambda: defaultdict(list))

    def _listed(self, split: str) -> tuple[str, ...]:
        """Return the ids of a split, each once; none if they cannot be had."""
        try:
            return tuple(self.dataset.ids(split))
        except RepeatedIds as error:
            self.problems.add(str(error))
            return tuple(error.ids)
        except (DataError, OSError) as error:
            self.problems.add(_wording(error, self.layout.root))
            return ()

    def pairs(self) -> Iterator[Pair]:
        """Yield every image of every split with its label, if it has or needs one."""
        for split, ids in self.ids.items():
            for place, name in enumerate(ids):
                try:
                    image = self.dataset.image_path(split, name)
                    label = self.dataset.label_path(split, name)
                    wanted = split != self.dataset.train or _lies_there(label)
                except (DataError, OSError) as error:
                    self.problems.add(_wording(error, self.layout.root))
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
            self.problems.add(_with_folder(image.problem, pair.image), pair.image)
        if label is not None and pair.label is not None:
            self._add_label(pair, pair.label, image, label)

    def _add_label(self, pair: Pair, path: Path, image: Facts, label: Facts) -> None:
        """Judge a label and count its pixels."""
        if label.problem:
            drawn = set(label.colors) - set(VOID_COLORS)
            is_drawn = drawn and drawn <= {*self.layout.colors, *self.dataset.drawn}
            self.problems.add(in_colors(path) if is_drawn else _with_folder(label.problem, path), path)
            return
        if not image.problem and image.size != label.size:
            self.problems.add(decoding.different_sizes(path, label.size, pair.image, image.size), path)
        counts = np.zeros(256, dtype=np.int64)
        counts[list(label.histogram)] = list(label.histogram.values())
        if wrong := decoding.illegal(counts, path, self.layout.meaning):
            self.problems.add(wrong, path)
        if not self.layout.public:
            for value, color in label.palette.items():
                self.palettes[value][color].append(path)
        row = self.pixels[pair.split][pair.place]
        for value, count in label.histogram.items():
            index = self.layout.meaning.get(value)
            if index is not None:
                row[-1 if index == IGNORE_INDEX else index] += count

    def report(self) -> Report:
        """Return what was found, and what only shows when all files are known."""
        for path, problem in self._shared():
            self.problems.add(problem, path, f"in two splits, {path.parent}")
        for problem in (*self._one_class(), *self._no_labels()):
            self.problems.add(problem)
        for path, problem in self._other_palettes().items():
            self.problems.add(problem, path, problem.removeprefix(str(path)))
        notes = (*self._strays(), *self._absent())
        data, checksum = self.dataset, self.contents.hexdigest()[:16]
        problems, splits = self.problems.lines(), (data.train, data.val)
        return Report(problems, notes, checksum, data.classes, self.ids, self.pixels, *splits, data.made_of)

    def _strays(self) -> list[str]:
        """Add files of a folder data set that nothing would read to the problems, and return those that may be so."""
        if self.layout.public:
            return []
        root = self.layout.root
        further = [self.layout.unlabeled] if isinstance(self.layout, Folder) and self.layout.unlabeled else []
        problems, notes = stray_files.find_stray_files(root, self.ids, further, self.dataset.image_path)
        for problem in problems:
            self.problems.add(problem)
        return [note.replace(f"{root}{os.sep}", "") for note in notes]  # the same report wherever the data lie

    def _other_palettes(self) -> dict[Path, str]:
        """Return the labels whose color of a value is not that of most labels: the values stand for other classes."""
        found = dict[Path, list[str]]()
        for value, colors in sorted(self.palettes.items()):
            if self.layout.meaning.get(value) == IGNORE_INDEX:  # programs draw void in colors of their own
                continue
            usual = max(colors, key=lambda color: len(colors[color]))
            for color, paths in colors.items():
                for path in paths if color != usual else ():
                    said = f"{value} in {color}, and {len(colors[usual])} other labels in {usual}"
                    found.setdefault(path, []).append(said)
        return {
            path: f"{path} draws the value {'; '.join(said)}: the palettes disagree, so that one value stands for "
            "different classes; save the labels with one palette, or as gray, so that a value is a line of classes.txt"
            for path, said in sorted(found.items())
        }

    def _no_labels(self) -> Iterator[str]:
        """Say so if nothing can be learned, as no image of train has a label."""
        train = self.dataset.train
        paths = [self.dataset.label_path(train, name) for name in self.ids[train]]
        if paths and not any(map(_lies_there, paths)):
            yield f"none of the {len(paths)} images of {train!r} has a label, such as {paths[0]}: add some"

    def _absent(self) -> Iterator[str]:
        """Yield which classes no label shows, or none of train, where there are labels at all."""
        shown = {split: pixels[:, :-1].any(axis=0) for split, pixels in self.pixels.items()}
        anywhere, in_train = np.any(list(shown.values()), axis=0), shown[self.dataset.train]
        for where, absent in (("", ~anywhere), (f" of {self.dataset.train!r}", anywhere & ~in_train & in_train.any())):
            names = [repr(name) for name, is_absent in zip(self.dataset.classes, absent, strict=True) if is_absent]
            if names and anywhere.any():
                yield f"no label{where} shows {', '.join(names)}"

    def _shared(self) -> Iterator[tuple[Path, str]]:
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
                    other,
                    f"{other} of the split {second!r} is the same image as {one} of the split {first!r}: what is "
                    "learned from must not be scored on; remove it from one of them",
                )

    def _listed_twice(self, first: str, second: str) -> Iterator[tuple[Path, str]]:
        """Yield the ids that name one file in two splits."""
        for name in sorted(set(self.ids[first]).intersection(self.ids[second])):
            path = self.dataset.image_path(second, name)
            if path == self.dataset.image_path(first, name):
                yield (
                    path,
                    f"{path} is in the splits {first!r} and {second!r}: what is learned from must not be scored on; "
                    "get the lists from their authors again",
                )

    def _path(self, split: str, place: int) -> Path:
        """Return the file of an image that has been found before."""
        return self.dataset.image_path(split, self.ids[split][place])

    def _one_class(self) -> Iterator[str]:
        """Say so if no label of the whole data set holds anything but one class and perhaps void."""
        total = np.sum([counts.sum(axis=0) for counts in self.pixels.values()], axis=0)
        present = np.flatnonzero(total[:-1])
        if len(present) != 1:
            return
        split = next(s for s, counts in self.pixels.items() if counts.any())
        example = self.dataset.label_path(split, self.ids[split][int(self.pixels[split].any(axis=1).argmax())])
        if self.dataset.made_of:
            name = self.dataset.classes[int(present[0])]
            yield (
                f"{example} and all other labels hold nothing but {name!r} of the classes that dataset.classes makes: "
                'nothing is learned; add others to it, or "*" for all that is left'
            )
            return
        yield one_class(example, self.dataset.classes, int(present[0]), self.layout.meaning, bool(total[-1]))


VOID_COLORS = ((0, 0, 0), (224, 224, 192))
"""Colors that data sets draw void in."""


def in_colors(path: Path) -> str:
    """Say that a label is drawn in the colors of its data set."""
    return (
        f"{path} is drawn in the RGB colors of the classes, but a label is one class index per pixel: convert each "
        "color to its class index and save it as a gray or palette PNG of 8 bits"
    )


def one_class(example: Path, classes: tuple[str, ...], present: int, meaning: Mapping[int, int], has_void: bool) -> str:
    """Say that labels hold one class and perhaps void, and what that comes to; `example` is one of them."""
    value_of = {index: value for value, index in sorted(meaning.items(), reverse=True)}
    void = ", ".join(str(value) for value, index in sorted(meaning.items()) if index == IGNORE_INDEX)
    other = next(index for index in range(len(classes)) if index != present)
    only = f"{example} and all other labels hold nothing but {value_of[present]} ({classes[present]!r})"
    if not has_void:
        return f"{only}: every label would be right, and nothing is learned; see that the labels show all classes"
    return (
        f"{only} and void ({void}): void is ignored, so {classes[other]!r} would never be learned; if void marks the "
        f"foreground, write {value_of[other]} for it ({classes[other]!r})"
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
        return str(decoding.unreadable(error, Path(error.filename or root), "folder"))
    return str(error)
