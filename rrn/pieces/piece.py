"""A piece: what a finished run leaves for the tables and figures of its study, as text and back. No torch.

Numbers are rounded as in the CSV files of the run. The same run gives the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, Literal

import pandas as pd

from rrn.reliability.curves import RunCurves
from rrn.settings.limits import Section

Columns = dict[str, list[int | float | str | None]]
"""A table by column, all of one length; None: no value."""
TableName = Literal["classes", "history", "reliability", "bootstrap"]


class Origin(Section):
    """Which run a piece is of.

    Attributes:
        name, partition, method, seed: of the run.
        labels: partition | all, which labels it read.
        data: checksum of the data set, as split.json has it.
        settings: fingerprint of the settings that it was made with.
    """

    name: str
    partition: str
    method: str
    seed: int
    labels: str
    data: str
    settings: str

    @property
    def key(self) -> str:
        """Name of the run, as DVC names it."""
        return f"{self.partition}-{self.method}-{self.seed}"


class Piece(Section):
    """What a finished run leaves in git.

    Attributes:
        run: which one.
        settings: of `rrn.pieces.made_with`.
        versions: package -> version that computed it.
        metrics: mIoU and accuracy on test in per cent, None where undefined; parameters, macs.
        classes: per_class.csv of the run: class, iou_1, iou_2, iou_ensemble (per cent), pixels.
        history: of history.csv of the training the step, and what is drawn against it.
        reliability: of reliability.csv of the training what it says of all classes together.
        curves: what its scores are worth on the test images.
        bootstrap: bootstrap.csv of the run: a row per draw of test images, miou_1, miou_2, miou_mean, miou_ensemble
            (per cent).
    """

    run: Origin
    settings: dict[str, Any]
    versions: dict[str, str]
    metrics: dict[str, int | float | None]
    classes: Columns
    history: Columns
    reliability: Columns
    curves: RunCurves
    bootstrap: Columns

    def table(self, name: TableName) -> pd.DataFrame:
        """Return one of the tables; NaN where there is no value."""
        columns: Columns = getattr(self, name)
        return pd.DataFrame({column: _with_nan(values) for column, values in columns.items()})

    def text(self) -> str:
        """Return it as JSON, a line for each column and each section of the settings."""
        parts = []
        for name, section in self.model_dump(mode="json").items():
            lines = ",\n".join(f"  {_json(key)}: {_json(value)}" for key, value in section.items())
            parts.append(f" {_json(name)}: {{\n{lines}\n }}")
        return "{\n" + ",\n".join(parts) + "\n}\n"


def columns_of(table: pd.DataFrame) -> Columns:
    """Return a table by column."""
    return {
        str(name): [None if isinstance(value, float) and math.isnan(value) else value for value in values.tolist()]
        for name, values in table.items()
    }


def _json(value: Any) -> str:
    """Return a value on one line."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _with_nan(values: Iterable[int | float | str | None]) -> list[int | float | str]:
    return [math.nan if value is None else value for value in values]
