"""Does a region score know anything? Discriminators trained on finished, frozen segmenters, beside their rivals.

    python benchmarks/offline_scores.py --partition 1of16 --method cps_cutmix --seed 0 --steps 400

needs the finished run (`dvc repro train@1of16-cps_cutmix-0`). For each variant of the discriminators it prints, as a
CSV, the AUROC per pixel on val of the region score, of max-softmax confidence and of agreement, and the accuracy of the
better half of the regions by each.
"""

from __future__ import annotations

import argparse
import itertools
import json
from typing import Any

import pandas as pd
import torch

from rrn import checkpoint, config, evaluate
from rrn.data import loaders, splits
from rrn.data.sets import ImageSet
from rrn.data.splits import Split
from rrn.method import RRN, Evidence
from rrn.models import evaluating

SEED = 100
"""Of the discriminators: none of the seeds that results report."""


def variants() -> list[dict[str, Any]]:
    """Return the grid: objective x what the discriminator sees."""
    grid = itertools.product(("adversarial", "accuracy"), (True, False), ("soft", "hard"))
    return [
        {"objective": objective, "sees_image": sees_image, "maps": maps, "feature_matching": 0.0}
        for objective, sees_image, maps in grid
    ]


def learn(model: RRN, settings: config.Settings, dataset: ImageSet, split: Split, steps: int) -> None:
    """Train the discriminators of a model whose segmenters stay as they are."""
    judge = settings.method.discriminator
    optimizer = torch.optim.Adam(model.discriminators.parameters(), lr=judge.lr, betas=judge.betas)
    batches = loaders.training_loader(dataset, split, settings, SEED, 0, steps, "train")
    for step, batch in enumerate(batches):
        with torch.no_grad(), evaluating(model.segmenters):
            images = model.normalize(batch.images)
            logits = torch.stack([segmenter(images) for segmenter in model.segmenters])
            evidence = Evidence(batch.labels, images, logits)
            evidence.unlabeled = model.normalize(torch.cat(batch.unlabeled))
            evidence.teachers = torch.stack([segmenter(evidence.unlabeled) for segmenter in model.segmenters])
            evidence.valid = torch.cat(batch.unlabeled_valid).float()
        loss = torch.stack(list(model.discriminator_losses(evidence, step).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main() -> None:
    """Print one row for each variant, segmenter and score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partition", default="1of16")
    parser.add_argument("--method", default="cps_cutmix")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--overrides", type=json.loads, default={}, help="JSON differences to params.yaml")
    parser.add_argument("--variants", type=json.loads, default=variants(), help="JSON list of discriminators")
    options = parser.parse_args()
    root, rows = config.find_root(), []
    for variant in options.variants:
        judge = options.overrides.get("method", {}).get("discriminator", {}) | variant
        method = {**options.overrides.get("method", {}), "filter": {"by": "region_score"}, "discriminator": judge}
        settings = config.load(None, {**options.overrides, "method": method})
        torch.set_num_threads(settings.threads)
        runs, dataset = root / "runs" / settings.name, ImageSet.open(settings, root)
        split = splits.read(runs / "prepare" / options.partition)
        model = RRN(settings, len(split.classes), SEED)
        checkpoint.read_segmenters(model, runs / "train" / f"{options.partition}-{options.method}-{options.seed}")
        learn(model, settings, dataset, split, options.steps)
        val = loaders.whole_images(dataset, settings.dataset.val, split.val, settings.evaluate.batch)
        table = evaluate.reliability(model, val).assign(**{k: str(v) for k, v in variant.items()})
        rows.append(table)
        print(table.round(3).to_string(index=False), flush=True)
    print(pd.concat(rows).to_csv(index=False, float_format="%.4f"))


if __name__ == "__main__":
    main()
