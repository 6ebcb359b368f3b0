"""Notebooks without outputs, in one canonical form.

`python -m rrn.strip SOURCE TARGET` writes output-free copies, which is what the stages depend on;
`python -m rrn.strip SOURCE SOURCE` strips in place, before a commit;
`python -m rrn.strip --check SOURCE` exits with 1 if a notebook is not in that form.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat

from rrn.runtime import atomic_io

METADATA = {
    "kernelspec": {
        "name": "python3",
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
    },
    "language_info": {"name": "python"},
}


def canonical(text: str) -> str:
    """Return the text of a notebook without outputs, counts and metadata other than cell tags."""
    notebook = nbformat.reads(text, 4)
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat_minor = 5
    for index, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        cell["id"] = f"cell-{index:03d}"
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return nbformat.writes(notebook) + "\n"


def strip(source: Path, target: Path) -> None:
    """Write canonical copies of the notebooks in `source` to `target`."""
    for path in sorted(source.glob("*.ipynb")):
        text = canonical(path.read_text(encoding="utf-8"))
        atomic_io.write(target / path.name, text)


def unstripped(source: Path) -> list[Path]:
    """Return the notebooks in `source` that are not in canonical form."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(source.glob("*.ipynb"))}
    return [path for path, text in texts.items() if text != canonical(text)]


def main(argv: list[str]) -> int:
    """Run the command line."""
    if len(argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    if argv[0] != "--check":
        try:
            strip(Path(argv[0]), Path(argv[1]))
        except atomic_io.WriteError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        return 0
    found = unstripped(Path(argv[1]))
    for path in found:
        print(f"{path} has outputs or extra metadata: python -m rrn.strip {argv[1]} {argv[1]}")
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
