"""Files of a folder data set that nothing would read: images that are left out, labels of no image. No torch.

Hidden files and folders are passed over, and so are lists and texts, unless one stands in place of a label.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rrn.data import file_formats

FEW = 5
"""Names that a message shows."""
OF_SYSTEMS = ("thumbs.db", "desktop.ini", "@eadir", "__macosx")
"""Names, in lower case, of what systems put beside the files of a user."""
WORDS = (
    "masks?|labels?|label_?ids|label_?train_?ids|instance_?ids|polygons|gt|gt_?fine|gt_?coarse|ground_?truth|seg|segm|"
    "segmentations?|segmentation_?class|annotations?|anno|annot|colou?rs?|colou?r_?masks?"
)
"""What names of labels have more than those of their images, in lower case."""
WORD = re.compile(rf"(?<=.)[-_. ]+({WORDS})([-_. ]?\d+)?$|^({WORDS})[-_. ]+(?=.)")
FOR_LABELS = re.compile(
    "labels?|masks?|annotations?|segmentations?|segmentation_?class(_?aug)?|gt|gt_?fine|ground_?truth"
)
"""Names, in lower case, of folders in which labels lie in other data sets."""
NO_PICTURES = re.compile(
    r"\.(jsonl?|geojson|txt|xml|csv|tsv|ya?ml|mat|np[zy]|pkl|pickle|h5|hdf5|pt|bin)", re.IGNORECASE
)
"""Endings of labels that are kept as lists, polygons and arrays."""


def find_stray_files(
    root: Path, ids: Mapping[str, Sequence[str]], further: Sequence[str], image_path: Callable[[str, str], Path]
) -> tuple[list[str], list[str]]:
    """Say which files of a folder data set nothing would read.

    Args:
        root: the data set.
        ids: split -> ids of its images.
        further: names of folders of images/ that are read besides.
        image_path: the file of an image, by its split and id.

    Returns:
        problems, and notes: what may be so.
    """
    problems = [line for name in (*ids, *further) for line in images_left_out(root / "images" / name)]
    notes = list[str]()
    for split, names in ids.items():
        labels = root / "labels" / split
        others = {name: other for other, more in ids.items() if other != split for name in more}
        named = [image_path(split, name) for name in called_as_labels(names, labels)]
        wrong, spare = labels_of_no_image(labels, names, others) if names else ([], [])
        problems += [*_among_images(named, labels), *wrong]
        notes += spare
    problems += labels_elsewhere(root, ids)
    return problems, [*notes, *folders_left_out(root, (*ids, *further))]


# ---- images


def images_left_out(folder: Path) -> Iterator[str]:
    """Say which pictures and videos in images/<split> and below are not read, and why."""
    groups = defaultdict[tuple[str, str], list[Path]](list)
    for path in _pictures(folder):
        if path.parent != folder:
            groups["subfolders are not read", "move them up, or away from images/"].append(path)
        elif not file_formats.has_suffix(path):
            groups[_unread(path)].append(path)
    for (reason, cure), paths in groups.items():
        yield f"{_counted(paths, 'image')} in {folder} would be left out, as {reason}: {_shown(paths, folder)}; {cure}"


def _unread(path: Path) -> tuple[str, str]:
    """Say why a picture with another ending is not read, and what to do."""
    name = file_formats.name_of_file(path)
    if name in file_formats.READ:
        ending = f"no image ends in {path.suffix!r}" if path.suffix else "they have no ending"
        return ending, f"{name} may end in .{name.split()[-1].lower()}"
    return f"{name} is not read", "save them as JPEG or PNG, or move them away"


def folders_left_out(root: Path, read: Iterable[str]) -> Iterator[str]:
    """Say which folders of images/ no split names, if pictures lie in them; `read` are the names of those that are."""
    images, known = root / "images", {*read}
    folders, files = _inside(images)
    if loose := [*filter(_is_picture, files)]:
        which = f"{_counted(loose, 'image')}, {_shown(loose, images)}"
        yield f"{images} itself is the folder of no split, and not read: {which}"
    for path in folders:
        if path.name not in known and (pictures := [*_pictures(path)]):
            yield f"{path} is the folder of no split, and not read: {_counted(pictures, 'image')}"


def called_as_labels(ids: Sequence[str], labels: Path) -> list[str]:
    """Return the ids that are those of another image and a word for labels, unless they have a label themselves."""
    known = {_folded(name) for name in ids}
    named = [name for name in ids if any(shorter in known for shorter in _without_words(_folded(name)))]
    return [name for name in named if not (labels / f"{name}.png").is_file()]


def _among_images(paths: Sequence[Path], labels: Path) -> Iterator[str]:
    """Say which images are called as labels of other images, for each folder."""
    for folder in dict.fromkeys(path.parent for path in paths):
        here = [path for path in paths if path.parent == folder]
        yield (
            f"{_counted(here, 'image')} in {folder}, called as labels of other images, would count as further images: "
            f"{_shown(here, folder)}; the label of an image is {labels}/<name of the image>.png: move them there, "
            "or away"
        )


# ---- labels


def labels_of_no_image(folder: Path, ids: Sequence[str], elsewhere: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Say which labels in labels/<split> and below belong to no image, and why.

    Args:
        folder: labels/<split>.
        ids: of the images of the split.
        elsewhere: id -> another split that has it.

    Returns:
        problems, and notes: labels of images that have another label, which is read.
    """
    read = {folder / f"{name}.png" for name in ids}
    strays = [path for path in _files(folder) if path not in read]
    names, groups = Names(ids if strays else (), elsewhere), defaultdict[tuple[str, bool], list[Path]](list)
    texts = [path for path in strays if NO_PICTURES.fullmatch(path.suffix) and names.has_no_label(path.stem, folder)]
    for path in filter(_is_picture, sorted({*strays} - {*texts})):
        name, reason = names.meant(path, folder)
        groups[reason, name is not None and (folder / f"{name}.png").is_file()].append(path)
    problems, notes = [*_no_pictures(texts, folder)], list[str]()
    for (reason, is_spare), paths in groups.items():
        which, shown = f"{_counted(paths, 'label')} in {folder}", _shown(paths, folder)
        if is_spare:
            notes.append(f"{which} not read, as their images have other labels: {shown}")
        else:
            problems.append(
                f"{which} without an image, as {reason}: {shown}; the label of an image is {folder}/<name of the "
                "image>.png: rename them, add their images, or move them away"
            )
    return problems, notes


def _no_pictures(paths: Sequence[Path], folder: Path) -> Iterator[str]:
    """Say which files stand where labels are missing, but are lists, polygons or arrays."""
    if paths:
        yield (
            f"{_counted(paths, 'file')} in {folder}, called as images without a label, are no pictures: "
            f"{_shown(paths, folder)}; convert them to PNG, {folder}/<name of the image>.png"
        )


def labels_elsewhere(root: Path, ids: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Say which pictures outside labels/<split> are called as images that have no label.

    Args:
        root: the data set.
        ids: split -> ids of its images.
    """
    places, groups = [*_elsewhere(root, ids)], defaultdict[tuple[Path, str], list[Path]](list)
    names = {split: Names(more if places else (), {}) for split, more in ids.items()}
    for folder, path, splits in places:
        wanting = (split for split in splits if names[split].has_no_label(path.stem, root / "labels" / split))
        if split := next(wanting, ""):
            groups[folder, split].append(path)
    for (folder, split), paths in groups.items():
        yield (
            f"{_counted(paths, 'label')} in {folder} not read, but called as images of the split {split!r} without a "
            f"label: {_shown(paths, folder)}; move them to {root / 'labels' / split}/<name of the image>.png, or away"
        )


def _elsewhere(root: Path, splits: Collection[str]) -> Iterator[tuple[Path, Path, Collection[str]]]:
    """Yield pictures in folders for labels that are not read: folder, picture, and the splits that it may be of."""
    labels = root / "labels"
    for place in _inside(root)[0]:
        if not FOR_LABELS.fullmatch(place.name.lower()):
            continue
        folders, files = _inside(place)
        yield from ((place, path, splits) for path in files if file_formats.is_called_picture(path))
        is_read = labels.is_dir() and place.samefile(labels)
        for folder in folders:
            if not (is_read and folder.name in splits):
                yield from _below(folder, splits, (root / "images" / folder.name).is_dir())


def _below(folder: Path, splits: Collection[str], has_images: bool) -> Iterator[tuple[Path, Path, Collection[str]]]:
    """Yield what `_elsewhere` does, of one folder; nothing if it belongs to a folder of images that no split names."""
    if folder.name in splits or not has_images:
        of = (folder.name,) if folder.name in splits else splits
        yield from ((folder, path, of) for path in _files(folder) if file_formats.is_called_picture(path))


class Names:
    """Which image of a split a label was meant for.

    Args:
        ids: of its images.
        elsewhere: id -> another split that has it.
    """

    def __init__(self, ids: Sequence[str], elsewhere: Mapping[str, str]) -> None:
        self.ids, self.elsewhere = frozenset(ids), elsewhere
        self.composed = {_composed(name): name for name in ids}
        self.folded = {_folded(name): name for name in ids}
        self.unpadded: dict[str, str | None] = {}
        for name in ids:
            short = _unpadded(_folded(name))
            self.unpadded[short] = None if short in self.unpadded else name  # None: of several
        self.parts: dict[str, tuple[str, str] | None] = {}
        for name in ids:
            for part, rest in _parts(_folded(name)):
                self.parts[part] = None if part in self.parts else (name, rest)  # None: of several

    def meant(self, path: Path, folder: Path) -> tuple[str | None, str]:
        """Return the id that a label was meant for, or None, and what keeps it from being read."""
        name = path.stem
        if path.parent != folder:
            return (name if name in self.ids else None), "subfolders are not read"
        if name in self.ids:
            return name, _misnamed(path)
        if name in self.elsewhere:
            return None, f"their images lie in images/{self.elsewhere[name]}"
        if found := self.composed.get(_composed(name)):
            return found, "their names are written in another Unicode form (NFC, NFD) than those of the images"
        if found := self.folded.get(_folded(name)):
            return found, "their names differ from those of the images in letter case"
        if (found := self.unpadded.get(_unpadded(_folded(name)))) and not (folder / f"{found}.png").is_file():
            return found, "their names differ from those of the images in the zeros before a number"
        for part, rest in _parts(_folded(name)):
            if found := self.folded.get(part):
                return found, f"their names have {rest!r} more than those of the images"
        for part, rest in _parts(_folded(name)):
            if known := self.parts.get(part):
                return known[0], f"their names have {rest!r} where those of the images have {known[1]!r}"
        return None, "no image has their name"

    def has_no_label(self, name: str, folder: Path) -> bool:
        """Tell whether an image of this name, perhaps without its ending or words for labels, lacks a label."""
        whole = Path(name).stem if file_formats.has_suffix(Path(name)) else name
        spellings = (_folded(whole), *_without_words(_folded(whole)))
        found = next((self.folded[spelling] for spelling in spellings if spelling in self.folded), None)
        return found is not None and not os.path.lexists(folder / f"{found}.png")


def _misnamed(path: Path) -> str:
    """Say why a label with the name of an image is not read."""
    if path.suffix.lower() in (".jpg", ".jpeg"):
        return f"they end in {path.suffix!r} (a JPEG does not keep values: export them anew as PNG)"
    return f"they end in {path.suffix!r} in place of '.png'" if path.suffix else "they have no ending"


def _composed(name: str) -> str:
    """Return a name in the Unicode form NFC."""
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    """Return a name without what letter case and Unicode forms make of it."""
    return _composed(name).casefold()


def _unpadded(name: str) -> str:
    """Return a name whose numbers have no zeros before them."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", name)


def _without_words(name: str) -> Iterator[str]:
    """Yield what is left of a name in lower case as words for labels are taken away, one after another."""
    while (shorter := WORD.sub("", name, count=1)) != name:
        yield shorter
        name = shorter


def _parts(name: str) -> Iterator[tuple[str, str]]:
    """Yield beginnings and ends of a name, longest first, each with the rest; no number and no word is cut."""
    for length in range(len(name) - 1, 0, -1):
        for at, part, rest in ((length, name[:length], name[length:]), (-length, name[-length:], name[:-length])):
            before, behind = name[at - 1], name[at]
            if not (before.isdigit() and behind.isdigit()) and not (before.isalpha() and behind.isalpha()):
                yield part, rest


# ---- both


def _pictures(folder: Path) -> Iterator[Path]:
    """Yield the pictures and videos in a folder and below, sorted."""
    return filter(_is_picture, _files(folder))


def _is_picture(path: Path) -> bool:
    """Tell whether a file is a picture or video, or called as an image."""
    return file_formats.has_suffix(path) or bool(file_formats.name_of_file(path))


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and below, sorted, behind links too; nothing that is hidden, or of a system."""
    seen = {*map(str, Path(os.path.realpath(folder)).parents)}  # a link to one of them would lead round in circles
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = sorted(name for name in folders if not _is_hidden(name)) if real not in seen else []
        yield from (Path(place, name) for name in sorted(files) if real not in seen and not _is_hidden(name))
        seen.add(real)


def _inside(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders and the files in a folder, sorted; nothing that is hidden, or of a system."""
    _, *both = next(os.walk(folder), ("", [], []))
    folders, files = ([folder / name for name in sorted(names) if not _is_hidden(name)] for names in both)
    return folders, files


def _is_hidden(name: str) -> bool:
    """Tell whether a file or folder is not the user's."""
    return name.startswith(".") or name.lower() in OF_SYSTEMS


def _counted(paths: Sequence[Path], what: str) -> str:
    """Return a number and what it counts."""
    return f"{len(paths)} {what}{'s' if len(paths) > 1 else ''}"


def _shown(paths: Sequence[Path], folder: Path) -> str:
    """Return some names of files, below their folder."""
    more = f" and {len(paths) - FEW} more" if len(paths) > FEW else ""
    return ", ".join(str(path.relative_to(folder)) for path in paths[:FEW]) + more
