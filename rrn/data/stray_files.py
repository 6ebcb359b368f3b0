"""Files of a folder data set that nothing would read: images that are left out, labels of no image. No torch.

Hidden files and folders, and what is neither picture nor video (lists, texts, annotations), are passed over.
"""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rrn.data import file_formats

FEW = 5
"""Names that a message shows."""
OF_SYSTEMS = ("thumbs.db", "desktop.ini", "@eadir", "__macosx")
"""Names, in lower case, of what systems put beside the files of a user."""


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
        return f"no image ends in {path.suffix!r}", f"{name} may end in .{name.split()[-1].lower()}"
    return f"{name} is not read", "save them as JPEG or PNG, or move them away"


def folders_left_out(root: Path, read: Iterable[str]) -> Iterator[str]:
    """Say which folders of images/ no split names, if pictures lie in them; `read` are the names of those that are."""
    images, known = root / "images", {*read}
    for path in sorted(images.iterdir()) if images.is_dir() else ():
        if path.is_dir() and path.name not in known and not _is_hidden(path.name) and (found := [*_pictures(path)]):
            yield f"{path} is the folder of no split, and not read: {_counted(found, 'image')}"


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
    strays = [path for path in _pictures(folder) if path not in read]
    names, groups = Names(ids if strays else (), elsewhere), defaultdict[tuple[str, bool], list[Path]](list)
    for path in strays:
        name, reason = names.meant(path, folder)
        groups[reason, name is not None and (folder / f"{name}.png").is_file()].append(path)
    problems, notes = list[str](), list[str]()
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
        for part, rest in _parts(_folded(name)):
            if found := self.folded.get(part):
                return found, f"their names have {rest!r} more than those of the images"
        for part, rest in _parts(_folded(name)):
            if known := self.parts.get(part):
                return known[0], f"their names have {rest!r} where those of the images have {known[1]!r}"
        return None, "no image has their name"


def _misnamed(path: Path) -> str:
    """Say why a label with the name of an image is not read."""
    if path.suffix.lower() in (".jpg", ".jpeg"):
        return f"they end in {path.suffix!r} (a JPEG does not keep values: export them anew as PNG)"
    return f"they end in {path.suffix!r} in place of '.png'"


def _composed(name: str) -> str:
    """Return a name in the Unicode form NFC."""
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    """Return a name without what letter case and Unicode forms make of it."""
    return _composed(name).casefold()


def _parts(name: str) -> Iterator[tuple[str, str]]:
    """Yield beginnings and ends of a name, longest first, each with the rest; no number and no word is cut."""
    for length in range(len(name) - 1, 0, -1):
        for at, part, rest in ((length, name[:length], name[length:]), (-length, name[-length:], name[:-length])):
            before, behind = name[at - 1], name[at]
            if not (before.isdigit() and behind.isdigit()) and not (before.isalpha() and behind.isalpha()):
                yield part, rest


# ---- both


def _pictures(folder: Path) -> Iterator[Path]:
    """Yield the pictures and videos in a folder and below, sorted; nothing that is hidden, or of a system."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        for name in sorted(files):
            path = Path(place, name)
            if not _is_hidden(name) and (file_formats.has_suffix(path) or file_formats.name_of_file(path)):
                yield path


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
