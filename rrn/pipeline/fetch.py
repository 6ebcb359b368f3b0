"""Fetch the embedded data, and lose nothing: `python -m rrn.fetch`.

DVC fetches into its cache, which touches no file of data/. The files are laid out only if none there was changed or
added by hand. A copy without git, such as an unpacked archive, is told to DVC first.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from rrn import config
from rrn.data.image_set import EMBEDDED
from rrn.pipeline import git

DVC = [sys.executable, "-m", "dvc"]
"""Starts dvc."""

TRACKED, REMOTE = "data.dvc", "datastore"
SHOWN = 3
"""Files of each kind that a message names."""


class FetchError(ValueError):
    """The embedded data is not there as it shipped; nothing was changed."""


def fetch(command: list[str], root: Path) -> None:
    """Bring the embedded data into data/ where it is missing.

    Args:
        command: that starts dvc.
        root: the repository.

    Raises:
        FetchError: dvc failed and has said why, or files were changed or added by hand; says what to move.
        git.RefusedError: git does not answer, and dvc would not.
    """
    allow_no_git(command, root)
    with suppress(git.NotHeldError):
        git.committed(root, TRACKED)
    if not status(command, root, EMBEDDED):
        return
    _run(command, root, "fetch", "--remote", REMOTE, TRACKED)
    if differing := by_hand(status(command, root, EMBEDDED)):
        raise FetchError(_advice(root, differing))
    _run(command, root, "checkout", TRACKED)


def allow_no_git(command: list[str], root: Path) -> None:
    """Let dvc work where no folder above holds a git repository, as in an unpacked archive.

    Raises:
        FetchError: dvc failed and has said why.
    """
    local = root / ".dvc" / "config.local"
    if any((folder / ".git").exists() for folder in (root, *root.parents)):
        return
    if not (local.is_file() and "no_scm" in local.read_text(encoding="utf-8")):
        print(
            f"no git repository here: dvc is told so in {local.relative_to(root)}, `no_scm = true`; "
            "after `git init` delete that line"
        )
        _run(command, root, "config", "--local", "core.no_scm", "true")


def by_hand(found: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the files of a `status` that a checkout would overwrite or remove: changed | added -> paths, no folder."""
    kinds = {"changed": ("modified", "unknown"), "added": ("added",)}
    files = {
        kind: sorted(path for name in names for path in found.get(name, []) if not path.endswith("/"))
        for kind, names in kinds.items()
    }
    return {kind: paths for kind, paths in files.items() if paths}


def _advice(root: Path, differing: dict[str, list[str]]) -> str:
    """Say what differs, and what keeps it."""
    parts = []
    for kind, paths in differing.items():
        files = [path.removeprefix(f"{EMBEDDED}/") for path in paths]
        more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
        parts.append(f"{kind} {', '.join(files[:SHOWN])}{more}")
    names = (f"{EMBEDDED}_{number}" for number in itertools.count(2))
    free = next(name for name in names if not (root / name).exists())
    return (
        f"{EMBEDDED} is not as it shipped ({'; '.join(parts)}), and nothing was touched. "
        f"`mv {EMBEDDED} {free}` keeps it, to be used as dataset.path={free}, and the same command goes on"
    )


def status(command: list[str], root: Path, *targets: str) -> dict[str, list[str]]:
    """Return what is not as dvc knows it, kind -> paths relative to `root`; empty: nothing, and all is cached.

    Args:
        command: that starts dvc.
        root: the repository.
        targets: outputs; none: all.

    Raises:
        FetchError: dvc failed and has said why.
    """
    words = [*command, "data", "status", "--granular", "--json", *targets]
    shown = subprocess.run(words, cwd=root, stdout=subprocess.PIPE, text=True, check=False)
    if shown.returncode:
        raise FetchError("dvc does not say which of its files are there, see above")
    told = json.loads(shown.stdout)
    found = {"not in cache": told.get("not_in_cache", []), **told.get("uncommitted", {})}
    found["added"] = [*found.get("added", []), *(pair["new"] for pair in found.pop("renamed", []))]
    return {kind: paths for kind, paths in found.items() if paths}


def _run(command: list[str], root: Path, *arguments: str) -> None:
    """Run dvc; raise FetchError where it fails, which it has explained."""
    if subprocess.run([*command, *arguments], cwd=root, check=False).returncode:
        raise FetchError(f"the embedded data could not be fetched, `dvc {' '.join(arguments)}` failed, see above")


def main() -> int:
    """Run the command line."""
    try:
        fetch(DVC, config.find_root())
    except (FetchError, git.GitError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
