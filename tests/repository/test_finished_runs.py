"""The pieces that git holds: whole, of the studies that they lie in, and the same run is the same everywhere."""

import json
from itertools import groupby

from conftest import ROOT

from rrn import config
from rrn.pieces.made_with import with_defaults
from rrn.pieces.piece import Piece

PATHS = sorted((ROOT / "results" / "finished-runs").glob("*/*.json"))
PIECES = {path: Piece.model_validate_json(path.read_bytes()) for path in PATHS}


def test_every_piece_says_what_its_file_is_called_and_is_written_as_pieces_are():
    assert len(PIECES) >= 18
    for path, piece in PIECES.items():
        assert (piece.run.name, f"{piece.run.key}.json") == (path.parent.name, path.name)
        assert piece.text() == path.read_text()
        assert path.stat().st_size < 100_000


def test_runs_of_the_same_settings_and_images_are_the_same_in_every_study():
    """A key that an older piece lacks counts as its default."""

    def same(piece):
        held = with_defaults(config.up_to_date(piece.settings), config.Settings)
        return piece.run.key, piece.run.data, json.dumps(held, sort_keys=True)

    shared, about = 0, {"run": {"name", "settings"}, "settings": True, "versions": True}
    for _, group in groupby(sorted(PIECES.values(), key=same), key=same):
        first, *others = (piece.model_dump(exclude=about) for piece in group)
        assert all(other == first for other in others)
        shared += len(others)
    names = {path.parent.name for path in PATHS}
    assert shared >= 18 or names == {"shapes"}
