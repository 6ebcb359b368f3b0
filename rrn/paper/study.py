"""A study: all runs of the lists of `ablation:`, and the tables and figures that say what came of them. No torch.

The ablation stage writes them to results/<name>/. They are made from the pieces of the runs (`rrn.pieces`) alone, so
that a clone in which nothing was trained makes them, too. Which there are follows from what was run: several
partitions, a reference to differ from, the row that is explored.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from rrn import config
from rrn.paper import collect, comparisons, reliability_plots, statistics, tables, validation
from rrn.paper.statistics import REFERENCE, averages
from rrn.paper.table_format import Table
from rrn.pieces import store
from rrn.plotting import figures
from rrn.reliability.curves import RunCurves
from rrn.reliability.measures import EVERYTHING, MEASURES
from rrn.runtime import atomic_io, csv_files, tracking

Drawn = Iterator[tuple[str, Figure]]
"""Figures, each with the stem of its files."""


class Study:
    """The finished runs of a study.

    Args:
        root: the repository.
        settings: without a row laid on `method`; `ablation` lists the runs.

    Raises:
        PieceError: the piece of a run is missing, damaged, or of other settings or data; says what to do.
        MissingRunError, SettingsError: as `collect.collect`.
    """

    def __init__(self, root: Path, settings: config.Settings) -> None:
        self.settings = settings
        self.partitions = settings.ablation.partitions
        self.images = settings.dataset.test
        self.pieces = store.read_pieces(root, settings)
        self.runs = collect.collect(self.pieces, settings, root / "results")
        self.classes = collect.collect_classes(self.pieces)
        self.history = collect.collect_table(self.pieces, "history")
        self.reliability = collect.collect_table(self.pieces, "reliability").assign(**{"class": EVERYTHING})
        self.quoted = collect.quoted(settings)

    @property
    def explored(self) -> tuple[str, ...]:
        """The row that is looked at closely, `ablation.explore`, if it was run."""
        return tuple(name for name in self.settings.ablation.methods if name == self.settings.ablation.explore)

    @cached_property
    def variants(self) -> Table:
        """The settings in which rows differ, what they keep, and what it is worth."""
        return tables.variants(self.runs, self.settings, self.history, self.reliability)

    def scores(self) -> pd.DataFrame:
        """Return what each score was worth in each run at each evaluation point, mean of both segmenters.

        Returns:
            partition, method, seed, step, split, score, and the measures of `rrn.reliability.measures`.
        """
        keys = ["partition", "method", "seed", "step", "split", "score"]
        return self.reliability.groupby(keys, sort=False)[list(MEASURES)].mean().reset_index()

    def last_scores(self) -> pd.DataFrame:
        """Return `scores` at the last step, mean over seeds."""
        scores = self.scores()
        last = scores[scores["step"] == scores["step"].max()].drop(columns=["seed", "step"])
        return last.groupby(["partition", "method", "split", "score"], sort=False).mean()

    def tables(self) -> dict[str, Table]:
        """Return the tables by the stem of their files."""
        made = [
            tables.ablation(self.runs, self.images),
            tables.partitions(self.runs, self.images, self.quoted),
            self.variants,
            tables.per_class(self.classes, self.images),
            tables.class_gain(self.classes, self.images),
            validation.validation(self.history, self.reliability),
        ]
        return {table.name: table for table in made if table is not None}

    def write(self, out: Path) -> None:
        """Write all that is no figure into a folder: tables as text and numbers, settings.json, what DVC shows."""
        for table in self.tables().values():
            table.write(out)
        self._write_tracked(out)
        csv_files.write_csv(self.runs, out / "runs.csv")
        csv_files.write_csv(self.scores(), out / "scores.csv")
        csv_files.write_csv(self.over_images(), out / "bootstrap.csv")
        csv_files.write_csv(statistics.each_pair(self._own_runs()), out / "pairs.csv")
        about = json.dumps(collect.about(self.settings, self.pieces), indent=1)
        atomic_io.write(out / "settings.json", about + "\n")

    def over_images(self) -> pd.DataFrame:
        """Return how far the mIoU of rows would move with other test images: see `statistics.over_images`."""
        return statistics.over_images(self._own_runs(), collect.collect_table(self.pieces, "bootstrap"))

    def _own_runs(self) -> pd.DataFrame:
        """Return the runs of this study, without those beside it."""
        return self.runs[self.runs["name"] == self.settings.name]

    def _write_tracked(self, out: Path) -> None:
        """Write what dvc.yaml names as metrics and plots: means by row, and curves."""
        rows = tables.ablation(self.runs, self.images).numbers
        tracking.write_rows(rows[rows["name"] == self.settings.name], out / "metrics")
        csv_files.write_csv(tracking.training_curves(self.history), out / "training_curves.csv")
        csv_files.write_csv(self.risk_curves(), out / "risk_coverage.csv")

    def risk_curves(self) -> pd.DataFrame:
        """Return the risk-coverage curves of `explored`; where it was not run, those of the first row.

        Returns:
            partition, method, score, coverage and risk, both in per cent.
        """
        rows = self.explored or self.settings.ablation.methods[:1]
        parts = [
            reliability_plots.risk_points(self._curves(partition, row)).assign(partition=partition, method=row)
            for partition, row in itertools.product(self.partitions, rows)
        ]
        return pd.concat(parts, ignore_index=True)[["partition", "method", "score", "coverage", "risk"]]

    def _curves(self, partition: str, method: str) -> list[RunCurves]:
        """Return what the scores of a row are worth on the test images, of all seeds."""
        chosen = partition, method
        return [piece.curves for piece in self.pieces if (piece.run.partition, piece.run.method) == chosen]

    def results(self) -> Drawn:
        """Draw what came out: partitions, settings that vary, classes and gains."""
        if len(self.partitions) > 1:
            yield (
                "partitions",
                comparisons.plot_partitions(self.runs[self.runs["name"] == self.settings.name], self.quoted),
            )
        for partition, part in self.variants.numbers.groupby("partition", sort=False):
            yield f"variants_{partition}", comparisons.sweep(self._with_reference(part, str(partition)))
        yield "per_class", figures.plot_per_class(self.tables()["per_class"].numbers)
        if "class_gain" in self.tables():
            yield "per_class_gain", comparisons.per_class_gain(self.classes)

    def _with_reference(self, rows: pd.DataFrame, partition: str) -> pd.DataFrame:
        """Return rows of a partition, and the reference of a study beside this one if it has none of its own."""
        if (rows["method"] == REFERENCE).any():
            return rows
        others = averages(self.runs)
        known = others[(others["method"] == REFERENCE) & (others["partition"] == partition)]
        return pd.concat([rows, known.iloc[:1][["name", "partition", "method", "miou_mean", "miou_std"]]])

    def curves(self) -> Drawn:
        """Draw what happened in training: losses, mIoU, pseudo-labels; and what the scores of `explored` were worth."""
        for partition, part in self.history.groupby("partition", sort=False):
            yield f"training_curves_{partition}", comparisons.plot_training_curves(part)
        for key, part in self.reliability.groupby(["partition", "method"], sort=False):
            if key[1] in self.explored:
                yield f"reliability_{key[0]}_{key[1]}", figures.reliability_curves(part)

    def trust(self) -> Drawn:
        """Draw what each score of `explored` is worth on the test images."""
        for partition, method in itertools.product(self.partitions, self.explored):
            curves = self._curves(partition, method)
            yield f"risk_coverage_{partition}_{method}", reliability_plots.plot_risk_coverage(curves)
            yield f"calibration_{partition}_{method}", reliability_plots.reliability_diagram(curves)
