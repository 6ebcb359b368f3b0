"""What the last commit holds of a file, wherever in a git repository this one lies."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


class GitError(ValueError):
    """What git holds cannot be told."""


class NotHeldError(GitError):
    """Git holds no such file: there is no git program, no repository or no commit, or the file is not in it."""


class RefusedError(GitError):
    """Git does not answer, as in a repository of another owner."""


def committed(root: Path, file: str) -> str:
    """Return the text of a file as the last commit holds it.

    Args:
        root: folder of this repository; it may lie in that of another one.
        file: relative to `root`.

    Raises:
        NotHeldError: there is none.
        RefusedError: git does not answer.
    """
    command = ["git", "show", f"HEAD:./{file}"]
    words = {**os.environ, "LC_ALL": "C", "LANGUAGE": ""}
    try:
        shown = subprocess.run(command, cwd=root, env=words, capture_output=True, text=True, check=False)
    except OSError as error:  # there is none, or none that this user may start
        raise NotHeldError(f"git has no {file}: there is no program `git`") from error
    if shown.returncode:
        raise _explained(root, file, shown.stderr.strip())
    return shown.stdout


def _explained(root: Path, file: str, said: str) -> GitError:
    """Return the error for what git said."""
    if "not a git repository" in said:
        return NotHeldError(f"git has no {file}: {root} lies in no git repository")
    if "does not exist in" in said or "not in 'HEAD'" in said or "invalid object name 'HEAD'" in said:
        return NotHeldError(f"git has no {file}: it was never committed")
    if "dubious ownership" in said:
        return RefusedError(f"git refuses {root}, which another user owns: `{said.splitlines()[-1].strip()}` allows it")
    return RefusedError(f"git does not show {file}: {' '.join(said.split())}")
