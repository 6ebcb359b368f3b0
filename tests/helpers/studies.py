"""Finished runs made up by hand, for the tests of what reads them."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from rrn import config
from rrn.pieces import made_with, store
from rrn.pieces.piece import Origin, Piece, columns_of
from rrn.reliability.curves import run_curves

ROOT = Path(__file__).resolve().parents[2]
METRICS = {"miou_ensemble": 50.0, "pixel_accuracy": 80.0, "parameters": 1_500_000, "macs": 2 * 10**9}
VERSIONS = {"torch": "2.0.1", "numpy": "2.1.0"}
DATA = "0123456789abcdef"
"""Checksum of the data set that pieces are of."""
METHODS = ("supervised", "cps_cutmix", "rrn")
SCORES = ("region_score", "product", "confidence", "probability", "certainty", "agreement")


def make_settings(methods, seeds, partitions=("1of16",), rows=None, **more):
    """Return the settings of a study of these lists; `rows` are further rows of `methods:`."""
    lists = {"partitions": list(partitions), "methods": methods, "seeds": seeds, "beside": [], **more}
    return config.load(overrides={"name": "study", "ablation": lists, "methods": rows or {}}, root=ROOT)


def make_piece(settings, method, seed, one, two, partition="1of16", **metrics):
    """Return the piece of a run whose segmenters reach `one` and `two`; its draws of images have a deviation of 1."""
    held = made_with.made_with(made_with.of_row(settings, method))
    values = {"miou_1": one, "miou_2": two, "miou_mean": (one + two) / 2, **METRICS, **metrics}
    classes = {"class": ["sky", "road"], "iou_1": [one, None], "iou_2": [two, 30.0]}
    classes |= {"iou_mean": [(one + two) / 2, 30.0], "iou_ensemble": [40.0, 20.0], "pixels": [7, 9]}
    history = make_history({method: (1.0, 0.9, 0.9, 0.9)}, seeds=[seed])
    history[["supervised", "consistency", "agreement", "miou_mean"]] = 0.5
    reliability = make_reliability([method], seeds=[seed]).query("`class` == '(all)'")
    reliability[["auroc_within", "aurc", "ece", "coverage", "accuracy", "accuracy_dropped"]] = 0.2
    draws = [values["miou_mean"] + n for n in (-1, 0, 1)]
    run = {"name": settings.name, "partition": partition, "method": method, "seed": seed}
    row = config.in_row(settings, method)
    return Piece(
        run=Origin(**run, labels=row.labels, data=DATA, settings=config.fingerprint(held)),
        settings=held,
        versions=VERSIONS,
        metrics=values,
        classes=classes,
        history=columns_of(history.drop(columns=["partition", "method", "seed"])),
        reliability=columns_of(reliability.drop(columns=["partition", "method", "seed", "class"])),
        curves=run_curves(make_regions(seed), row.filter),
        bootstrap={column: draws for column in ("miou_1", "miou_2", "miou_mean", "miou_ensemble")},
    )


def write_run(root, settings, method, seed, one, two, partition="1of16", **metrics):
    """Write the piece of `make_piece`; return where it lies."""
    piece = make_piece(settings, method, seed, one, two, partition, **metrics)
    path = root / store.piece_folder(settings.name) / f"{piece.run.key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(piece.text(), encoding="utf-8")
    return path


def make_regions(seed):
    """Return a region table of two segmenters with four regions each."""
    draw = np.random.default_rng(seed)
    table = pd.DataFrame({"segmenter": [1, 2] * 4, "pixels": 64, "right": draw.integers(20, 64, 8)})
    table[[*SCORES]] = draw.uniform(0.1, 0.9, (8, len(SCORES)))
    return table


def make_runs(means, partition="1of16", labels=None):
    """Return runs as `collect` does: method -> mIoU of seeds 0, 1, ...; None: that seed was not run."""
    rows = [
        {
            **{"name": "study", "partition": partition, "method": method, "seed": seed},
            **{"labels": (labels or {}).get(method, "partition")},
            **{"miou_1": mean - 1, "miou_2": mean + 1, "miou_mean": float(mean), **METRICS, "image_se": 0.5},
        }
        for method, values in means.items()
        for seed, mean in enumerate(values)
        if mean is not None
    ]
    return pd.DataFrame(rows)


def make_history(coverages, steps=(20, 40, 60, 80), seeds=(0, 1)):
    """Return history.csv of runs, joined: method -> coverage at each step; the weight is half of it."""
    return pd.DataFrame(
        [
            {"partition": "1of16", "method": method, "seed": seed, "step": step, "coverage": c, "weight": c / 2}
            for method, values in coverages.items()
            for seed in seeds
            for step, c in zip(steps, values, strict=True)
        ]
    )


def make_reliability(methods, seeds=(0, 1), scores=SCORES):
    """Return reliability.csv of runs, joined; numbers tell step, split, class, segmenter and score apart.

    On val at the last step: AUROC 0.7 + 0.01 for the place of the score (and 0.001 more or less by
    segmenter), accuracy_kept 0.8 + 0.01 for that place, accuracy 0.75; other rows hold 0.1.
    """
    rows = []
    for method in methods:
        for seed in seeds:
            for step in (40, 80):
                for split in ("val", "unlabeled"):
                    for segmenter, more in ((1, 0.001), (2, -0.001)):
                        for place, score in enumerate(scores):
                            for name in ("(all)", "sky"):
                                shown = (step, split, name) == (80, "val", "(all)")
                                values = {
                                    "auroc": 0.7 + 0.01 * place + more if shown else 0.1,
                                    "accuracy_kept": 0.8 + 0.01 * place if shown else 0.1,
                                    "accuracy": 0.75 if shown else 0.1,
                                }
                                run = {"partition": "1of16", "method": method, "seed": seed, "step": step}
                                where = {"split": split, "segmenter": segmenter, "score": score, "class": name}
                                rows.append({**run, **where, **values})
    return pd.DataFrame(rows)


def table_cells(text):
    """Return the cells of the tables of a Markdown text, header first, whatever the widths of the columns."""
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line] for line in lines]
    return [row for row in rows if not all(re.fullmatch(":?-+:?", cell) for cell in row)]


def make_full_history(seeds: int = 2, methods: tuple[str, ...] = METHODS) -> pd.DataFrame:
    """Return a history of training as `collect` does, with values that tell the rows apart."""
    rows = []
    for place, method in enumerate(methods):
        for seed in range(seeds):
            for step in (25, 50, 75, 100):
                row = {"method": method, "seed": seed, "step": step, "supervised": 100 / step + seed}
                if method != "supervised":
                    row |= {"consistency": 1.0, "coverage": 0.5, "weight": 0.4, "agreement": 0.9}
                if step % 50 == 0:
                    row |= dict.fromkeys(("miou_1", "miou_2", "miou_mean"), step + place + seed)
                rows.append(row)
    return pd.DataFrame(rows)
