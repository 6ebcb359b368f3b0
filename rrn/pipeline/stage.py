"""Execute a notebook as a stage: `python -m rrn.stage NOTEBOOK OUTPUT.ipynb [key=value ...]`.

papermill does the work; this runner adds what it leaves open: misspelled parameters are refused, one output has one
runner at a time, the kernel can only be this interpreter, the executed copy is never half written and holds nothing
that differs between two identical runs, and SIGTERM stops the kernel and its children.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from rrn.pipeline import gpus, progress
from rrn.pipeline.progress import StepReport
from rrn.runtime import atomic_io, locking, portable

ANSI = re.compile(r"\x1b\[[0-9;]*m")
ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}")
PIXELS = ("image/png", "image/jpeg")
"""Outputs that are no text."""
WIDGET = "application/vnd.jupyter.widget-view+json"
UNUSED = ("rfc3987_syntax", cast(Any, None))
"""A grammar of web addresses that jsonschema, behind nbformat, compiles in 0.7 s if it finds it; no stage needs it."""
LONGEST = 90
"""Bytes in the name of a folder of sockets: systems allow 100 for a socket."""
PATIENCE = 60
"""Seconds that a kernel which is asked to stop has to end its step and save; then it is asked again, then killed."""
DIED = (
    "it was killed, perhaps for lack of memory (lower batch, loading.evaluation_batch or loading.workers), or ended "
    "itself; the same command goes on from the last checkpoint, or begins anew where there is none"
)


class StageError(ValueError):
    """The command line of a stage is wrong, or there is no place for its sockets."""


def parameters(items: Iterable[str], notebook: Path) -> dict[str, Any]:
    """Read `key=value` items as YAML; the cell of the notebook tagged `parameters` says which keys there are.

    Raises:
        StageError: an item is no `key=value`, its value is no literal, or the notebook has no such parameter
            or is none.
    """
    from papermill import inspect_notebook
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if not notebook.exists():
        raise StageError(f"there is no notebook {notebook}; run `dvc repro notebooks`")
    try:
        known = sorted(inspect_notebook(notebook))
    except ValueError as error:  # such as one that names no kernel
        raise StageError(f"{notebook} cannot be read: {error}") from error
    values = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals:
            raise StageError(f"expected key=value, got {item!r}")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise StageError(f"{notebook.name} has no parameter {key!r}; {hint}")
        try:
            values[key] = YAML(typ="safe", pure=True).load(value)
            json.dumps(values[key])
        except (YAMLError, TypeError, ValueError) as error:
            raise StageError(
                f"{item!r} gives {key} no value of numbers, texts, lists and mappings in YAML "
                f"({type(error).__name__}); put a text in quotes"
            ) from error
    return values


def pin_kernel(folder: Path) -> str:
    """Make a kernel in `folder` that can only be this interpreter, and return its name.

    Kernels, start-up files and plotting back ends of the user are out of reach of a stage; cells
    that start programs find those of this environment. Results do not depend on the processor
    (`rrn.runtime.portable`). Where this process is killed, the kernel ends too.
    """
    spec = folder / "kernels" / "rrn-stage"
    spec.mkdir(parents=True)
    argv = [sys.executable, "-m", "rrn.runtime.processes", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {"argv": argv, "display_name": "rrn", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(kernel), encoding="utf-8")
    for variable, first in (("JUPYTER_PATH", folder), ("PATH", Path(sys.executable).parent)):
        paths = [str(first), os.environ.get(variable, "")]
        os.environ[variable] = os.pathsep.join(filter(None, paths))
    os.environ.update(portable.PORTABLE)
    os.environ["JUPYTER_RUNTIME_DIR"] = str(folder / "runtime")
    os.environ["IPYTHONDIR"] = str(folder / "ipython")
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    return "rrn-stage"


def normalize(path: Path) -> None:
    """Remove from an executed notebook what differs between two identical runs."""
    import nbformat

    notebook = nbformat.read(path, 4)
    injected = notebook.metadata.get("papermill", {}).get("parameters", {})
    notebook.metadata["papermill"] = {"parameters": injected}
    notebook.metadata.pop("widgets", None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{index:03d}"
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = [_anywhere(out) for out in cell.outputs if WIDGET not in out.get("data", {})]
    atomic_io.write(path, nbformat.writes(notebook).removesuffix("\n") + "\n")


def _anywhere(value: Any) -> Any:
    """Return an output as it is anywhere: no address in memory, no path of this machine; pictures as they are."""
    if isinstance(value, dict):
        return type(value)({key: inner if key in PIXELS else _anywhere(inner) for key, inner in value.items()})
    if isinstance(value, list):
        return [_anywhere(inner) for inner in value]
    return _placeless(ADDRESS.sub("0x...", value)) if isinstance(value, str) else value


def _placeless(text: str) -> str:
    """Return a text that calls repository and environment `.`, the home folder `~`, and the file of a cell `cell`."""
    text = re.sub(rf"{re.escape(tempfile.gettempdir())}/ipykernel_\d+/\d+\.py", "cell", text)
    here = (sys.base_prefix, sys.prefix, str(Path.cwd()))
    places = {os.environ.get("HOME", "").rstrip("/"): "~"} | dict.fromkeys(here, ".")
    for place in sorted(places.keys() - {"", "/"}, key=len, reverse=True):
        text = re.sub(rf"(?<![\w.~-]){re.escape(place)}(?![\w.-])", places[place], text)
    return text


def execute(notebook: Path, output: Path, values: dict[str, Any], shown: StepReport) -> None:
    """Run `notebook` with `values` injected; the copy at `output` is written as cells go, and `shown` what they print.

    Raises:
        StageError: the folder of temporary files has too long a name.
        papermill.exceptions.PapermillExecutionError: a cell failed.
        nbclient.exceptions.DeadKernelError: the kernel was killed.
        atomic_io.WriteError: `output`, or the folder of temporary files, cannot be written.
    """
    import papermill
    from papermill.iorw import LocalHandler, papermill_io
    from traitlets.config import Config

    class Whole(LocalHandler):
        """Writes a notebook so that it is whole at any moment."""

        def write(self, buf: str, path: str) -> None:
            atomic_io.write(Path(path), buf)

    papermill_io.register(str(output), Whole())
    with tempfile.TemporaryDirectory(prefix="rrn-") as folder, atomic_io.explain_os_error(Path(folder), "set TMPDIR"):
        if len(os.fsencode(folder)) > LONGEST:
            raise StageError(
                f"sockets have short names, and the folder of temporary files is {folder}: "
                f"let TMPDIR name one of at most {LONGEST - len('/rrn-12345678')} bytes"
            )
        kernels = {"transport": "ipc", "ip": f"{folder}/kernel", "shutdown_wait_time": 2 * PATIENCE}
        papermill.execute_notebook(
            str(notebook),
            str(output),
            parameters=values,
            kernel_name=pin_kernel(Path(folder)),
            language="python",
            progress_bar=False,
            stdout_file=shown,
            stderr_file=sys.stderr,
            autosave_cell_every=30,
            coalesce_streams=True,
            config=Config({"KernelManager": kernels, "AsyncKernelManager": kernels}),
        )
    normalize(output)


def main(argv: list[str] | None = None) -> int:
    """Run; return 0, 1 (a cell failed), 2 (wrong command line), 3 (another process runs it) or 130 (stopped)."""
    parser = argparse.ArgumentParser(prog="python -m rrn.stage", description=__doc__)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output", type=Path, help="the executed copy")
    parser.add_argument("parameters", nargs="*", metavar="key=value")
    args = parser.parse_args(argv)
    sys.modules.setdefault(*UNUSED)

    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    for number in (signal.SIGTERM, signal.SIGINT):  # with Python's own handler, asyncio would keep Ctrl-C to itself
        signal.signal(number, _interrupt)
    try:
        values = parameters(args.parameters, args.notebook)
        shown = StepReport(sys.stdout, args.output, progress.steps_of(args.notebook, values))
        with locking.exclusive(args.output), gpus.reserve(), closing(shown):
            execute(args.notebook, args.output, values, shown)
    except (StageError, locking.LockedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, StageError) else 3
    except atomic_io.WriteError as error:
        print(f"error: {error}", file=sys.stderr)
    except PapermillExecutionError as error:
        text = ANSI.sub("", str(error)).strip()
        print(f"{text}\nerror: {error.ename}: {error.evalue}", file=sys.stderr)
    except DeadKernelError as error:
        print(f"error: {error}: {DIED}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped, and what was computed is kept: the same command goes on from there", file=sys.stderr)
        print(f"the notebook as far as it got: {args.output}", file=sys.stderr)
        return 130
    else:
        return 0
    print(f"the notebook as far as it got: {args.output}", file=sys.stderr)
    return 1


def _interrupt(*_: Any) -> None:
    """Stop papermill, which hands it on to the kernel."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
