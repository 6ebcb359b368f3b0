"""Pieces in results/finished-runs/NAME/KEY.json: written, read, refused, and which a study lacks. No torch.

Git holds them. No study can be called finished-runs: its name has no hyphen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from rrn.config import Settings
from rrn.pieces.made_with import first_difference, of_row
from rrn.pieces.piece import Piece
from rrn.runtime import atomic_io

AGAIN = "`python -m rrn.repro --missing` computes it"


class PieceError(ValueError):
    """The piece of a run is missing, damaged, or of other settings or data."""


def piece_folder(name: str) -> Path:
    """Return where the pieces of a study lie, relative to the repository."""
    return Path("results", "finished-runs", name)


def listed_runs(settings: Settings) -> dict[str, tuple[str, str, int]]:
    """Return the runs of `settings.ablation` in the order of its lists: key -> partition, method, seed."""
    lists = settings.ablation
    return {f"{p}-{m}-{s}": (p, m, s) for p in lists.partitions for m in lists.methods for s in lists.seeds}


def evidence_of(settings: Settings) -> dict[str, Path]:
    """Return what pictures of a study are made of, the evidence of first seeds: key -> file in the repository."""
    first = [key for key, run in listed_runs(settings).items() if run[2] == settings.ablation.seeds[0]]
    return {key: Path("runs", settings.name, "evaluate", key, "evidence.zip") for key in first}


def write_piece(root: Path, piece: Piece, out: Path) -> None:
    """Write the piece of a run if `out` is the evaluate stage's own folder; a try by hand leaves no trace.

    Args:
        root: the repository.
        piece: of `rrn.pieces.compose`.
        out: the folder in which the run was evaluated.

    Raises:
        atomic_io.WriteError: the disk is full, or results/ may not be written.
    """
    name, key = piece.run.name, piece.run.key
    if out.resolve() == (root / "runs" / name / "evaluate" / key).resolve():
        atomic_io.write(root / piece_folder(name) / f"{key}.json", piece.text())


def read_piece(root: Path, settings: Settings, key: str) -> Piece:
    """Read the piece of a run.

    Args:
        root: the repository.
        settings: of the study, without a row laid on `method`.
        key: of `listed_runs`.

    Raises:
        PieceError: it is missing, damaged, of another run, or was made with other settings; says what to do.
    """
    run, place = listed_runs(settings)[key], piece_folder(settings.name) / f"{key}.json"
    if not (root / place).is_file():
        raise PieceError(f"{place} is missing: {AGAIN}")
    try:
        piece = Piece.model_validate_json((root / place).read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise PieceError(
            f"{place} is damaged or of another version ({where}: {first['msg']}): {AGAIN} again"
        ) from error
    of = piece.run.partition, piece.run.method, piece.run.seed
    if (piece.run.name, *of) != (settings.name, *run):
        raise PieceError(f"{place} is the piece of {piece.run.name}, {piece.run.key}: {AGAIN} again")
    if difference := first_difference(piece.settings, of_row(settings, run[1])):
        raise PieceError(f"{place} was made with other settings, {difference}: {AGAIN} again, or set that back")
    return piece


def read_pieces(root: Path, settings: Settings) -> list[Piece]:
    """Read the pieces of all runs of `settings.ablation`, in the order of its lists.

    Raises:
        PieceError: as `read_piece`, or two are of different data.
    """
    pieces = [read_piece(root, settings, key) for key in listed_runs(settings)]
    _require_same_data(pieces)
    return pieces


def lacking(root: Path, settings: Settings) -> dict[str, str]:
    """Return the runs of `settings.ablation` that have no piece which can be read: key -> why not."""
    found = {}
    for key in listed_runs(settings):
        try:
            read_piece(root, settings, key)
        except PieceError as error:
            found[key] = str(error)
    return found


def _require_same_data(pieces: Sequence[Piece]) -> None:
    """Refuse runs of different images."""
    first = pieces[0].run
    for run in (piece.run for piece in pieces):
        if run.data != first.data:
            folder = piece_folder(run.name)
            raise PieceError(
                f"{folder}/{run.key}.json is of other data than {folder}/{first.key}.json (checksums {run.data} and "
                f"{first.data}): remove those of the wrong one, and `python -m rrn.repro --missing` computes them"
            )
