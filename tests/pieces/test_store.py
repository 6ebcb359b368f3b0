"""Pieces of runs: written and read back, refused where they are not those of the settings, small."""

import json

import pandas as pd
import pytest
from studies import make_piece, make_settings, write_run

from rrn import config
from rrn.pieces import store
from rrn.pieces.made_with import made_with
from rrn.pieces.piece import Piece

METHODS = ["cps_cutmix", "rrn"]
KEY = "1of16-rrn-1"
PLACE = f"results/finished-runs/study/{KEY}.json"


@pytest.fixture
def study(tmp_path):
    """Write the pieces of four runs; return their settings."""
    settings = make_settings(METHODS, [0, 1])
    for method in METHODS:
        for seed in (0, 1):
            write_run(tmp_path, settings, method, seed, 40, 42)
    return settings


def changed(path, **sections):
    """Change entries of sections of a piece."""
    held = json.loads(path.read_text())
    for name, over in sections.items():
        held[name] |= over
    path.write_text(json.dumps(held))


def test_a_piece_is_read_back_as_it_was_written(tmp_path):
    settings = make_settings(METHODS, [0])
    piece = make_piece(settings, "rrn", 0, 40, 42, miou_ensemble=None)
    store.write_piece(tmp_path, piece, tmp_path / "runs/study/evaluate/1of16-rrn-0")
    path = tmp_path / "results/finished-runs/study/1of16-rrn-0.json"
    assert Piece.model_validate_json(path.read_text()) == piece == store.read_piece(tmp_path, settings, "1of16-rrn-0")
    assert path.read_text() == piece.text() and path.stat().st_size < 100_000
    assert len(path.read_text().splitlines()) < 100, "a line for each column"


def test_a_try_by_hand_leaves_no_piece(tmp_path):
    piece = make_piece(make_settings(METHODS, [0]), "rrn", 0, 40, 42)
    for out in ("scratch/evaluate", "runs/study/evaluate/1of16-rrn-1", "runs/other/evaluate/1of16-rrn-0"):
        store.write_piece(tmp_path, piece, tmp_path / out)
    assert not (tmp_path / "results").exists()


def test_tables_have_their_types_and_no_value_where_there_is_none():
    piece = make_piece(make_settings(METHODS, [0]), "rrn", 0, 40, 42)
    piece = piece.model_copy(update={"history": piece.history | {"empty": [None] * 4}})
    classes, history = piece.table("classes"), piece.table("history")
    assert classes["iou_1"].isna().tolist() == [False, True] and classes["pixels"].tolist() == [7, 9]
    assert history["empty"].isna().all() and pd.api.types.is_float_dtype(history["empty"])
    assert pd.api.types.is_integer_dtype(history["step"])


def test_pieces_stand_in_the_order_of_the_lists(study, tmp_path):
    pieces = store.read_pieces(tmp_path, make_settings(METHODS[::-1], [1, 0]))
    assert [piece.run.key for piece in pieces] == [f"1of16-{m}-{s}" for m in METHODS[::-1] for s in (1, 0)]
    assert store.lacking(tmp_path, study) == {}


def test_a_piece_that_is_missing_says_what_computes_it(study, tmp_path):
    (tmp_path / PLACE).unlink()
    said = f"{PLACE} is missing: `python -m rrn.repro --missing` computes it"
    with pytest.raises(store.PieceError) as error:
        store.read_pieces(tmp_path, study)
    assert str(error.value) == said and store.lacking(tmp_path, study) == {KEY: said}


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        ("train", {"steps": 7}, "train.steps: 7, here 500: `python -m rrn.repro --missing` computes it again, or set"),
        ("method", {"rho": "mean"}, "method.rho: 'mean', here 'agreement': "),
        ("method", {"strong": {"gray": 0.2}}, "method.strong: {'gray': 0.2}, here null: "),
        ("log", {"every": 1}, "log.every: 1, here 25: "),
        ("log", {"more": 1}, "log.more: 1, here absent: "),
    ],
)
def test_a_piece_of_other_settings_is_refused(study, tmp_path, section, values, said):
    settings = json.loads((tmp_path / PLACE).read_text())["settings"]
    changed(tmp_path / PLACE, settings={section: settings[section] | values})
    with pytest.raises(store.PieceError) as error:
        store.read_piece(tmp_path, study, KEY)
    assert str(error.value).startswith(f"{PLACE} was made with other settings, {said}")
    assert list(store.lacking(tmp_path, study)) == [KEY]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run": {"seed": 0}}, "is the piece of study, 1of16-rrn-0: `python -m rrn.repro --missing` computes it again"),
        ({"run": {"name": "other"}}, "is the piece of other, 1of16-rrn-1: "),
        ({"run": {"more": 1}}, "is damaged or of another version (run.more: Extra inputs are not permitted): "),
        ({"metrics": {"miou_1": "x"}}, "is damaged or of another version (metrics.miou_1."),
    ],
)
def test_a_piece_that_is_none_of_the_run_is_refused(study, tmp_path, changes, said):
    changed(tmp_path / PLACE, **changes)
    with pytest.raises(store.PieceError) as error:
        store.read_piece(tmp_path, study, KEY)
    assert str(error.value).startswith(f"{PLACE} {said}")


def test_a_file_that_is_no_json_is_refused(study, tmp_path):
    (tmp_path / PLACE).write_text("<<<<<<< HEAD\n")
    with pytest.raises(store.PieceError, match=rf"^{PLACE} is damaged or of another version \(the file: Invalid JSON"):
        store.read_piece(tmp_path, study, KEY)


def test_runs_of_different_images_are_no_study(study, tmp_path):
    changed(tmp_path / PLACE, run={"data": "fedcba"})
    said = r"rrn-1.json is of other data than .*/1of16-cps_cutmix-0.json .checksums fedcba and 0123456789abcdef."
    with pytest.raises(store.PieceError, match=said):
        store.read_pieces(tmp_path, study)


def test_pictures_need_the_first_seed_of_every_row():
    settings = make_settings(METHODS, [1, 0], partitions=("1of8", "1of16"))
    keys = [f"{partition}-{method}-1" for partition in ("1of8", "1of16") for method in METHODS]
    assert list(store.evidence_of(settings)) == keys
    assert store.evidence_of(settings)[keys[0]].as_posix() == f"runs/study/evaluate/{keys[0]}/evidence.zip"


def test_another_machine_has_the_same_fingerprint(root):
    here, there = (
        config.load("rrn", overrides, root)
        for overrides in ({}, {"device": "cuda", "nproc": 2, "loading": {"workers": 3}, "dataset": {"path": "there"}})
    )
    assert made_with(here) == made_with(there)
