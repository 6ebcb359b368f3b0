"""A piece from what the stages leave: what of it is kept, and that it is whole."""

import pandas as pd
import pytest
import tiny

from rrn import config, evaluate
from rrn.data import splits
from rrn.data.image_set import ImageSet
from rrn.pieces import compose, store
from rrn.pieces.made_with import made_with
from rrn.reliability.measures import EVERYTHING


@pytest.fixture
def run(tmp_path):
    """Evaluate tiny, untrained networks; return their piece, the folders that it is made from, settings and split."""
    root = tiny.repository(tmp_path / "repository")
    settings = config.load("rrn", root=root)
    split = splits.read_split(root / "runs/tiny/prepare/1of4-0")
    out, trained = root / "runs/tiny/evaluate/1of4-rrn-0", tmp_path / "trained"
    model = tiny.RRN(settings, len(split.classes), 0)
    key = {"partition": "1of4", "method": "rrn", "seed": 0}
    evaluate.evaluate_run(model, settings, ImageSet.open(settings, root), split, out, key)
    trained.mkdir()
    history = {"step": [2, 4], "lr": [0.1, 0.05], "supervised": [1.25, 1], "miou_mean": [None, 40.5], "coverage": 0.5}
    pd.DataFrame(history).to_csv(trained / "history.csv", index=False)
    measured = pd.read_csv(out / "reliability.csv").assign(step=4)
    measured.to_csv(trained / "reliability.csv", index=False)
    return compose.compose(trained, out, settings, split), root, settings, split


def test_a_piece_holds_what_tables_and_figures_need(run):
    piece, root, settings, split = run
    out = root / "runs/tiny/evaluate/1of4-rrn-0"
    assert (piece.run.key, piece.run.name, piece.run.labels, piece.run.data) == (
        "1of4-rrn-0",
        "tiny",
        "partition",
        split.data,
    )
    assert piece.settings == made_with(settings) and piece.run.settings == config.fingerprint(piece.settings)
    assert list(piece.history) == ["step", "miou_mean", "supervised", "coverage"]
    assert piece.history["miou_mean"] == [None, 40.5]
    kept = pd.read_csv(out / "reliability.csv").query("`class` == @EVERYTHING")
    assert piece.reliability["auroc"] == kept["auroc"].tolist() and "class" not in piece.reliability
    assert piece.table("classes").equals(pd.read_csv(out / "per_class.csv"))
    assert len(piece.bootstrap["miou_mean"]) == 200 and piece.metrics["macs"] > 0
    assert {"confidence", "region_score"} <= set(piece.curves.scores)
    assert set(piece.versions) == set(compose.PACKAGES) and not any("+" in said for said in piece.versions.values())
    assert EVERYTHING not in piece.text()


def test_it_is_written_read_and_of_the_settings_of_its_study(run):
    piece, root, _, _ = run
    store.write_piece(root, piece, root / "runs/tiny/evaluate/1of4-rrn-0")
    assert store.read_piece(root, config.load(root=root), "1of4-rrn-0") == piece
