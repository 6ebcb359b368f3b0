"""Do two processors compute the same bits? Two steps of `rrn` on made-up images, and the sha256 of the networks.

    python benchmarks/bits.py
    qemu-x86_64 -cpu EPYC-Rome .venv/bin/python benchmarks/bits.py      # an emulated processor; minutes

`--free` lets torch's libraries use whatever the processor offers, as they do without `rrn.stage`.
"""

from __future__ import annotations

import argparse
import hashlib
import os

from rrn.runtime.portable import PORTABLE

CLASSES, STEPS = 8, 2


def main() -> None:
    """Print the sha256 of each kind of network after each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--free", action="store_true")
    if not parser.parse_args().free:
        os.environ.update(PORTABLE)

    import torch  # reads the environment when it starts

    from rrn import config
    from rrn.data.batches import Batch
    from rrn.method import RRN
    from rrn.training.learner import Learner, prepare_for

    torch.set_num_threads(1)
    settings = config.load("rrn")
    model = prepare_for(RRN(settings, CLASSES, seed=0), torch.device("cpu"), settings.speed).train()
    learner = Learner(model, settings, settings.train, decay=True)
    draw = torch.Generator().manual_seed(0)
    crop = settings.augment.crop

    def images() -> torch.Tensor:
        return torch.randint(0, 256, (4, 3, crop, crop), dtype=torch.uint8, generator=draw)

    valid = torch.ones(4, 1, crop, crop, dtype=torch.bool)
    labels = torch.randint(0, CLASSES, (4, crop, crop), generator=draw)
    mix = torch.rand(4, 1, crop, crop, generator=draw) < 0.5
    batch = Batch(images(), labels, (images(), images()), (valid, valid), mix, (), ((), ()))
    for step in range(STEPS):
        learner.step(batch, step)
        for networks in ("segmenters", "discriminators"):
            weights = b"".join(p.detach().numpy().tobytes() for p in getattr(model, networks).state_dict().values())
            print(step, networks, hashlib.sha256(weights).hexdigest()[:16], flush=True)


if __name__ == "__main__":
    main()
