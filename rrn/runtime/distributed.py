"""One training on several processes: what must be summed over them, and nothing else. With one process: identities.

Every process holds the same weights and its own share of each global batch. A loss is written as *local sum over a
global count*, so that the sum of the processes' losses is the loss of the whole batch, and the sum of their gradients
is its gradient.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rrn.runtime.errors import SettingsError

TIMEOUT = 600
"""Seconds that a process waits for the others in one message before it fails; `RRN_TIMEOUT` sets another number."""
NOTHING = object()
"""Stands where a process has one item less than another."""


def start(device: torch.device) -> None:
    """Join the process group that torchrun announces in the environment, if it does.

    Raises:
        SettingsError: there are fewer GPUs here than processes, or `RRN_TIMEOUT` is no number of seconds.
    """
    if "WORLD_SIZE" in os.environ and int(os.environ["WORLD_SIZE"]) > 1 and not dist.is_initialized():
        if device.type == "cuda":
            here, known = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
            if here >= known:
                shared = ", or unset RRN_DEVICES, which leaves one" if "RRN_DEVICES" in os.environ else ""
                raise SettingsError(f"nproc: more processes than the {known} GPUs of this machine; lower nproc{shared}")
            torch.cuda.set_device(here)  # one GPU each: "cuda" is this one from here on
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timeout())


def timeout() -> timedelta:
    """Return how long a process waits for the others in one message.

    Raises:
        SettingsError: `RRN_TIMEOUT` is no number of seconds.
    """
    seconds = os.environ.get("RRN_TIMEOUT", str(TIMEOUT))
    if not seconds.isdecimal() or not 0 < int(seconds) <= 10**6:
        raise SettingsError(f"RRN_TIMEOUT={seconds!r} is no whole number of seconds from 1 to 1000000")
    return timedelta(seconds=int(seconds))


def stop() -> None:
    """Leave the process group, when all processes have come this far: one that still writes is not left alone."""
    if dist.is_initialized():
        all_gather_object(None)
        dist.destroy_process_group()


def world() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, 0 for the one that writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def all_reduce_sum(value: Tensor) -> Tensor:
    """Sum a tensor over the processes; its gradient is that of this process's own part."""
    if world() == 1:
        return value
    everywhere = value.detach().clone()
    dist.all_reduce(everywhere)
    return value + (everywhere - value.detach())


def split_value(value: Tensor) -> Tensor:
    """Turn a loss that every process knows whole into shares that sum to it; gradients stay those of the own part."""
    return value if world() == 1 else value - value.detach() * (1 - 1 / world())


def all_gather(values: Tensor) -> Tensor:
    """Concatenate a tensor of equal shape on all processes along its first dimension, without gradient."""
    if world() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(world())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)


def reduce_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Sum the gradients over the processes, all in one message."""
    if world() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    _spread(flat, gradients)


def all_reduce_mean(buffers: Iterable[Tensor]) -> None:
    """Average float buffers over the processes, all in one message: the running statistics of batch norm.

    Each process sees its own part of a batch; SyncBatchNorm alone, which needs a GPU, sees all of it.
    """
    if world() == 1:
        return
    local = list(buffers)
    flat = torch.cat([buffer.flatten() for buffer in local])
    dist.all_reduce(flat)
    _spread(flat / world(), local)


def _spread(flat: Tensor, tensors: list[Tensor]) -> None:
    """Copy the parts of a flat tensor into the tensors whose values it holds, in few kernels on a GPU."""
    parts = flat.split([tensor.numel() for tensor in tensors])
    torch._foreach_copy_(tensors, [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)])


def all_gather_object(value: Any) -> list[Any]:
    """Return the values of all processes, in their order, on every process."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values


def interleave_shards(mine: Sequence[Any]) -> list[Any]:
    """Put together a sequence of which every process has the items rank, rank + world, ...: the same for any world."""
    turns = itertools.zip_longest(*all_gather_object(list(mine)), fillvalue=NOTHING)
    return [item for turn in turns for item in turn if item is not NOTHING]


def broadcast_object(value: object) -> Any:
    """Return process 0's value on every process; tensors in it must be on the CPU."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]
