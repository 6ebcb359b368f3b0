"""The command line of imports: `python -m rrn.data import KIND SOURCE DIR`. No torch."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from rrn.annotations import assignment, writing
from rrn.annotations.coco import read_coco
from rrn.annotations.label_studio import read_label_studio
from rrn.annotations.masks import read_colors, read_cvat, read_labelme
from rrn.annotations.roboflow import read_roboflow
from rrn.annotations.source import Source
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
OPTIONS = {"colors": "colors", "label-studio": "tasks"}
"""Kinds that have a file of their own, and the option that names it."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `import`."""
    command.add_argument("kind", choices=READ, help="what wrote it")
    command.add_argument("source", type=place, metavar="SOURCE", help="the unpacked export; of coco, its JSON file too")
    command.add_argument("out", type=place, metavar="DIR", help="a new folder for the data set")
    command.add_argument("--images", type=place, metavar="DIR", help="where the images are, if not in the export")
    command.add_argument("--colors", type=place, metavar="FILE", help="of colors: lines name,red,green,blue")
    command.add_argument("--tasks", type=place, metavar="FILE", help="of label-studio: the JSON or JSON-MIN export")
    how = command.add_mutually_exclusive_group()
    how.add_argument("--split", nargs="+", type=_share, metavar="NAME=SHARE", help="by chance, as train=0.8 val=0.2")
    how.add_argument("--lists", type=place, metavar="DIR", help="by train.txt, val.txt, ... of ids")
    command.add_argument("--group", metavar="PATTERN", help="ids in which it finds the same go into one split")
    command.add_argument("--seed", type=int, default=0, help="of --split (default: 0)")
    command.add_argument("--void", nargs="+", default=[], metavar="CLASS", help="classes that are none")
    command.add_argument("--link", action="store_true", help="link images instead of copying them")


def _share(text: str) -> tuple[str, float]:
    name, _, share = text.partition("=")
    try:
        return name, float(share)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=SHARE, such as train=0.8") from None


def run_import(arguments: argparse.Namespace) -> None:
    """Import what a tool exported, and say what came of it.

    Raises:
        DataError: what is wrong, and what to do.
        OSError: the disk is full, or a folder cannot be written.
    """
    source = _read(arguments)
    splits = _splits(source, arguments)
    table = writing.write_data_set(source, splits, arguments.out.resolve(), arguments.void, arguments.link)
    print(table.to_string(index=False, float_format="{:.2f}".format))
    print("(classes and void: per cent of the labeled pixels)")
    print(
        f"next: python -m rrn.preset name=mine dataset.path={arguments.out.resolve()}, then python -m rrn.data verify"
    )


def _read(arguments: argparse.Namespace) -> Source:
    read = READ[arguments.kind]
    for option in OPTIONS.values():
        value: Path | None = getattr(arguments, option)
        if value and OPTIONS.get(arguments.kind) != option:
            raise DataError(f"--{option} is not for {arguments.kind}")
        if value:
            read = partial(read, **{"table" if option == "colors" else option: value.resolve()})
    images = arguments.images.resolve() if arguments.images else None
    return read(arguments.source.resolve(), images)


def _splits(source: Source, arguments: argparse.Namespace) -> dict[str, str]:
    if arguments.group and not arguments.split:
        raise DataError("--group is about --split: say the shares, as --split train=0.8 val=0.2")
    if arguments.split:
        return assignment.by_share(source.images, dict(arguments.split), arguments.group, arguments.seed)
    if arguments.lists:
        return assignment.by_lists(source.images, arguments.lists.resolve())
    return assignment.as_exported(source.images)
