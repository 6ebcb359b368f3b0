"""A study: all runs of the lists of `ablation:`, and the tables and figures that say what came of them. No torch.

The ablation stage writes them to results/<name>/. Which there are follows from what was run: several partitions, a
reference to differ from, the row that is explored.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rrn import config
from rrn.data import splits
from rrn.paper import collect, comparisons, reliability_plots, tables
from rrn.paper.statistics import REFERENCE, averages
from rrn.paper.table_format import Table
from rrn.plotting import figures, qualitative
from rrn.reliability.evidence import NAME, Evidence
from rrn.reliability.measures import EVERYTHING, MEASURES
from rrn.reliability.selection import kept_regions
from rrn.runtime import atomic_io, csv_files, tracking

Drawn = Iterator[tuple[str, Figure]]
"""Figures, each with the stem of its files."""

SHIPPED = ("val", "unlabeled")
"""The splits that the explorer of a fresh clone shows: test images are no place to choose by."""

EMBEDDED = ("956258db803baf62", "fb9a8f13e733d75b", "915004da95636b62")
"""Checksums of the embedded data, as `verify` finds it; its pictures may be given away.

With the scenes of params.yaml, those of presets/smoke.yaml, and as it ships.
"""


class Study:
    """The finished runs of a study.

    Args:
        runs: the folder `runs` of the repository.
        settings: without a row laid on `method`; `ablation` lists the runs.

    Raises:
        MissingRunError: if a run is not finished; says which stage to run.
    """

    def __init__(self, runs: Path, settings: config.Settings) -> None:
        self.folder, self.settings = runs, settings
        self.partitions = settings.ablation.partitions
        self.images = settings.dataset.test
        self.runs = collect.collect(runs, settings)
        self.classes = collect.collect_classes(runs, settings)
        self.history = collect.collect_curves(runs, settings, "history.csv")
        self.reliability = collect.collect_curves(runs, settings, "reliability.csv")
        self.quoted = collect.quoted(settings)

    @property
    def explored(self) -> tuple[str, ...]:
        """The row that is looked at closely, `ablation.explore`, if it was run."""
        return tuple(name for name in self.settings.ablation.methods if name == self.settings.ablation.explore)

    def may_show(self, out: Path) -> bool:
        """Whether pictures of the data may lie in a folder: in results/, which git holds, those of EMBEDDED alone."""
        if not out.resolve().is_relative_to((self.folder.parent / "results").resolve()):
            return True
        first = f"{self.partitions[0]}-{self.settings.ablation.seeds[0]}"
        prepared = self.folder / self.settings.name / "prepare" / first
        return splits.read_split(prepared).data in EMBEDDED

    def picture_folder(self, out: Path) -> Path:
        """Return where `pictures` belong: beside the other figures, or in runs/<name>/ablation if they must not."""
        return (out if self.may_show(out) else self.folder / self.settings.name / "ablation") / "figures"

    @cached_property
    def variants(self) -> Table:
        """The settings in which rows differ, what they keep, and what it is worth."""
        return tables.variants(self.runs, self.settings, self.history, self.reliability)

    def scores(self) -> pd.DataFrame:
        """Return what each score was worth in each run at each evaluation point, mean of both segmenters.

        Returns:
            partition, method, seed, step, split, score, and the measures of `rrn.reliability.measures`.
        """
        rows = self.reliability[self.reliability["class"] == EVERYTHING]
        keys = ["partition", "method", "seed", "step", "split", "score"]
        return rows.groupby(keys, sort=False)[list(MEASURES)].mean().reset_index()

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
        ]
        return {table.name: table for table in made if table is not None}

    def write(self, out: Path) -> None:
        """Write all that is no figure into a folder: tables, runs.csv, scores.csv, settings.json, what DVC shows.

        And evidence.zip, if the folder `may_show` it.
        """
        for table in self.tables().values():
            table.write(out)
        self._write_tracked(out)
        csv_files.write_csv(self.runs, out / "runs.csv")
        csv_files.write_csv(self.scores(), out / "scores.csv")
        about = json.dumps(collect.about(self.settings), indent=1)
        atomic_io.write(out / "settings.json", about + "\n")
        paths = collect.evidence_paths(self.folder, self.settings, self.partitions[0])
        for method in self.explored if self.may_show(out) else ():
            chosen = Evidence.read(paths[method])
            chosen.pack(out / NAME, [split for split in SHIPPED if split in chosen.splits and chosen.ids(split)])

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
        keys = itertools.product(self.partitions, rows)
        parts = [
            reliability_plots.risk_points(self._regions(*key)).assign(partition=key[0], method=key[1]) for key in keys
        ]
        return pd.concat(parts, ignore_index=True)[["partition", "method", "score", "coverage", "risk"]]

    def _regions(self, partition: str, method: str) -> pd.DataFrame:
        """Return the regions of the last split, of all seeds of a row."""
        paths = collect.every_evidence(self.folder, self.settings, partition)[method]
        parts = [Evidence.read(path).last().assign(seed=seed) for seed, path in paths.items()]
        return pd.concat(parts, ignore_index=True)

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

    def pictures(self) -> Drawn:
        """Draw images on which the methods differ most, of the first seed."""
        for partition in self.partitions:
            paths = collect.evidence_paths(self.folder, self.settings, partition)
            evidences = {method: Evidence.read(path) for method, path in paths.items()}
            first = next(iter(evidences.values()))
            if first.ids(first.splits[-1]):
                focus = next(iter(self.explored), None)
                yield f"qualitative_{partition}", qualitative.qualitative(evidences, first.splits[-1], focus=focus)

    def trust(self) -> Drawn:
        """Draw what each score of `explored` is worth on the test images."""
        for partition in self.partitions:
            for method in self.explored:
                regions = self._regions(partition, method)
                rule = config.in_row(self.settings, method).filter
                each = [part for _, part in regions.groupby(["seed", "segmenter"])]
                share = float(np.mean([np.average(kept_regions(part, rule), weights=part["pixels"]) for part in each]))
                yield f"risk_coverage_{partition}_{method}", reliability_plots.plot_risk_coverage(regions, share)
                yield f"calibration_{partition}_{method}", reliability_plots.reliability_diagram(regions)
