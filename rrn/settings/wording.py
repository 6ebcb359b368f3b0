"""Values as messages show them."""

from __future__ import annotations

import reprlib
from typing import Any


class _Short(reprlib.Repr):
    """Values as an error shows them: as YAML calls them, and never longer than a line, whatever was written."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 80
        self.maxlevel = 2

    def repr_int(self, x: int, level: int) -> str:
        """Return a number; of one that is too long to be read, its length."""
        return super().repr_int(x, level) if x.bit_length() <= 256 else f"a number of {x.bit_length()} bits"

    def repr_bool(self, x: bool, _: int) -> str:
        """Return true or false."""
        return str(x).lower()

    def repr_NoneType(self, *_: Any) -> str:
        """Return null."""
        return "null"


def short(value: Any) -> str:
    """Return a value as an error shows it, shortened where it is long."""
    return _Short().repr(value)
