"""The ablation as tables: finished runs in, CSV for machines, Markdown and LaTeX for people out.

No torch. Every number is an IoU in per cent; a deviation is that of the sample, over seeds, and is
left empty where there is one seed only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rrn.config import Settings

REFERENCE = "cps_cutmix"
"""The row that differences refer to."""

RUN = ["name", "partition", "method", "seed", "labels"]
MIOUS = ["miou_1", "miou_2", "miou_mean", "miou_ensemble", "pixel_accuracy"]
COST = ["parameters", "macs"]
GROUP = ["name", "partition", "method"]


class MissingRunError(FileNotFoundError):
    """A run of the ablation is not finished."""


def collect(runs: Path, settings: Settings, results: Path | None = None) -> pd.DataFrame:
    """Read the test metrics of every run of `settings.ablation`, in the order of its lists.

    Args:
        runs: the folder `runs` of the repository.
        settings: what was run; `ablation.beside` adds the rows of other names' runs.csv.
        results: the folder `results`; by default beside `runs`.

    Returns:
        one row per run: name, partition, method, seed, labels (partition | all), miou_1, miou_2,
        miou_mean, miou_ensemble, pixel_accuracy (per cent), parameters, macs.

    Raises:
        MissingRunError: if a run is not finished; says which stage to run.
    """
    rows = []
    for folder, run in _finished(runs, settings, "evaluate", "metrics.json"):
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        rows.append({**run, **{key: metrics[key] for key in (*MIOUS, *COST)}})
    table = pd.DataFrame(rows, columns=[*RUN, *MIOUS, *COST])
    table[MIOUS] = table[MIOUS].astype(float)
    others = [_beside(results or runs.parent / "results", name) for name in settings.ablation.beside]
    return pd.concat([table, *others], ignore_index=True)


def collect_classes(runs: Path, settings: Settings) -> pd.DataFrame:
    """Average the IoU of every class over the seeds of each row.

    Returns:
        name, partition, method, class, iou_mean (over seeds and both segmenters), iou_ensemble
        (over seeds; per cent, NaN where a class is absent), pixels of the truth, n seeds.

    Raises:
        MissingRunError: see `collect`.
    """
    parts = []
    for folder, run in _finished(runs, settings, "evaluate", "per_class.csv"):
        part = pd.read_csv(folder / "per_class.csv")
        part.insert(0, "iou_mean", part[["iou_1", "iou_2"]].mean(axis=1))
        parts.append(part.assign(**{key: run[key] for key in GROUP}, n=1))
    grouped = pd.concat(parts).groupby([*GROUP, "class"], sort=False)
    how = {"iou_mean": "mean", "iou_ensemble": "mean", "pixels": "first", "n": "sum"}
    return grouped.agg(how).reset_index()


def collect_curves(runs: Path, settings: Settings, file: str) -> pd.DataFrame:
    """Join a file that every training leaves: history.csv or reliability.csv.

    Returns:
        its columns, and name, partition, method, seed, labels of the run.

    Raises:
        MissingRunError: see `collect`.
    """
    finished = _finished(runs, settings, "train", file)
    return pd.concat([pd.read_csv(folder / file).assign(**run) for folder, run in finished], ignore_index=True)


def collect_evidence(runs: Path, settings: Settings, partition: str) -> dict[str, dict[str, Any]]:
    """Read what the qualitative figure shows of a partition: method -> arrays of evidence.npz, of the first seed.

    Raises:
        MissingRunError: see `collect`.
    """
    first = settings.ablation.seeds[0]
    finished = _finished(runs, settings, "evaluate", "evidence.npz")
    chosen = [(f, run) for f, run in finished if run["partition"] == partition and run["seed"] == first]
    return {run["method"]: dict(np.load(folder / "evidence.npz")) for folder, run in chosen}


def _finished(runs: Path, settings: Settings, stage: str, file: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield folder and description of every run of the ablation; raise where one has not left the file."""
    for partition in settings.ablation.partitions:
        for method in settings.ablation.methods:
            labels = settings.methods[method].get("labels", settings.method.labels)
            for seed in settings.ablation.seeds:
                key = f"{partition}-{method}-{seed}"
                folder = runs / settings.name / stage / key
                if not (folder / file).is_file():
                    where = Path(runs.name, settings.name, stage, key, file)
                    raise MissingRunError(f"{where} is missing: run `dvc repro {stage}@{key}`")
                run = [settings.name, partition, method, seed, labels]
                yield folder, dict(zip(RUN, run, strict=True))


def _beside(results: Path, name: str) -> pd.DataFrame:
    """Return the runs of another name, as its ablation stage wrote them."""
    path = results / name / "runs.csv"
    if not path.is_file():
        raise MissingRunError(
            f"ablation.beside: {Path(results.name, name, 'runs.csv')} is missing: run "
            f"`dvc repro` with name: {name} first, or take {name} out of the list"
        )
    return pd.read_csv(path, dtype={"partition": str, "name": str})


def ablation(runs: pd.DataFrame) -> pd.DataFrame:
    """Average the runs over seeds, one row per name, partition and method, in their order.

    Args:
        runs: of `collect`.

    Returns:
        name, partition, method, labels, n, miou_mean and miou_std (of the mean of the two
        segmenters), miou_ensemble, ensemble_std, difference and difference_std (to cps_cutmix,
        paired over the seeds that both have; to that of the same name, else of another one),
        parameters, macs, best. Deviations and differences are NaN where n is 1. `best` marks a row that leads its
        partition by more than its own deviation and that of the second; rows that read all labels
        of a smaller partition do not compete.
    """
    rows = []
    for (name, partition, method), part in runs.groupby(GROUP, sort=False):
        difference = _difference(part, runs, str(name), str(partition))
        rows.append(
            {
                **{"name": name, "partition": partition, "method": method},
                **{"labels": part["labels"].iloc[0], "n": len(part)},
                **{"miou_mean": part["miou_mean"].mean(), "miou_std": part["miou_mean"].std()},
                "miou_ensemble": part["miou_ensemble"].mean(),
                "ensemble_std": part["miou_ensemble"].std(),
                **{"difference": difference.mean(), "difference_std": difference.std()},
                **{key: int(part[key].iloc[0]) for key in COST},
            }
        )
    table = pd.DataFrame(rows)
    table["best"] = False
    for _, part in table.groupby("partition", sort=False):
        table.loc[_best(part), "best"] = True
    return table


def _difference(part: pd.DataFrame, runs: pd.DataFrame, name: str, partition: str) -> pd.Series:
    """Return miou_mean minus that of the reference, for each seed that both have; not of one."""
    if part["method"].iloc[0] == REFERENCE:
        return pd.Series(dtype=float)
    reference = runs[(runs["method"] == REFERENCE) & (runs["partition"] == partition)]
    if (reference["name"] == name).any():
        reference = reference[reference["name"] == name]
    reference = reference.drop_duplicates("seed").set_index("seed")
    paired = (part.set_index("seed")["miou_mean"] - reference["miou_mean"]).dropna()
    return paired if len(paired) > 1 else paired.iloc[:0]


def _best(part: pd.DataFrame) -> list[Any]:
    """Return the index of the row that clearly leads a partition, in a list; or an empty one."""
    rivals = part[(part["labels"] == "partition") | (part["partition"] == "all")]
    top = rivals.nlargest(2, "miou_mean")
    if len(top) < 2 or (top["n"] < 2).any():
        return []
    lead = top["miou_mean"].iloc[0] - top["miou_mean"].iloc[1]
    return [top.index[0]] if lead > top["miou_std"].max() else []


def write(table: pd.DataFrame, folder: Path, images: str = "test") -> None:
    """Write ablation.csv, ablation.md and ablation.tex into `folder`.

    Args:
        table: of `ablation`.
        folder: made if missing.
        images: the split that was evaluated.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(table, folder / "ablation.csv")
    (folder / "ablation.md").write_text(markdown(table, images), encoding="utf-8")
    (folder / "ablation.tex").write_text(latex(table, images), encoding="utf-8")


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table with fixed formatting, so that the same numbers give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


def caption(table: pd.DataFrame, images: str = "test") -> str:
    """Say what the numbers of a table of `ablation` are, on which split, and over how many seeds."""
    counts = sorted(set(table["n"]))
    seeds = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}, see column"
    text = f"mIoU on {images} in per cent: mean of the two segmenters, and their ensemble; {seeds}"
    if counts[-1] == 1:
        return f"{text}, so no deviation and no ranking."
    return (
        f"{text}, mean ± standard deviation over seeds; difference to {REFERENCE}, paired over seeds; "
        "bold: ahead of the second by more than either deviation."
    )


HEADER = ["partition", "method", "n", "mIoU", "ensemble", "difference", "parameters", "MACs"]


def _cells(table: pd.DataFrame) -> list[list[str]]:
    """Return header and rows as text; the best number stands between **."""
    several = len(set(table["name"])) > 1
    lines = [[*(["name"] if several else []), *HEADER]]
    for row in table.to_dict("records"):
        mean = _number(row["miou_mean"], row["miou_std"])
        cells = [
            *([str(row["name"])] if several else []),
            *[str(row[key]) for key in ("partition", "method", "n")],
            f"**{mean}**" if row["best"] else mean,
            _number(row["miou_ensemble"], row["ensemble_std"]),
            _number(row["difference"], row["difference_std"], sign="+"),
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['macs'] / 1e9:.3f} G",
        ]
        lines.append(cells)
    return lines


def _number(mean: float, deviation: float, sign: str = "") -> str:
    """Return 'mean ± deviation', the mean alone, or nothing."""
    if pd.isna(mean):
        return ""
    text = format(mean, f"{sign}.2f")
    return text if pd.isna(deviation) else f"{text} ± {deviation:.2f}"


def markdown(table: pd.DataFrame, images: str = "test") -> str:
    """Return a table of `ablation` in Markdown, with its caption below."""
    header, *rows = _cells(table)
    right = [":--" if name in ("name", "partition", "method") else "--:" for name in header]
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, right, *rows)]
    return "\n".join(lines) + f"\n\n{caption(table, images)}\n"


def latex(table: pd.DataFrame, images: str = "test") -> str:
    """Return a table of `ablation` in LaTeX; needs the package booktabs."""
    header, *rows = _cells(table)
    columns = "".join("l" if name in ("name", "partition", "method") else "r" for name in header)
    lines = [" & ".join(map(_escape, cells)) + r" \\" for cells in (header, *rows)]
    body = ["\\toprule", lines[0], "\\midrule", *lines[1:], "\\bottomrule", "\\end{tabular}"]
    head = ["\\begin{table}", "\\centering", f"\\caption{{{_escape(caption(table, images))}}}"]
    return "\n".join([*head, f"\\begin{{tabular}}{{{columns}}}", *body, "\\end{table}"]) + "\n"


LATEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", **{mark: "\\" + mark for mark in "&%$#_{}"}}


def _escape(text: str) -> str:
    """Return text for LaTeX; **text** becomes bold."""
    escaped = "".join(LATEX.get(character, character) for character in text)
    return re.sub(r"^\*\*(.*)\*\*$", r"\\textbf{\1}", escaped)
