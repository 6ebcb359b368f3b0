"""A clock that jumps changes nothing: no module asks what time it is, and times of files are compared for equality."""

import re

import pytest
from conftest import ROOT

ASKING = re.compile(
    r"\btime\.(time|time_ns|localtime|gmtime)\(|\b(datetime|date)\.(now|utcnow|today)\(|mtime(?:_ns)? *[<>]"
)
SHOWN_ONLY = {"rrn/runtime/locking.py": 1, "rrn/pipeline/progress.py": 1}
"""How often a module asks for a time that people read and nothing is decided by."""


@pytest.mark.parametrize("path", sorted((ROOT / "rrn").rglob("*.py")), ids=lambda path: path.name)
def test_no_module_asks_what_time_it_is(path):
    found = ASKING.findall(path.read_text())
    assert len(found) == SHOWN_ONLY.get(path.relative_to(ROOT).as_posix(), 0)
