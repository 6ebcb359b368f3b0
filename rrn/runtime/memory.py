"""Memory that does not suffice, told with the settings that need less; how much of it one pass may take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

ON_THE_CPU = "can't allocate memory"
"""What torch says there, in a RuntimeError like any other."""
BY_LIBRARIES = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""What libraries of a GPU say that allocate by themselves, likewise."""

Remedies = Mapping[str, bool]
"""A setting that needs less memory and what it costs -> whether it is there to be taken."""


class MemoryShortage(RuntimeError):
    """There is not enough memory; the message says which settings need less."""


def is_shortage(error: RuntimeError) -> bool:
    """Say whether an error means that memory is used up."""
    signs = (ON_THE_CPU, *BY_LIBRARIES)
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in signs)


@contextmanager
def explain_oom(
    what: str, remedies: Callable[[], Remedies], kind: type[MemoryShortage] = MemoryShortage
) -> Iterator[None]:
    """Turn an error for lack of memory into one that says what to do.

    Args:
        what: does not fit, as the message begins.
        remedies: to need less; asked only when it is too late.
        kind: of the error.

    Raises:
        MemoryShortage: of this `kind`.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_shortage(error):
            raise
        said = str(error).partition("\n")[0]
        lines = "\n  ".join(way for way, there in remedies().items() if there)
        raise kind(f"{what} does not fit into memory ({said}); what would need less:\n  {lines}") from error


def at_once(size: tuple[int, int], batch: int, pixels: int) -> int:
    """Return how many images, or windows, of a size (height, width) go through the networks in one pass.

    Args:
        size: of each.
        batch: most of them.
        pixels: most of them all together; one that has more goes alone.
    """
    height, width = size
    return max(1, min(batch, pixels // (height * width)))
