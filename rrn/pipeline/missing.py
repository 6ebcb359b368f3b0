"""A study whose runs are computed on several days or machines: what it has already, and what can be drawn here."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from rrn import config
from rrn.pieces import store
from rrn.pieces.piece import Piece
from rrn.pieces.store import PieceError
from rrn.runtime import atomic_io

DRAWN = Path("results", "row-pictures")
"""Pictures of studies, which git holds."""


def elsewhere(root: Path, settings: config.Settings) -> dict[str, Piece]:
    """Return the pieces of other studies whose runs had the settings of runs that this one lacks: key -> piece."""
    folder = (root / store.piece_folder(settings.name)).parent
    others = [path.name for path in sorted(folder.glob("*/")) if path.name != settings.name]
    found: dict[str, Piece] = {}
    for name, key in itertools.product(others, store.lacking(root, settings)):
        with suppress(PieceError):  # that study has no such run
            found.setdefault(key, store.read_piece(root, settings.model_copy(update={"name": name}), key))
    return found


def adopt(root: Path, settings: config.Settings, data: str) -> None:
    """Take over the pieces of `elsewhere`, and say so: the same run under another name has the same numbers.

    Args:
        root: the repository.
        settings: of the study that lacks them.
        data: checksum of its data set; a piece of other images is no piece of it.
    """
    for key, piece in elsewhere(root, settings).items():
        if piece.run.data == data:
            own = piece.model_copy(update={"run": piece.run.model_copy(update={"name": settings.name})})
            atomic_io.write(root / store.piece_folder(settings.name) / f"{key}.json", own.text())
            print(f"{key} is that of {piece.run.name}: its piece is copied")


def drawable(root: Path, settings: config.Settings, made: Collection[str]) -> list[str]:
    """Return the stage `pictures` where the runs are here that it needs; say so where they are not.

    Args:
        root: the repository.
        settings: of params.yaml.
        made: runs that are, or would be, made here.
    """
    paths = {key: path for key, path in store.evidence_of(settings).items() if key not in made}
    absent = [str(path) for path in paths.values() if not (root / path).is_file()]
    if not absent:
        return ["pictures"]
    print(
        f"pictures is not run, and {DRAWN / settings.name} stays: {len(absent)} of the runs that it shows were "
        f"made elsewhere ({absent[0]} is not here); it is run where all of them are",
        flush=True,
    )
    return []
