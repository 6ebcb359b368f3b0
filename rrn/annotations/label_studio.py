"""Label Studio's "brush labels to PNG", beside a JSON export that says which image a mask is of. No torch."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from rrn.annotations.source import (
    BACKGROUND,
    Annotated,
    Mask,
    Source,
    find_image,
    image_id,
    index_of,
    paint,
    require_size,
)
from rrn.data import decoding, file_formats
from rrn.data.decoding import DataError, Pixels, Size

MASK = re.compile(r"task-(?P<task>\d+)-annotation-(?P<annotation>\d+)-by-(?P<label>.*)-\d+")
UPLOADED = re.compile(r"[0-9a-f]{8}-")
"""What Label Studio puts before the name of a file that was uploaded."""


def read_label_studio(source: Path, images: Path | None = None, tasks: Path | None = None) -> Source:
    """Read brush masks and the tasks that they are of; uncovered pixels are `background`, the smaller mask lies on top.

    Args:
        source: the unpacked export, PNG files named task-3-annotation-5-by-1-tag-tree-0.png.
        images: where the images are; else in the folder of the tasks or in images/ beside them.
        tasks: the JSON or JSON-MIN export of the same project; else the only JSON file of source.

    Raises:
        DataError: what is wrong, and where.
    """
    path = tasks or _only_json(source)
    files = dict(_tasks(path))
    labels = {label for _, found in files.values() for label in found}
    masks: dict[str, dict[str, list[tuple[str, Path]]]] = defaultdict(lambda: defaultdict(list))
    for mask in sorted(source.rglob("task-*.png")):
        task, annotation, label = _parts(mask, labels, path)
        masks[task][annotation].append((label, mask))
    if strange := sorted(set(masks) - set(files)):
        raise DataError(f"{path} lacks the task {strange[0]}, of which there are masks: export both at one time")
    index = index_of([BACKGROUND, *sorted(label for by in masks.values() for of in by.values() for label, _ in of)])
    folders = [images] if images else [path.parent, path.parent / "images", source]
    found = [_annotated(task, name, masks.get(task, {}), index, folders) for task, (name, _) in files.items()]
    return Source(tuple(index), tuple(found))


def _only_json(source: Path) -> Path:
    found = sorted(source.glob("*.json"))
    if len(found) != 1:
        raise DataError(
            f"{source} holds {len(found)} JSON files: name the JSON or JSON-MIN export of the same project with "
            "--tasks; the names of the masks alone do not say which image they are of"
        )
    return found[0]


def _tasks(path: Path) -> Iterator[tuple[str, tuple[str, set[str]]]]:
    """Yield id of a task, name of its image, and labels that brushes have in it."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}); export it again") from error
    for entry in entries if isinstance(entries, list) else [None]:
        if not isinstance(entry, dict) or "id" not in entry:
            raise DataError(f"{path} is no list of tasks: export JSON or JSON-MIN from Label Studio")
        yield str(entry["id"]), (_file_name(path, entry), set(_brushes(entry)))


def _file_name(path: Path, entry: dict[str, Any]) -> str:
    """Return the name of the image of a task: in `data`, or in the task itself (JSON-MIN)."""
    fields = [value for value in entry.get("data", entry).values() if isinstance(value, str)]
    names = [PurePosixPath(unquote(urlsplit(_target(value)).path)).name for value in fields]
    found = [name for name in names if file_formats.has_suffix(Path(name))]
    if not found:
        raise DataError(f"{path}: task {entry['id']} names no image")
    return found[0]


def _target(value: str) -> str:
    """Return the file that an address of local storage, `/data/local-files/?d=...`, is about."""
    return value.split("?d=", 1)[-1]


def _brushes(value: Any) -> Iterator[str]:
    """Yield every label of a brush, wherever it stands in a task."""
    if isinstance(value, dict):
        yield from (label for label in value.get("brushlabels", []) if isinstance(label, str))
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _brushes(inner)


def _parts(mask: Path, labels: set[str], tasks: Path) -> tuple[str, str, str]:
    """Return task, annotation and label of a mask: of the labels that end its name, the longest."""
    match = MASK.fullmatch(mask.stem)
    fitting = [label for label in labels if match and f"-{match['label']}".endswith(f"-{label}")]
    if not match or not fitting:
        raise DataError(f"{mask} is called after no label of {tasks}: export both at one time")
    return match["task"], match["annotation"], max(fitting, key=len)


def _annotated(
    task: str,
    name: str,
    annotations: dict[str, list[tuple[str, Path]]],
    index: dict[str, int],
    folders: Sequence[Path],
) -> Annotated:
    if len(annotations) > 1:
        raise DataError(
            f"task {task} ({name}) has {len(annotations)} annotations, {', '.join(annotations)}: keep the masks of one"
        )
    places = [name, UPLOADED.sub("", name, count=1)]
    try:
        image = find_image(places[0], folders)
    except DataError:
        image = find_image(places[1], folders)
    own = image_id(image.name)
    masks = [(index[label], path) for found in annotations.values() for label, path in found]
    return Annotated(own, image, partial(_label, masks, index[BACKGROUND]) if masks else None)


def _label(masks: Sequence[tuple[int, Path]], background: int, size: Size) -> Pixels:
    return paint([(index, _covered(path, size)) for index, path in masks], size, background)


def _covered(path: Path, size: Size) -> Mask:
    mask = np.asarray(decoding.open_file(path, "label").convert("L"), dtype=np.uint8)
    return np.asarray(require_size(mask, path, size) > 127)
