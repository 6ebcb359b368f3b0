"""Notebooks without outputs, and code without comments and docstrings: what the stages depend on.

`python -m rrn.strip BUILD` writes such copies of notebooks/ and rrn/ to BUILD/notebooks and BUILD/rrn;
`python -m rrn.strip SOURCE TARGET` writes those of the notebooks in SOURCE, in place before a commit: SOURCE SOURCE;
`python -m rrn.strip --check SOURCE` exits with 1 if a notebook there is not in that form.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbstripout import strip_output

from rrn.runtime import atomic_io, source

CODE = {".py", ".csv", ".jinja", ".json", ".mplstyle"}
"""Files of the package: its modules, and what they read."""
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
METADATA = {"kernelspec": KERNEL, "language_info": {"name": "python"}}


def canonical(text: str) -> str:
    """Return the text of a notebook without outputs, counts and metadata other than cell tags, its cells numbered.

    As nbstripout has it, a cell tagged `keep_output` keeps its outputs.
    """
    notebook = nbformat.reads(text, 4)
    notebook.metadata, notebook.nbformat_minor = nbformat.from_dict(METADATA), 5
    metadata = {f"cell.metadata.{key}" for cell in notebook.cells for key in cell.metadata} - {"cell.metadata.tags"}
    strip_output(
        notebook, keep_output=False, keep_count=False, keep_id=True, extra_keys=sorted(metadata), strip_init_cells=True
    )
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{index:03d}"
    return nbformat.writes(notebook) + "\n"


def strip(notebooks: Path, target: Path) -> None:
    """Write canonical copies of the notebooks in a folder to `target`."""
    for path in sorted(notebooks.glob("*.ipynb")):
        atomic_io.write(target / path.name, canonical(path.read_text(encoding="utf-8")))


def strip_code(package: Path, target: Path) -> None:
    """Write copies of the files of a package to `target`, its modules without comments and docstrings."""
    for path in sorted(package.rglob("*")):
        if path.suffix in CODE and not path.name.startswith("."):
            atomic_io.write(target / path.relative_to(package), source.contents(path))


def build(target: Path) -> None:
    """Write what the stages depend on; each folder is there whole, with nothing of before in it, or not at all."""
    for folder, copy in (Path("notebooks"), strip), (Path("rrn"), strip_code):
        with atomic_io.folder(target / folder) as unfinished:
            copy(folder, unfinished)


def unstripped(notebooks: Path) -> list[Path]:
    """Return the notebooks in a folder that are not in canonical form."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(notebooks.glob("*.ipynb"))}
    return [path for path, text in texts.items() if text != canonical(text)]


def main(argv: list[str]) -> int:
    """Run the command line."""
    if len(argv) not in (1, 2) or argv == ["--check"]:
        print(__doc__, file=sys.stderr)
        return 2
    if argv[0] == "--check":
        return _check(Path(argv[1]))
    try:
        build(Path(argv[0])) if len(argv) == 1 else strip(*map(Path, argv))
    except atomic_io.WriteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _check(notebooks: Path) -> int:
    """Name the notebooks that are not in canonical form; return 1 if there are any."""
    found = unstripped(notebooks)
    for path in found:
        print(f"{path} has outputs or extra metadata: python -m rrn.strip {notebooks} {notebooks}")
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
