"""Get the paper's data sets onto the disk, and look at what is there: `python -m rrn.data voc --root DIR`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rrn import config
from rrn.annotations.command import add_arguments, run_import
from rrn.data.decoding import DataError
from rrn.data.formats.base import require_empty, require_folder
from rrn.data.image_set import EMBEDDED
from rrn.preparation import download, published_lists, shapes
from rrn.preparation.archives import record
from rrn.runtime import atomic_io
from rrn.runtime.places import place

OBTAIN = {
    "voc": download.obtain_voc,
    "camvid": download.obtain_camvid,
    "cityscapes": download.obtain_cityscapes,
}
HELP = {
    "voc": "download VOC 2012 and SBD, lay out train, val and train_aug",
    "camvid": "download CamVid in the layout of the SegNet tutorial",
    "cityscapes": "unpack the two archives of Cityscapes that you put into DIR",
}


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    arguments = parser().parse_args(argv)
    try:
        return run_command(arguments)
    except (DataError, config.SettingsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
    return 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of the subcommands."""
    top = argparse.ArgumentParser(prog="python -m rrn.data", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    for kind in OBTAIN:
        command = commands.add_parser(kind, help=HELP[kind])
        command.add_argument("--root", type=place, required=True, metavar="DIR", help="where the data set shall lie")
        command.add_argument(
            "--archives", type=place, metavar="DIR", help="where its archives lie or are downloaded to; else the root"
        )
    verify = commands.add_parser("verify", help="check the data set that params.yaml names")
    verify.add_argument("--out", type=place, metavar="DIR", help="keep what was found there, for the prepare stage")
    render = commands.add_parser("render", help="render the embedded data with as many scenes as params.yaml says")
    render.add_argument("--out", type=place, required=True, metavar="DIR", help="a folder for it, which is made anew")
    add_arguments(commands.add_parser("import", help="make a folder data set of what an annotation tool exported"))
    lists = commands.add_parser("lists", help="fetch the published partition lists")
    lists.add_argument("--root", type=place, required=True, metavar="DIR", help="the folder of dataset.path")
    lists.add_argument("kind", choices=("voc", "cityscapes"))
    return top


def run_command(arguments: argparse.Namespace) -> int:
    """Run a subcommand; return its exit status.

    Raises:
        DataError: what is wrong, and what to do.
        config.SettingsError: params.yaml cannot be used (verify).
        OSError: the disk is full, or a folder or what was found (verify) cannot be written.
    """
    if arguments.command == "verify":
        from rrn.preparation import verification

        root = config.find_root()
        return verification.print_verification(config.load(root=root), root, arguments.out)
    if arguments.command == "render":
        return _render(config.find_root(), arguments.out)
    if arguments.command == "import":
        run_import(arguments)
        return 0
    root = arguments.root.resolve()
    if arguments.command == "lists":
        print(*published_lists.fetch_all(arguments.kind, root / "lists"), sep="\n")
        return 0
    known = record(arguments.command)
    with atomic_io.explain_os_error(root, "name another folder"):
        root.mkdir(parents=True, exist_ok=True)
        OBTAIN[arguments.command](root, (arguments.archives or root).resolve(), known)
    print(f"{arguments.command} is complete: {', '.join(f'{n} {split}' for split, n in known.counts.items())} images")
    print(f"params.yaml: dataset.kind: {arguments.command}, dataset.path: {root}, dataset.void: null")
    return 0


def _render(root: Path, out: Path) -> int:
    """Write the embedded data with the scenes of `dataset.scenes`; a folder that holds something else stays."""
    scenes = config.load(root=root).dataset.scenes.model_dump()
    shipped = root / EMBEDDED
    require_folder(shipped, "the embedded data", "run `python -m rrn.fetch`")
    require_empty(out)
    with atomic_io.explain_os_error(out, "name another folder"):
        out.mkdir(parents=True, exist_ok=True)
        shapes.write_scenes(shipped, out, scenes)
    print(f"{out}: {', '.join(f'{count} {split}' for split, count in {**shapes.SPLITS, **scenes}.items())} scenes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
