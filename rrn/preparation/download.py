"""VOC 2012 with SBD, CamVid and Cityscapes, each brought to the layout that is read. No torch.

What is finished is recognised by its files and left alone; what is not is finished.
"""

from __future__ import annotations

from pathlib import Path

from rrn.data.decoding import DataError, read_list
from rrn.data.formats import cityscapes as city
from rrn.data.formats import voc
from rrn.data.image_set import listed
from rrn.preparation import sbd
from rrn.preparation.archives import Record, fetch
from rrn.preparation.unpack import unpack
from rrn.runtime import atomic_io


def obtain_voc(root: Path, record: Record) -> None:
    """Fetch VOC 2012, unpack it, add the labels of SBD and the list train_aug.txt.

    Where a folder SegmentationClassAug is complete, as the community passes it around, SBD is not needed.

    Raises:
        DataError: see `archives.fetch`, `unpack.unpack`, `sbd.convert`; or a list has another length than known.
    """
    place = voc.voc_folder(root) or root / "VOCdevkit" / "VOC2012"
    archive = record.files["voc"]
    if _incomplete_voc(place, record):
        unpack(fetch(archive, root), archive, place)
        if wrong := _incomplete_voc(place, record):
            raise DataError(f"{wrong}, though {archive.name} was unpacked; delete {place} and run the command again")
    if len(sbd.train_images(place)) < record.counts["train_aug"]:
        _add_sbd(root, place, record)
    _write_list(place, record.counts["train_aug"])


def obtain_camvid(root: Path, record: Record) -> None:
    """Fetch CamVid in the layout of the SegNet tutorial and unpack it.

    Raises:
        DataError: see `archives.fetch`, `unpack.unpack`; or the splits are not as large as known.
    """
    place = root if (root / "trainannot").is_dir() else root / "CamVid"
    archive = record.files["camvid"]
    if _incomplete_camvid(place, record):
        unpack(fetch(archive, root), archive, place)
        if wrong := _incomplete_camvid(place, record):
            raise DataError(f"{wrong}, though {archive.name} was unpacked; delete {place} and run the command again")


def obtain_cityscapes(root: Path, record: Record) -> None:
    """Unpack the two archives of Cityscapes that lie in `root`.

    Raises:
        DataError: they do not lie there; see `unpack.unpack`; or the splits are not as large as known.
    """
    needed = [name for name in record.files if _incomplete_cityscapes(root, name, record)]
    missing = [record.files[name] for name in needed if not (root / record.files[name].name).is_file()]
    if missing:
        raise DataError(
            f"Cityscapes has no public download. Make an account, get {' and '.join(a.name for a in missing)} from "
            f"{missing[0].url}, put it into {root}, and run `python -m rrn.data cityscapes --root {root}` again"
        )
    for name in needed:
        archive = record.files[name]
        unpack(fetch(archive, root), archive, root / name)
        if wrong := _incomplete_cityscapes(root, name, record):
            raise DataError(f"{wrong}, though {archive.name} was unpacked: delete it and download it again")


def _add_sbd(root: Path, place: Path, record: Record) -> None:
    """Fetch SBD unless it is unpacked, which ends with val.txt, and write those labels as PNG that are not there."""
    sbd.matlab_reader()
    archive = record.files["sbd"]
    source = root / "SBD"
    own = {name for split in ("train", "val") for name in _list(place, split)}
    if not (source / "val.txt").is_file():
        unpack(fetch(archive, root), archive, source)
    sbd.convert(source, place, own)


def _write_list(place: Path, expected: int) -> None:
    """Write train_aug.txt, unless a list of the same ids is there."""
    ids = sbd.train_images(place)
    if len(ids) != expected:
        raise DataError(
            f"{place} has labels of {len(ids)} train images, expected {expected}; delete "
            f"{place / voc.FURTHER} and run the command again"
        )
    images = {path.stem for path in (place / "JPEGImages").glob("*.jpg")}
    if absent := sorted(set(ids) - images):
        raise DataError(f"{place / 'JPEGImages'} lacks {len(absent)} of the train images:{listed(absent)}")
    paths = [place / voc.LISTS / f"{name}.txt" for name in voc.TRAIN_AUG]
    path = next((path for path in paths if path.is_file()), paths[0])
    if not path.is_file():
        atomic_io.write(path, "".join(f"{name}\n" for name in ids))
    elif set(read_list(path, "")) != set(ids):
        raise DataError(f"{path} lists other images than those with labels; delete it and run the command again")


def _list(place: Path, split: str) -> list[str]:
    """Return the ids of a list of VOC."""
    return read_list(place / voc.LISTS / f"{split}.txt", voc.HINT)


def _incomplete_voc(place: Path, record: Record) -> str | None:
    """Say what VOC's own train and val lack; None if nothing."""
    for split in ("train", "val"):
        path = place / voc.LISTS / f"{split}.txt"
        if not path.is_file():
            return f"the list {path} is missing"
        ids = _list(place, split)
        if len(ids) != record.counts[split]:
            return f"{path} lists {len(ids)} images, expected {record.counts[split]}"
        for folder, suffix in (("JPEGImages", "jpg"), (voc.FINE, "png")):
            absent = set(ids) - {file.stem for file in (place / folder).glob(f"*.{suffix}")}
            if absent:
                return f"{place / folder} lacks {len(absent)} files of {split}, such as {min(absent)}.{suffix}"
    return None


def _incomplete_camvid(place: Path, record: Record) -> str | None:
    """Say which split of CamVid is not as it must be; None if none is.

    Labels that an archive calls trainannot_00001.png, their images train_00001.png, are given the names of the images.
    """
    for split, expected in record.counts.items():
        for path in sorted((place / f"{split}annot").glob(f"{split}annot_*.png")):
            path.replace(path.with_name(path.name.replace(f"{split}annot_", f"{split}_")))
        images, labels = sbd.stems(place / split), sbd.stems(place / f"{split}annot")
        if len(images) != expected or images != labels:
            pairs = len(images & labels)
            return f"{place / split} has {len(images)} images, {pairs} of them with labels, expected {expected}"
    return None


def _incomplete_cityscapes(root: Path, name: str, record: Record) -> str | None:
    """Say which split of leftImg8bit or gtFine is not as large as known; None if none is."""
    ending = city.IMAGE if name == "leftImg8bit" else city.LABEL.format(kind="labelIds")
    for split, expected in record.counts.items():
        folder = root / name / split
        found = len(list(folder.glob(f"*/*{ending}")))
        if found != expected:
            return f"{folder} has {found} files */*{ending}, expected {expected}"
    return None
