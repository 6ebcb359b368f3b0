"""Every random draw is a function of (seed, purpose, step, index): nothing else, so nothing has to be remembered.

Rows of the ablation, loader workers, processes and a resumed run therefore see the same data and boxes. Dropout
is drawn by process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, purpose: str, step: int = 0, index: int = 0) -> int:
    """Return a number in [0, 2**63) that depends on all four arguments and on nothing else."""
    text = f"{seed}/{purpose}/{step}/{index}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, purpose: str, step: int = 0, index: int = 0) -> torch.Generator:
    """Return a CPU generator for one draw, or one group of draws that belong together."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, step, index))


@contextmanager
def fork(seed: int, purpose: str, step: int = 0, index: int = 0) -> Iterator[None]:
    """Let torch's global generators (CPU and GPU) serve one draw; they are as before afterwards.

    For code of others that takes no generator: dropout, initialization, torchvision's transforms.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive_seed(seed, purpose, step, index))
        yield
