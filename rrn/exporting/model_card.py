"""The model card of an export: what was trained on what, how good it is, and what it is not for."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from rrn.data import splits
from rrn.exporting.quantization import Cost
from rrn.models.segmenter import MULTIPLE
from rrn.prediction.labeling import Who
from rrn.runs import finished
from rrn.runs.finished import RunCard

TEMPLATE = Path(__file__).with_name("model_card.jinja")
ANSWER = {"ensemble": "the mean of both segmenters", "1": "the first segmenter", "2": "the second segmenter"}
OVER_IMAGES = (0.025, 0.975)
"""Ends of the interval over test images."""


@dataclass(frozen=True)
class RunFacts:
    """What lies around the folder of a run; empty where it lies elsewhere.

    Attributes:
        name, key: of the run, as in runs/<name>/train/<key>.
        labels: how many images had labels, and how many had none.
        metrics: whose mIoU -> per cent on test, and its interval over test images by bootstrap.
        row: the line of the ablation table, over all its seeds.
    """

    name: str
    key: str = ""
    labels: str = ""
    metrics: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    row: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CardWords:
    """What only the user knows.

    Attributes:
        data: what it was trained on, and what that data's license asks for; None: the card says that it is not stated.
        license: of the weights, as the Hub spells it; None: none is stated.
    """

    data: str | None = None
    license: str | None = None


def gather(run: Path, card: RunCard) -> RunFacts:
    """Read prepare/, evaluate/ and results/<name> of a training runs/<name>/train/<key>.

    Raises:
        DataError: split.json is damaged.
    """
    place = finished.TRAINING.search(run.as_posix())
    if place is None:
        return RunFacts(run.name)
    name, key, runs = place["name"], place["key"], run.parents[1]
    prepared = runs / "prepare" / f"{card.partition}-{card.seed}"
    labels = ""
    if prepared.is_dir():
        split = splits.read_split(prepared)
        labels = f"{len(split.labeled)} images with labels, and {len(split.unlabeled)} without"
    row = _row(run.parents[3] / "results" / name / "ablation.csv", name, card)
    return RunFacts(name, key, labels, _metrics(runs / "evaluate" / key), row)


def _metrics(evaluated: Path) -> dict[str, tuple[float, float, float]]:
    if not (evaluated / "metrics.json").is_file():
        return {}
    found = json.loads((evaluated / "metrics.json").read_text(encoding="utf-8"))
    draws = pd.read_csv(evaluated / "bootstrap.csv")
    ends = draws.quantile(list(OVER_IMAGES)).to_dict("list")
    return {str(name).removeprefix("miou_"): (found[name], *ends[name]) for name in draws}


def _row(path: Path, name: str, card: RunCard) -> dict[str, Any]:
    if not path.is_file():
        return {}
    table = pd.read_csv(path)
    found = table[(table["name"] == name) & (table["partition"] == card.partition) & (table["method"] == card.method)]
    return {str(column): found[column].iloc[0] for column in found} if len(found) else {}


def model_card(
    card: RunCard, facts: RunFacts, who: Who, normalization: str, words: CardWords, cost: Cost | None = None
) -> str:
    """Return the card as Markdown.

    Args:
        card: run.json.
        facts: of `gather`.
        who: whose answer the single files are.
        normalization: of images by each segmenter, as text.
        words: what only the user knows.
        cost: of model_int8.onnx; None: there is none.
    """
    assert card.networks is not None
    protocol = card.evaluate
    networks = dict.fromkeys(f"{model.architecture} on {model.encoder}" for model in card.networks.model.both)
    text = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    return text.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        card=card,
        facts=facts,
        networks=" and ".join(networks),
        regions=card.networks.method.uses_discriminators,
        who=ANSWER[who],
        multiple=MULTIPLE,
        asked_again=protocol.mode != "whole" or protocol.scales != (1.0,) or protocol.flip,
        normalization=normalization,
        data=words.data,
        license=words.license,
        cost=cost,
    )
