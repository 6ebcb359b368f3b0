"""Which files are labeled, and what each is called in OUT."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rrn.data import file_formats
from rrn.data.decoding import DataError

VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp")
"""Endings of videos, which may be written in any letter case."""
ENDINGS = f"images end in {', '.join(file_formats.SUFFIXES)}, videos in {', '.join(VIDEOS)}"
NAMED = 10
"""Files that are left out, at most."""


def is_video(path: Path) -> bool:
    """Tell whether a file is called as a video."""
    return path.suffix.lower() in VIDEOS


def find_files(paths: Sequence[Path], out: Path) -> dict[str, Path]:
    """Find images and videos, and give each a name of its own.

    Args:
        paths: files, taken whatever their suffix, and folders, searched with all their subfolders for files that are
            called as images or videos; hidden files and folders are left out.
        out: folder of the results; what lies in it is not labeled.

    Returns:
        name -> file, sorted: the path below the folder that holds all `paths`, without suffix; where two have the same
        name without it, both keep it, and so does a video beside a folder of its name, in which its frames would lie.

    Raises:
        DataError: a path does not exist or lies in `out`, or there is nothing to label.
    """
    out, places, found = out.resolve(), [], set()
    for path in paths:
        place = path.resolve() if path.is_dir() else path.parent.resolve()
        if not path.exists():
            raise DataError(f"there is no file or folder {path}: name images, videos, or folders of them")
        if place.is_relative_to(out):
            raise DataError(f"{path} lies in {out}, where the results go: name another folder for them")
        places.append(place)
        found |= set(filter(_is_called_so, _files(place, out))) if path.is_dir() else {place / path.name}
    if not found:
        raise DataError(f"no image or video in {', '.join(map(str, paths))}: {ENDINGS}")
    common = Path(os.path.commonpath(places))
    return _named({path.relative_to(common): path for path in sorted(found)})


def _named(files: Mapping[Path, Path]) -> dict[str, Path]:
    taken = Counter(str(path.with_suffix("")) for path in files) + Counter(map(str, files))
    taken.update(str(folder) for path in files for folder in path.parents)
    bare = {path: str(path.with_suffix("")) for path in files}
    return {bare[path] if taken[bare[path]] == 1 else str(path): file for path, file in files.items()}


def left_out(paths: Sequence[Path], out: Path) -> str:
    """Say which files in folders `find_files` leaves out for their suffix; empty if none."""
    folders = [path.resolve() for path in paths if path.is_dir()]
    files = {file.relative_to(folder) for folder in folders for file in _files(folder, out.resolve())}
    others = sorted(file for file in files if not _is_called_so(file))
    named = ", ".join(map(str, others[:NAMED])) + (" ..." if len(others) > NAMED else "")
    return f"{len(others)} {'file' if len(others) == 1 else 'files'} left out: {named} ({ENDINGS})" if others else ""


def _is_called_so(path: Path) -> bool:
    return file_formats.has_suffix(path) or is_video(path)


def _files(folder: Path, out: Path) -> set[Path]:
    files = {path for path in folder.rglob("*") if path.is_file() and not path.is_relative_to(out)}
    return {path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)}


def require_free(out: Path, force: bool) -> None:
    """Refuse a folder of results in which something lies, unless the user wants files replaced.

    Raises:
        DataError: it is a file, or holds something.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; the last argument is the folder for the results")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise DataError(f"{out} is not empty: name a new folder, or give --force to replace files of the same name")
