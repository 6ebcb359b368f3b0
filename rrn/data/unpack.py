"""Archives -> folders, safely: every member is looked at before the first is written. No torch.

An archive is unpacked into a hidden folder beside it, and its files are moved from there when all are
whole; an interrupted unpacking leaves no half file where data are read, and the next one begins anew.
"""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from tqdm import tqdm

from rrn.data.archives import Archive, refuse_web_page
from rrn.data.files import DataError

UNREADABLE = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error)
"""What tarfile, gzip and zipfile raise for archives that are none, broken or incomplete."""


def unpack(path: Path, archive: Archive, destination: Path) -> None:
    """Bring the files below the folder `archive.inside` of an archive to `destination`.

    Files that are there already are replaced by those of the archive; others stay.

    Raises:
        DataError: the archive is none, is incomplete, or a member would leave the folder; or it lacks that folder.
    """
    refuse_web_page(path, str(path))
    staging = path.with_name(f".{path.name}.unpacking")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        _extract(path, archive, staging)
        _move(staging / archive.inside, destination)
    except UNREADABLE as error:
        raise DataError(
            f"{path} is no archive or an incomplete one ({error}); delete it and run the command again"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _extract(path: Path, archive: Archive, staging: Path) -> None:
    """Extract the wanted members of a zip or tar archive, after a look at all."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as zipped:
            infos = zipped.infolist()
            for info in infos:
                _require_safe_zip(info, path)
            wanted = _wanted([info.filename for info in infos], archive, path)
            for name in tqdm(wanted, desc=path.name, unit=" files"):
                zipped.extract(name, staging)
        return
    with tarfile.open(path) as tar:
        members = {member.name: member for member in tar}
        for member in members.values():
            _require_safe_tar(member, path, staging)
        for name in tqdm(_wanted(list(members), archive, path), desc=path.name, unit=" files"):
            tar.extract(members[name], staging, filter="data")


def _wanted(names: list[str], archive: Archive, path: Path) -> list[str]:
    """Return the members below the wanted folders and files of an archive."""
    inside = PurePosixPath(archive.inside)
    places = [inside / part for part in archive.only] or [inside]
    found = [name for name in names if any(PurePosixPath(name).is_relative_to(place) for place in places)]
    if not found:
        raise DataError(f"{path} holds no folder {inside}: it is another archive; delete it and run the command again")
    return found


def _require_safe_zip(member: zipfile.ZipInfo, path: Path) -> None:
    """Refuse a member of a zip archive that leaves the folder or is neither file nor folder."""
    _require_inside(member.filename, path)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DataError(_refusal(path, member.filename, "it is a link or a device"))


def _require_safe_tar(member: tarfile.TarInfo, path: Path, staging: Path) -> None:
    """Refuse a member of a tar archive that leaves the folder, itself or as a link, or is a device."""
    _require_inside(member.name, path)
    try:
        tarfile.data_filter(member, str(staging))
    except tarfile.FilterError as error:
        raise DataError(_refusal(path, member.name, str(error))) from error


def _require_inside(name: str, path: Path) -> None:
    """Refuse the absolute path of a member, on any system, and one with `..`."""
    forms = (PurePosixPath(name), PureWindowsPath(name))
    if any(form.anchor or ".." in form.parts for form in forms):
        raise DataError(_refusal(path, name, "its path leaves the folder"))


def _refusal(path: Path, name: str, reason: str) -> str:
    """Say which member was refused."""
    return f"{path}: the member {name!r} is refused ({reason}); nothing was unpacked; get the archive from its authors"


def _move(source: Path, destination: Path) -> None:
    """Move all files of a folder, in the order of their names, into another, which may have files already."""
    for path in sorted(source.rglob("*")):
        if not path.is_dir():
            target = destination / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
