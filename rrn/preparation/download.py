"""VOC 2012 with SBD, CamVid and Cityscapes, each brought to the layout that is read. No torch.

What is finished is recognized by its files and left alone; what is not is finished.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from rrn.data.decoding import DataError
from rrn.data.formats import cityscapes as city
from rrn.data.formats import voc
from rrn.data.id_lists import read_list
from rrn.preparation import sbd
from rrn.preparation.archives import Archive, Record, fetch_archive, unpack
from rrn.runtime import atomic_io


def obtain_voc(root: Path, archives: Path, record: Record) -> None:
    """Unpack VOC 2012, add the labels of SBD and the list train_aug.txt.

    Where a folder SegmentationClassAug is complete, as the community passes it around, SBD is not needed.

    Args:
        root: folder of the data set.
        archives: folder where the archives lie, or are downloaded to.
        record: what is known of the archives and the splits.

    Raises:
        DataError: see `fetch_archive`, `unpack`, `sbd.convert`; or a list has another length than known.
        OSError: the disk is full, or a folder cannot be written.
    """
    place = voc.voc_folder(root) or root / "VOCdevkit" / "VOC2012"
    _require(partial(_missing_voc, place, record), record.files["voc"], archives, place)
    if len(sbd.train_images(place)) < record.counts["train_aug"]:
        archive, source = record.files["sbd"], root / "SBD"
        if not (source / "val.txt").is_file():  # the last file of SBD that is unpacked
            unpack(fetch_archive(archive, archives), archive, source)
        sbd.convert(source, place)
    _write_list(place, record.counts["train_aug"])


def obtain_camvid(root: Path, archives: Path, record: Record) -> None:
    """Unpack CamVid in the layout of the SegNet tutorial; arguments and errors as of `obtain_voc`."""
    place = root if (root / "trainannot").is_dir() else root / "CamVid"
    _require(partial(_missing_camvid, place, record), record.files["camvid"], archives, place)


def obtain_cityscapes(root: Path, archives: Path, record: Record) -> None:
    """Unpack the two archives of Cityscapes, which lie in `archives`; arguments and errors as of `obtain_voc`."""
    needed = [name for name in record.files if _missing_cityscapes(root, name, record)]
    absent = [record.files[name] for name in needed if not (archives / record.files[name].name).is_file()]
    if absent:
        raise DataError(
            f"Cityscapes has no public download. Make an account, get {' and '.join(a.name for a in absent)} from "
            f"{absent[0].url}, put it into {archives}, and run the command again"
        )
    for name in needed:
        _require(partial(_missing_cityscapes, root, name, record), record.files[name], archives, root / name)


def _require(missing: Callable[[], str | None], archive: Archive, archives: Path, place: Path) -> None:
    """Fetch and unpack an archive to `place` if that lacks something; `missing` says what."""
    if missing() is None:
        return
    unpack(fetch_archive(archive, archives), archive, place)
    if wrong := missing():
        raise DataError(
            f"{wrong}, though {archive.name} was unpacked; delete {place} and {archives / archive.name}, and run the "
            "command again"
        )


def _write_list(place: Path, expected: int) -> None:
    """Write train_aug.txt, unless a list of the same ids is there."""
    ids = sbd.train_images(place)
    if len(ids) != expected:
        raise DataError(
            f"{place} has labels of {len(ids)} train images, expected {expected}; delete "
            f"{place / voc.FURTHER} and run the command again"
        )
    paths = [place / voc.LISTS / f"{name}.txt" for name in voc.TRAIN_AUG]
    path = next((path for path in paths if path.is_file()), paths[0])
    if not path.is_file():
        atomic_io.write(path, "".join(f"{name}\n" for name in ids))
    elif set(read_list(path, "")) != set(ids):
        raise DataError(f"{path} lists other images than those with labels; delete it and run the command again")


def _missing_voc(place: Path, record: Record) -> str | None:
    """Say what VOC's own train and val lack; None if nothing."""
    for split in ("train", "val"):
        path = place / voc.LISTS / f"{split}.txt"
        ids = read_list(path, voc.HINT) if path.is_file() else []
        if len(ids) != record.counts[split]:
            return f"{path} lists {len(ids)} images, expected {record.counts[split]}"
        for folder, suffix in (("JPEGImages", "jpg"), (voc.FINE, "png")):
            if absent := set(ids) - {file.stem for file in (place / folder).glob(f"*.{suffix}")}:
                return f"{place / folder} lacks {len(absent)} files of {split}, such as {min(absent)}.{suffix}"
    return None


def _missing_camvid(place: Path, record: Record) -> str | None:
    """Say which split of CamVid is not as it must be; None if none is.

    Labels that an archive calls trainannot_00001.png, their images train_00001.png, are given the names of the images.
    """
    for split, expected in record.counts.items():
        for path in (place / f"{split}annot").glob(f"{split}annot_*.png"):
            path.replace(path.with_name(path.name.replace(f"{split}annot_", f"{split}_")))
        images, labels = sbd.stems(place / split), sbd.stems(place / f"{split}annot")
        if len(images) != expected or images != labels:
            pairs = len(images & labels)
            return f"{place / split} has {len(images)} images, {pairs} of them with labels, expected {expected}"
    return None


def _missing_cityscapes(root: Path, name: str, record: Record) -> str | None:
    """Say which split of leftImg8bit or gtFine is not as large as known; None if none is."""
    ending = city.IMAGE if name == "leftImg8bit" else city.LABEL.format(kind="labelIds")
    for split, expected in record.counts.items():
        found = len(list((root / name / split).glob(f"*/*{ending}")))
        if found != expected:
            return f"{root / name / split} has {found} files */*{ending}, expected {expected}"
    return None
