"""Pictures of the data with what the rows made of them, and the evidence.zip that git ships. No torch.

They are made from the evidence.zip of runs, which git does not hold: the pictures stage needs these runs on its
machine, and is a stage of its own so that nothing else does. Images of a data set other than the embedded one stay in
runs/<name>/pictures/, where git does not look.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from rrn.config import Settings
from rrn.pieces import store
from rrn.plotting import qualitative
from rrn.reliability.evidence import NAME, Evidence, EvidenceError
from rrn.runtime import atomic_io

SHIPPED = ("val", "unlabeled")
"""The splits that the explorer of a fresh clone shows: test images are no place to choose by."""

EMBEDDED = ("956258db803baf62", "fb9a8f13e733d75b", "915004da95636b62")
"""Checksums of the embedded data, as `verify` finds it; its pictures may be given away.

With the scenes of params.yaml, those of presets/smoke.yaml, and as it ships.
"""


class Gallery:
    """The pictures of a study: those of the first seed of each row.

    Args:
        root: the repository.
        settings: without a row laid on `method`; `ablation` lists the runs.

    Raises:
        EvidenceError: the evidence.zip of a run is not here; says which stage leaves it.
        PieceError: as `store.read_piece`.
    """

    def __init__(self, root: Path, settings: Settings) -> None:
        self.root, self.settings = root, settings
        self.paths = {key: root / path for key, path in store.evidence_of(settings).items()}
        for key, path in self.paths.items():
            if not path.is_file():
                raise EvidenceError(f"{path.relative_to(root)} is missing: run `dvc repro evaluate@{key}`")
        self.data = store.read_piece(root, settings, next(iter(self.paths))).run.data

    def may_show(self, out: Path) -> bool:
        """Whether pictures of the data may lie in a folder: in results/, which git holds, those of EMBEDDED alone."""
        return self.data in EMBEDDED or not out.resolve().is_relative_to((self.root / "results").resolve())

    def figure_folder(self, out: Path) -> Path:
        """Return where `figures` belong: in a folder, or in runs/<name>/pictures if they must not."""
        return (out if self.may_show(out) else self.root / "runs" / self.settings.name / "pictures") / "figures"

    def figures(self) -> Iterator[tuple[str, Figure]]:
        """Draw images on which the methods differ most, for each partition; each with the stem of its files."""
        lists = self.settings.ablation
        focus = lists.explore if lists.explore in lists.methods else None
        for partition in lists.partitions:
            evidences = {row: self._evidence(partition, row) for row in lists.methods}
            first = next(iter(evidences.values()))
            if first.ids(first.splits[-1]):
                yield f"qualitative_{partition}", qualitative.qualitative(evidences, first.splits[-1], focus=focus)

    def write(self, out: Path) -> None:
        """Write into a folder evidence.zip of `ablation.explore`, if it was run and may lie there, and pictures.json.

        That says which evidence the pictures are of: run -> 12 hexadecimal digits of its file.
        """
        lists = self.settings.ablation
        if lists.explore in lists.methods and self.may_show(out):
            chosen = self._evidence(lists.partitions[0], str(lists.explore))
            chosen.pack(out / NAME, [split for split in SHIPPED if split in chosen.splits and chosen.ids(split)])
        digests = {key: hashlib.sha256(path.read_bytes()).hexdigest()[:12] for key, path in self.paths.items()}
        atomic_io.write(out / "pictures.json", json.dumps(digests, indent=1) + "\n")

    def _evidence(self, partition: str, row: str) -> Evidence:
        return Evidence.read(self.paths[f"{partition}-{row}-{self.settings.ablation.seeds[0]}"])
