"""The table by which rows are chosen, by hand."""

import math

import pandas as pd
import pytest

from rrn.paper.validation import validation
from rrn.reliability.measures import EVERYTHING

VAL = {
    "cps_cutmix": [50.0, 52.0, 54.0],
    "rrn": [51.0, 53.5, 54.5],
    "local_filter": [50.5, 53.0, 54.0],
    "cps": [1, 2, 3],
}
SCORES = {"region_score": [0.8, 0.7, 0.9], "probability": [0.7, 0.7, 0.7]}


def made(partition: str = "1of16") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return history and reliability of three seeds; what is not at the last step, or not of val, is far off."""
    run = {"name": "shapes", "partition": partition, "labels": "partition"}
    history = [
        {**run, "method": method, "seed": seed, "step": step, "miou_mean": value if step == 50 else math.nan}
        for method, values in VAL.items()
        for seed, value in enumerate(values)
        for step in (25, 50)
    ]
    reliability = [
        {**run, "method": "rrn", "seed": seed, "step": step, "split": split, "class": EVERYTHING, "score": score}
        | {"segmenter": k, "auroc_within": value + (0.1 if k == 1 else -0.1) if (step, split) == (50, "val") else 0.1}
        for score, values in SCORES.items()
        for seed, value in enumerate(values)
        for k in (1, 2)
        for step in (25, 50)
        for split in ("val", "unlabeled")
    ]
    return pd.DataFrame(history), pd.DataFrame(reliability)


def test_by_hand():
    table = validation(*made())
    rows = table.numbers.set_index("method")
    assert rows["miou_mean"].to_dict() == pytest.approx({"cps_cutmix": 52, "rrn": 53, "local_filter": 52.5, "cps": 2})
    assert rows.loc["rrn", "difference"] == pytest.approx(1) and rows.loc["rrn", "difference_std"] == pytest.approx(0.5)
    assert math.isnan(rows.loc["cps_cutmix", "difference"])
    assert rows.loc["rrn", ["auroc_region_score", "auroc_probability", "auroc_difference"]].tolist() == pytest.approx(
        [0.8, 0.7, 0.1]
    )
    assert rows.loc["rrn", "auroc_std"] == pytest.approx(0.1) and rows["auroc_region_score"].notna().sum() == 1
    assert table.header == [
        "method",
        "n",
        "mIoU on val",
        "difference",
        "region score",
        "probability",
        "score difference",
    ]
    assert table.rows[1] == [
        *("rrn", "3", "53.00 ± 1.80", "**+1.00 [-0.24, +2.24]**", "0.800", "0.700", "+0.100 [-0.148, +0.348]")
    ]
    assert table.rows[0] == ["cps_cutmix", "3", "52.00 ± 2.00", "", "", "", ""]


def test_rows_near_the_best_are_those_within_its_standard_error():
    near = validation(*made()).numbers.set_index("method")["near_best"]
    assert near.to_dict() == {"cps_cutmix": False, "rrn": True, "local_filter": False, "cps": False}
    history, reliability = made()
    at = (history["method"] == "local_filter") & (history["seed"] == 1)
    history.loc[at & (history["step"] == 50), "miou_mean"] += 0.7  # its difference is 0.73, within 0.29 of 1
    assert validation(history, reliability).numbers.set_index("method")["near_best"]["local_filter"]


def test_the_upper_bound_does_not_compete():
    history, reliability = made()
    history.loc[history["method"] == "rrn", "labels"] = "all"
    near = validation(history, reliability).numbers.set_index("method")["near_best"]
    assert near.to_dict() == {"cps_cutmix": False, "rrn": False, "local_filter": True, "cps": False}


def test_partitions_are_named_where_there_are_several():
    parts = [made(), made("1of8")]
    table = validation(*(pd.concat([part[i] for part in parts], ignore_index=True) for i in range(2)))
    assert table.header[:2] == ["partition", "method"] and table.rows[5][:2] == ["1of8", "rrn"]


def test_one_seed_has_no_difference():
    history, reliability = (table[table["seed"] == 0] for table in made())
    row = validation(history, reliability).rows[1]
    assert row == ["rrn", "1", "51.00", "", "0.800", "0.700", ""]
