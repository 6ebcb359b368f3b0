"""Can the region score be made better? Discriminators trained on finished, frozen segmenters, beside their rivals.

    python -m rrn.preset name=trial ablation.seeds='[100, 101]' ablation.methods='[cps_cutmix]'
    python -m rrn.preset method.grid=4 method.discriminator.sees_image=true     # the defaults when the list was written
    python -m rrn.repro train                                       # once: the segmenters, with seeds no result reports
    python benchmarks/attempts.py attempts.csv                      # goes on where it stopped
    python benchmarks/attempts.py attempts.csv --base '{"sees_image": false}'

Adds to the CSV, for each attempt of ATTEMPTS, seed and score, the measures of `rrn.reliability` on val (mean of both
segmenters), where the better half and the better nine tenths of the regions are kept. `--base` is laid under the
attempts that say so. docs/filtering.md says what was made of it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize
from scipy.special import expit, logit

from rrn import config
from rrn.data import splits
from rrn.data.batches import WholeImages, training_loader
from rrn.data.image_set import ImageSet
from rrn.data.splits import Split
from rrn.evaluation.inference import Predictor
from rrn.evaluation.region_tables import concat, predict_batches, region_table
from rrn.method import RRN
from rrn.models.modes import evaluating
from rrn.reliability import measures
from rrn.runs import finished

SEEDS = (100, 101)
"""Seeds that no result reports."""

ATTEMPTS: dict[str, dict[str, Any]] = {
    "default": {},
    "1 without the image": {"discriminator": {"sees_image": False}},
    "2 sees both segmenters' maps": {"discriminator": {"sees_both": True}},
    "3 both maps, no image": {"discriminator": {"sees_both": True, "sees_image": False}},
    "4a 8 x 8 regions": {"grid": 8, "base": True},
    "4b 2 x 2 regions": {"grid": 2, "base": True},
    "5 channels 64 128": {"discriminator": {"channels": [64, 128]}, "base": True},
    "6 three times the steps": {"steps": 900, "base": True},
    "7 labels that the segmenters have not seen (an oracle)": {"unseen": True, "base": True},
    "8 learned combination": {"combine": True, "base": True},
}
"""Written before the first was run. Differences to `method`, and what this script itself understands: base, steps,
unseen (the discriminators learn from as many train images that are unlabeled to the segmenters: no method may), and
combine."""

STEPS = 300
FEATURES = {
    "combination": ("region_score", "confidence", "certainty", "agreement"),
    "combination without the region score": ("confidence", "certainty", "agreement"),
}


def learn(model: RRN, settings: config.Settings, dataset: ImageSet, split: Split, seed: int, steps: int) -> None:
    """Train the discriminators of a model whose segmenters stay as they are."""
    judge = settings.method.discriminator
    optimizer = torch.optim.Adam(model.discriminators.parameters(), lr=judge.lr, betas=judge.betas, fused=True)
    batches = training_loader(dataset, split, settings, seed, 0, steps, "train")
    for number, batch in enumerate(batches):
        with torch.no_grad(), evaluating(model.segmenters):
            step = model.begin_step(batch, number)
            step.labeled_logits = [segmenter(step.images) for segmenter in model.segmenters]
            step.unlabeled = model.normalize(torch.cat(batch.unlabeled))
            step.teacher_logits = torch.stack([segmenter(step.unlabeled) for segmenter in model.segmenters])
            step.valid = torch.cat(batch.unlabeled_valid).float()
        optimizer.zero_grad()
        for losses in model.discriminator_losses(step):
            for loss in losses.values():
                loss.backward()
        optimizer.step()


def unseen(split: Split) -> Split:
    """Return a split whose labeled images are as many others."""
    count = len(split.labeled)
    return replace(split, labeled=split.unlabeled[:count], unlabeled=(*split.labeled, *split.unlabeled[count:]))


def design(table: pd.DataFrame, names: tuple[str, ...]) -> np.ndarray:
    """Return the features of regions [R, F]: log odds of scores, and 1."""
    scores = table[list(names)].to_numpy(np.float64).clip(1e-4, 1 - 1e-4)
    return np.c_[logit(scores), np.ones(len(scores))]


def fitted(table: pd.DataFrame, names: tuple[str, ...]) -> np.ndarray:
    """Fit a logistic regression of right pixels on the scores of their regions, with a weak prior."""
    inputs, pixels, right = design(table, names), table["pixels"].to_numpy(), table["right"].to_numpy()

    def loss(weights: np.ndarray) -> float:
        chance = expit(inputs @ weights).clip(1e-12, 1 - 1e-12)
        losses = right * np.log(chance) + (pixels - right) * np.log1p(-chance)
        return float(-losses.sum() / pixels.sum() + 1e-4 * (weights**2).sum())

    return minimize(loss, np.zeros(inputs.shape[1])).x


def combinations(val: pd.DataFrame, known: dict[str, pd.DataFrame]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the region table of val with a learned combination in place of the region score, under its name."""
    for source, table in known.items():
        for name, features in FEATURES.items():
            score = expit(design(val, features) @ fitted(table, features))
            yield f"{name}, fitted on {source}", val.assign(region_score=score)


def measured(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per score: the measures over everything, mean of both segmenters."""
    keys = ["segmenter", "score"]
    rules = [measures.HALF.model_copy(update={"fraction": fraction}) for fraction in (0.5, 0.9)]
    half, most = (measures.summarize(table, rule).set_index([*keys, "class"]) for rule in rules)
    joined = most.join(half[["accuracy_kept"]].add_suffix("_half")).xs(measures.EVERYTHING, level="class")
    columns = ["auroc", "aurc", "ece", "accuracy", "accuracy_kept_half", "accuracy_kept", "accuracy_dropped"]
    return joined.groupby("score", sort=False)[columns].mean().reset_index()


def attempt(values: dict[str, Any], base: dict[str, Any], seed: int) -> pd.DataFrame:
    """Train discriminators once and return what each score is worth on val."""
    judge = (base if values.get("base") else {}) | values.get("discriminator", {})
    method = {"filter": {"by": "region_score"}, "discriminator": judge}
    method |= {"grid": values["grid"]} if "grid" in values else {}
    settings, root = config.load(None, {"method": method}), config.find_root()
    torch.set_num_threads(settings.threads)
    runs, dataset = root / "runs" / settings.name, ImageSet.open(settings, root)
    split = splits.read_split(runs / "prepare" / f"1of16-{seed}")
    model = RRN(settings, len(split.classes), seed)
    finished.read_segmenters(model, runs / "train" / f"1of16-cps_cutmix-{seed}")
    others = unseen(split)
    learn(model, settings, dataset, others if "unseen" in values else split, seed, values.get("steps", STEPS))

    def regions(folder: str, ids: tuple[str, ...]) -> pd.DataFrame:
        images = WholeImages(dataset, folder, ids, settings.loading.evaluation_batch)
        predictor = Predictor(model, settings.evaluate, settings.loading)
        tables = [region_table(predictor, seen, split.classes) for seen in predict_batches(predictor, images)]
        return concat(tables, split.classes)

    val, train = regions(settings.dataset.val, split.val), settings.dataset.train
    tables = [measured(val)]
    if "combine" in values:
        known = {"labeled images": regions(train, split.labeled), "unseen images": regions(train, others.labeled)}
        for name, table in combinations(val, known):
            row = measured(table)
            tables.append(row[row["score"] == "region_score"].assign(score=name))
    return pd.concat(tables)


def main() -> None:
    """Run what the file does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--base", type=json.loads, default={}, help="JSON: laid under attempts 4 to 8")
    parser.add_argument("--only", default="", help="attempts whose name begins so")
    options = parser.parse_args()
    table = pd.read_csv(options.file) if options.file.exists() else pd.DataFrame(columns=["attempt", "seed"])
    for name, values in ATTEMPTS.items():
        for seed in SEEDS:
            finished = ((table["attempt"] == name) & (table["seed"] == seed)).any()
            if name.startswith(options.only) and not finished:
                found = attempt(values, options.base, seed).assign(attempt=name, seed=seed)
                table = pd.concat([table, found], ignore_index=True)
                table.to_csv(options.file, index=False, float_format="%.4f")
                print(found.round(3).to_string(), flush=True)
    print(table.groupby(["attempt", "score"], sort=False).mean(numeric_only=True).round(3).to_string())


if __name__ == "__main__":
    main()
