"""Do two processors compute the same bits? Two steps of `rrn` as a stage takes them, and the sha256 of what they leave.

python benchmarks/bits.py                                   # needs the warmup of seed 0: dvc repro warmup@1of16-0
qemu-x86_64 -cpu EPYC-Rome .venv/bin/python benchmarks/bits.py      # an emulated processor; minutes
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from rrn.stage import PORTABLE

SHORT = {
    "train": {"steps": 2},
    "log": {"every": 1, "evaluate": 2, "checkpoint": 2, "diagnose": 4},
    "evaluate": {"batch": 8},
}


def main() -> None:
    """Print a line for each file."""
    os.environ.update(PORTABLE)
    from rrn import train  # starts torch, which reads the environment then

    with tempfile.TemporaryDirectory() as folder:
        os.environ["RRN_SCRATCH"] = f"{folder}/scratch"
        list(train.run("train", "1of16", "rrn", 0, Path(folder), SHORT))
        for path in sorted(Path(folder).glob("*.*")):
            print(path.name, hashlib.sha256(path.read_bytes()).hexdigest()[:16])


if __name__ == "__main__":
    main()
