"""Places that a user names: what `~` and $VARIABLES in them stand for, and RRN_SCRATCH. No torch."""

from __future__ import annotations

import os
import re
from pathlib import Path


def expanded(text: str) -> str:
    """Return a path, or `SOURCE@path`, with the home folder in place of `~`, and what is set of $VARIABLES."""
    return os.path.expandvars(re.sub(r"(^|@)~(?=/|$)", r"\1$HOME", text))


def place(text: str) -> Path:
    """Return the place that a user means, as a shell would have it, which leaves --root=~/data and '~/data' alone."""
    return Path(expanded(text))


def scratch(otherwise: Path) -> Path:
    """Return the folder of what is kept while something runs: RRN_SCRATCH, or `otherwise` where that is not set."""
    named = os.environ.get("RRN_SCRATCH")
    return place(named) if named else otherwise


def literal(text: str) -> str:
    """Return a path that stands for itself; DVC reads params.yaml, too, and would miss any other.

    Raises:
        ValueError: to a shell it means another one.
    """
    meant = expanded(text)
    if meant != text:
        raise ValueError(f"in params.yaml nothing stands for ~ or a $VARIABLE, to DVC neither: write {meant}")
    return text
