"""The environment: `python -I rrn/environment.py VENV PYTHON...` makes it where there is none that fits.

`require_environment` tells a Python that is another one. All of this runs on any Python 3, without packages: it is
for those who have not got the right one yet.
"""

import hashlib
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ROOT / "pyproject.toml"
"""Says which Python is needed."""
LOCKED = ROOT / "requirements.lock"
"""Lies beside the package in a repository alone."""
NEEDED = ("papermill", "pydantic", "torch")
"""Packages without which hardly a program of the repository runs."""
VERSION = "import sys; print(*sys.version_info[:3], sep='.')"
"""What a Python is asked."""


class EnvironmentMissingError(RuntimeError):
    """There is no environment, and none can be made; the message says what to do."""


def python_versions() -> str:
    """Return the versions of Python that pyproject.toml asks for, such as `>=3.11.4,<3.14`."""
    (found,) = re.findall(r'^requires-python = "(.+)"', PROJECT.read_text(encoding="utf-8"), re.MULTILINE)
    return str(found)


def fits(version: str) -> bool:
    """Tell whether a version of Python is one that pyproject.toml asks for; the empty one is none."""
    bounds = re.findall(r"(>=|<)([\d.]+)", python_versions())
    return bool(version) and all((_numbers(version) >= _numbers(bound)) == (sign == ">=") for sign, bound in bounds)


def _numbers(version: str):
    """Return a version as what can be compared."""
    return tuple(map(int, version.split(".")))


def version_of(python: str) -> str:
    """Return the version of a Python; the empty one where it does not run."""
    try:
        told = subprocess.check_output([python, "-I", "-c", VERSION], stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return told.decode().strip()


def make_environment(venv: Path, *pythons: str) -> None:
    """Make a virtual environment by the first of `pythons` that fits, again where its own does not or has no pip.

    One that fits is kept, with all that was installed into it, and so is whatever is no virtual environment.

    Raises:
        EnvironmentMissingError: no Python fits, or `venv` is something else.
        subprocess.CalledProcessError: Python's own `venv` failed, and has said why.
    """
    own = str(venv / "bin" / "python")
    if fits(version_of(own)) and _has_pip(own):
        return
    python = _first_fitting(pythons)
    _require_ours(venv)
    subprocess.check_call([python, "-m", "venv", "--clear", str(venv)])


def _has_pip(python: str) -> bool:
    """Tell whether a Python has a pip that works, and give it one if it can be done."""
    asked = ([python, "-I", "-m", *words] for words in (("pip", "--version"), ("ensurepip", "--default-pip")))
    return any(subprocess.call(each, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0 for each in asked)


def _first_fitting(pythons: "tuple[str, ...]") -> str:
    """Return the first Python that fits; say of the others what they are where none does."""
    versions = {python: version_of(python) for python in pythons}
    for python, version in versions.items():
        if fits(version):
            return python
    found = [f"{python} is Python {version}" for python, version in versions.items() if version]
    what = ", ".join(found) or f"there is no Python {', '.join(pythons)} that runs"
    raise EnvironmentMissingError(
        f"{what}; Python {python_versions()} is needed: name one, `make environment PYTHON=...`"
    )


def _require_ours(venv: Path) -> None:
    """Refuse to make an environment where something else lies."""
    if venv.is_symlink():
        what = "a link"
    elif venv.is_file() or (venv.is_dir() and any(venv.iterdir()) and not (venv / "pyvenv.cfg").is_file()):
        what = "no virtual environment"
    else:
        return
    raise EnvironmentMissingError(
        f"{venv} is {what}, and holds no Python {python_versions()} with pip: move it away, or name another place, "
        "`make environment VENV=...`"
    )


def install(venv: Path) -> None:
    """Install the locked packages, if that is not done.

    Raises:
        subprocess.CalledProcessError: pip failed, and has said why.
    """
    digest = hashlib.sha256(PROJECT.read_bytes() + LOCKED.read_bytes()).hexdigest()
    stamp = venv / "rrn-installed"
    if stamp.is_file() and stamp.read_text() == f"{digest}\n":
        return
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.check_call([*pip, "-e", ".[dev,lite0]", "-c", LOCKED.name], cwd=str(ROOT))
    stamp.write_text(f"{digest}\n")


def require_environment() -> None:
    """Stop a Python that is not that of the environment, before it misses something.

    Whoever sets RRN_ANY_PYTHON answers for it: benchmarks/gpu.py does, which runs the method without the pipeline.

    Raises:
        SystemExit: it is too old or new, or lacks packages, and was started as `python -m rrn...`.
        ImportError: likewise, and rrn is imported.
    """
    if "RRN_ANY_PYTHON" in os.environ:
        return
    version = ".".join(map(str, sys.version_info[:3]))
    missing = [name for name in NEEDED if find_spec(name) is None]
    if LOCKED.is_file() and not fits(version):
        why = f"{python_versions()} is needed"
    elif missing:
        why = f"it has no {', '.join(missing)}"
    else:
        return
    text = (
        f"this Python, {sys.executable} ({version}), is not that of the environment: {why}; "
        "run `. .venv/bin/activate` first, or use `.venv/bin/python` (`make environment` makes it)"
    )
    raise SystemExit(f"error: {text}") if sys.argv[:1] == ["-m"] else ImportError(text)


def main(venv: str, *pythons: str) -> int:
    """Make the environment; return 0, or the exit status of what failed."""
    try:
        make_environment(Path.cwd() / venv, *pythons)
        install(Path.cwd() / venv)
    except EnvironmentMissingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
