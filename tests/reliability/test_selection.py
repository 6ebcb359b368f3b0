"""Which regions are kept, and how they are weighed: by hand, and as the method itself does it."""

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from rrn.config import Filter
from rrn.data.batches import WholeBatch
from rrn.evaluation.region_tables import Predictions, region_table
from rrn.reliability.selection import (
    RHOS,
    kept_count,
    kept_regions,
    kept_share,
    rank_scores,
    rate_regions,
    weigh_regions,
)

RULE = {"by": "region_score", "keep": "fraction", "tau": 0.6, "fraction": 0.75, "start": 0}
HAND = pd.DataFrame(
    {
        "region_score": [0.1, 0.3, 0.6, 0.9],
        "confidence": [0.9, 0.8, 0.7, 0.6],
        "divergence": [0.5, 0.5, 0.0, 0.0],
        "pixels:sky": [9, 1, 5, 0],
        "pixels:road": [0, 8, 4, 9],
    }
)


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ({"keep": "fraction", "fraction": 0.5}, [0, 0, 1, 1]),
        ({"keep": "threshold", "tau": 0.3}, [0, 1, 1, 1]),
        ({"by": "confidence", "keep": "fraction", "fraction": 0.25}, [1, 0, 0, 0]),
        ({"by": "confidence", "keep": "threshold", "tau": 0.6}, [1, 1, 0, 0]),
        ({"by": "confidence_divergence", "keep": "fraction", "fraction": 0.5}, [0, 0, 1, 1]),
        ({"per": "class", "keep": "fraction", "fraction": 0.5}, [0, 0, 1, 1]),
        ({"by": "confidence", "per": "class", "keep": "fraction", "fraction": 0.5}, [1, 1, 0, 0]),
        ({"by": "confidence", "per": "class", "keep": "fraction", "fraction": 0.25}, [1, 1, 0, 0]),
        ({"keep": "soft"}, [1, 1, 1, 1]),
        ({"by": "pixel_confidence", "keep": "threshold"}, [1, 1, 1, 1]),
        ({"by": "random"}, [1, 1, 1, 1]),
        ({"by": "none"}, [1, 1, 1, 1]),
    ],
)
def test_the_rule_of_a_row_says_what_is_kept(rule, kept):
    assert kept_regions(HAND, Filter(**{**RULE, **rule})).tolist() == [bool(value) for value in kept]


@pytest.mark.parametrize(
    ("rule", "count"),
    [
        ({"keep": "fraction", "fraction": 0.3}, 1),
        ({"by": "confidence", "keep": "fraction", "fraction": 0.3}, 1),
        ({"keep": "threshold", "tau": 0.3}, 3),
        ({"by": "confidence", "keep": "threshold", "tau": 0.3}, 3),
        ({"by": "random", "keep": "threshold", "tau": 0.3}, 3),
        ({"by": "none", "keep": "threshold", "tau": 0.3}, 2),
        ({"by": "none", "keep": "fraction", "fraction": 0.3}, 1),
        ({"keep": "soft", "fraction": 0.3}, 1),
        ({"by": "pixel_confidence", "keep": "threshold", "tau": 0.3}, 2),
    ],
)
def test_a_row_keeps_its_fraction_or_as_many_as_pass_the_threshold_of_the_region_score(rule, count):
    assert kept_count(HAND, Filter(**{**RULE, **rule})) == count


def test_without_discriminators_a_threshold_keeps_half():
    blind = HAND.assign(region_score=np.nan)
    assert kept_count(blind, Filter(**{**RULE, "keep": "threshold"})) == 2


def test_regions_tied_at_the_cut_share_it():
    assert kept_share([0.9, 0.5, 0.5, 0.1], 2).tolist() == [1, 0.5, 0.5, 0]
    assert kept_share([0.9, 0.5, 0.5, 0.1], 3).tolist() == [1, 1, 1, 0]
    assert kept_share([0.3, 0.3], 0).tolist() == [0, 0]
    assert kept_share([], 1).tolist() == []


def test_ranks_count_the_better_regions_of_the_same_segmenter():
    ranks = rank_scores(np.array([0.1, 0.9, 0.5, 0.2, 0.7]), np.array([1, 1, 1, 2, 2]))
    assert ranks.tolist() == [2, 0, 1, 1, 0]
    tied = rank_scores(np.full(40, 0.5), np.ones(40, np.int64))
    assert sorted(tied) == list(range(40)) and tied.tolist() != sorted(tied)


def test_rho_by_probability_is_the_column():
    assert rate_regions(pd.DataFrame({"probability": [0.25, 1]}), "probability", 0.6).tolist() == [0.25, 1]


def test_rho_by_probability_refuses_an_older_table():
    with pytest.raises(ValueError, match=r"no column probability, which rho: probability reads: evaluate again"):
        rate_regions(HAND, "probability", 0.6)


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize(("keep", "per"), [("fraction", "batch"), ("threshold", "batch"), ("fraction", "class")])
@pytest.mark.parametrize("by", ["region_score", "confidence", "probability", "confidence_divergence"])
def test_what_is_kept_and_its_weight_are_those_of_the_method(by, keep, per, rho):
    size, names = (33, 41), ("a", "b", "c")
    draw = torch.Generator().manual_seed(1)
    images = torch.randint(256, (3, 3, *size), dtype=torch.uint8, generator=draw)
    logits = torch.randn((2, 3, tiny.CLASSES, *size), generator=draw) + torch.randn((3, tiny.CLASSES, 1, 1))
    tau = tiny.threshold_in_a_gap(tiny.still(tiny.model("rrn")).region_scores(logits, images))
    rule = {"by": by, "per": per, "keep": keep, "fraction": 0.6, "tau": tau}
    network = tiny.still(tiny.model("rrn", {"method": {"filter": rule, "rho": rho}}))
    predicted = torch.cat([logits.argmax(2), logits.softmax(2).mean(0).argmax(1)[None]])
    batch = WholeBatch(images, torch.randint(tiny.CLASSES, (3, *size), generator=draw), names)
    table = region_table(network, Predictions(batch, logits, logits.softmax(2), predicted), ["x", "y", "z"])
    parts = [part for _, part in table.groupby("segmenter")]
    kept = np.concatenate([kept_regions(part, network.row.filter) for part in parts])
    rated = np.ones(len(table)) if rho == "none" else rate_regions(table, rho, tau)
    ours = weigh_regions(table, kept, rated)

    with torch.no_grad():
        valid = torch.ones(3, 1, *size)
        theirs, counts = tiny.weigh(network, logits, network.normalize(images), valid)
    rows, columns = (table[name].to_numpy() * network.region for name in ("row", "column"))
    found = theirs.numpy()[table["segmenter"] - 1, table["id"].map(names.index), 0, rows, columns]
    assert np.abs(ours - found).max() < 1e-5
    assert 0 < kept.mean() < 1 and kept.mean() == pytest.approx(float(counts["coverage"]))
