"""The command line of imports: `python -m rrn.data import KIND SOURCE DIR`. No torch."""

from __future__ import annotations

import argparse
import re
import shlex
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from rrn.annotations import assignment, writing
from rrn.annotations.coco import read_coco
from rrn.annotations.label_studio import read_label_studio
from rrn.annotations.masks import read_colors, read_cvat, read_labelme
from rrn.annotations.roboflow import read_roboflow
from rrn.annotations.source import Annotated, Source, distinct, split_name
from rrn.data.decoding import DataError
from rrn.runtime.places import place

READ = {
    "coco": read_coco,
    "cvat": read_cvat,
    "labelme": read_labelme,
    "roboflow": read_roboflow,
    "label-studio": read_label_studio,
    "colors": read_colors,
}
"""What exports are called on the command line, and what reads them."""
OF_ONE_KIND = {"colors": "colors", "tasks": "label-studio"}
"""Options that name a file of one kind."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `import`."""
    command.add_argument("kind", choices=READ, help="what wrote it")
    command.add_argument("source", type=place, metavar="SOURCE", help="the unpacked export; of coco, its JSON file too")
    command.add_argument("out", type=place, metavar="DIR", help="a new folder for the data set")
    command.add_argument("--images", type=place, metavar="DIR", help="where the images are, if not in the export")
    command.add_argument("--colors", type=place, metavar="FILE", help="of colors: lines name,red,green,blue")
    command.add_argument("--tasks", type=place, metavar="FILE", help="of label-studio: the JSON or JSON-MIN export")
    how = command.add_mutually_exclusive_group()
    how.add_argument("--split", type=_shares, metavar="NAME=SHARE,...", help="by chance, as train=0.8,val=0.2")
    how.add_argument("--lists", type=place, metavar="DIR", help="by train.txt, val.txt, ... of ids")
    command.add_argument(
        "--group", type=_pattern, metavar="PATTERN", help="ids in which it finds the same stay together"
    )
    command.add_argument("--seed", type=_seed, default=0, help="of --split (default: 0)")
    command.add_argument(
        "--void", action="append", default=[], metavar="CLASS", help="a class that is none; repeatable"
    )
    command.add_argument(
        "--empty", choices=("background", "unlabeled"), help="what images are on which nothing is drawn: all background"
    )
    command.add_argument(
        "--exif",
        choices=("apply", "ignore"),
        default="refuse",
        help="of images that are stored rotated: labels lie on them as they are seen, or as they are stored",
    )
    command.add_argument("--link", action="store_true", help="link images instead of copying them")


def _shares(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        name = split_name(name.strip())
        try:
            found[name] = float(share) if name not in found and re.fullmatch(r"\w[\w.-]*", name) else float("")
        except ValueError:
            message = f"{part!r} is no NAME=SHARE of its own, such as train=0.8,val=0.2"
            raise argparse.ArgumentTypeError(message) from None
    return found


def _pattern(text: str) -> re.Pattern[str]:
    if not text:
        raise argparse.ArgumentTypeError("the pattern is empty; is a variable not set?")
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression ({error})") from error


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0")
    return int(text)


def run_import(arguments: argparse.Namespace) -> None:
    """Import what a tool exported, and say what came of it.

    Raises:
        DataError: what is wrong, and what to do.
        OSError: the disk is full, or a folder cannot be written.
    """
    out = arguments.out.resolve()
    source = _read(arguments, out)
    splits = _splits(source, arguments)
    table = writing.write_data_set(source, splits, out, arguments.void, arguments.link, arguments.exif)
    print(table.to_string(index=False, float_format="{:.2f}".format))
    print("(classes and void: per cent of the labeled pixels)")
    other = "" if "test" in set(splits.values()) else " dataset.test=val"
    other += "" if arguments.exif == "refuse" else f" dataset.exif={arguments.exif}"
    where = shlex.quote(f"dataset.path={out}")
    print(f"next: python -m rrn.preset name=mine {where}{other}, then python -m rrn.data verify")


def _read(arguments: argparse.Namespace, out: Path) -> Source:
    """Read the export, and say of every image whether it is labeled."""
    path = arguments.source.resolve()
    images = arguments.images.resolve() if arguments.images else None
    _require_places(path, images, out)
    read = READ[arguments.kind]
    for option, kind in OF_ONE_KIND.items():
        file: Path | None = getattr(arguments, option)
        if file and kind != arguments.kind:
            raise DataError(f"--{option} is not for {arguments.kind}")
        if file:
            read = partial(read, **{option: file.resolve()})
    source = read(path, images)
    return Source(source.classes, _labeled(distinct(source.images), arguments.empty))


def _require_places(source: Path, images: Path | None, out: Path) -> None:
    if not source.exists():
        raise DataError(f"there is no {source}")
    if source.is_file() and zipfile.is_zipfile(source):
        raise DataError(f"{source} is an archive: unpack it, and name the folder")
    for folder in (source, images):
        if folder and out.is_relative_to(folder):
            raise DataError(f"{out} lies in {folder}, whose images it would join: name another folder")


def _labeled(images: tuple[Annotated, ...], empty: str | None) -> tuple[Annotated, ...]:
    """Decide what images are on which nothing is drawn."""
    nothing = [image for image in images if image.empty]
    if nothing and empty is None:
        raise DataError(
            f"nothing is drawn on {nothing[0].image} ({len(nothing)} such): say whether such images are all "
            "background, --empty background, or nobody has labeled them yet, --empty unlabeled"
        )
    return tuple(replace(image, draw=None) if image.empty and empty == "unlabeled" else image for image in images)


def _splits(source: Source, arguments: argparse.Namespace) -> dict[str, str]:
    if arguments.group and not arguments.split:
        raise DataError("--group is about --split: say the shares, as --split train=0.8,val=0.2")
    if arguments.split:
        return assignment.by_share(source.images, arguments.split, arguments.group, arguments.seed)
    if arguments.lists:
        return assignment.by_lists(source.images, arguments.lists.resolve())
    return assignment.as_exported(source.images)
