"""Label Studio's "brush labels to PNG", beside a JSON export that says which image a mask is of. No torch."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
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
    open_mask,
    paint,
    read_json,
    require_size,
)
from rrn.data import file_formats
from rrn.data.decoding import DataError, Pixels, Size

MASK = re.compile(r"task-(?P<task>\d+)-annotation-(?P<annotation>\d+)-by-(?P<label>.*)-\d+")
UPLOADED = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of a file that was uploaded."""
Found = dict[str, dict[str, list[tuple[str, Path]]]]
"""Task -> annotation -> label and mask."""


def read_label_studio(source: Path, images: Path | None = None, tasks: Path | None = None) -> Source:
    """Read brush masks and the tasks that they are of; uncovered pixels are `background`, the smaller mask lies on top.

    Args:
        source: the unpacked export, PNG files named task-3-annotation-5-by-1-tag-tree-0.png.
        images: where the images are; else beside the tasks, or in images/ there.
        tasks: the JSON or JSON-MIN export of the same project; else the only JSON file of source.

    Raises:
        DataError: what is wrong, and where.
    """
    path = tasks or _only_json(source)
    names: dict[str, list[str]] = {}
    labels: set[str] = set()
    for task in _tasks(path):
        names[str(task["id"])] = _file_names(path, task)
        labels |= set(_brushes(task, path))
    masks: Found = defaultdict(lambda: defaultdict(list))
    for mask in sorted(source.rglob("task-*.png")):
        number, annotation, label = _parts(mask, labels, path)
        masks[number][annotation].append((label, mask))
    if strange := sorted(set(masks) - set(names)):
        raise DataError(f"{path} lacks the task {strange[0]}, of which there are masks: export both at one time")
    index = index_of([BACKGROUND, *sorted(labels)])
    folders = [images] if images else [path.parent, path.parent / "images", source]
    return Source(tuple(index), tuple(_annotated(names, masks, index, folders)))


def _only_json(source: Path) -> Path:
    found = sorted(source.glob("*.json"))
    if len(found) != 1:
        raise DataError(
            f"{source} holds {len(found)} JSON files: name the JSON or JSON-MIN export of the same project with "
            "--tasks; the names of the masks alone do not say which image they are of"
        )
    return found[0]


def _tasks(path: Path) -> list[dict[str, Any]]:
    entries = read_json(path)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "id" in entry for entry in entries):
        raise DataError(f"{path} is no list of tasks: export JSON or JSON-MIN from Label Studio")
    return entries


def _file_names(path: Path, task: Mapping[str, Any]) -> list[str]:
    """Return what the image of a task may be called: in `data`, or in the task itself (JSON-MIN)."""
    inside = task.get("data")
    fields = (inside if isinstance(inside, dict) else task).values()
    texts = [value.split("?d=", 1)[-1] for value in fields if isinstance(value, str)]  # of local storage: ?d=PATH
    names = [unquote(urlsplit(text).path).lstrip("/") for text in texts]
    found = [name for name in names if file_formats.has_suffix(Path(name))]
    if not found:
        raise DataError(f"{path}: task {task['id']} names no image")
    return [*found, *(UPLOADED.sub("", Path(name).name) for name in found)]


def _brushes(value: Any, path: Path) -> Iterator[str]:
    """Yield every label of a brush, wherever it stands in a task.

    Raises:
        DataError: a brush has two labels.
    """
    if isinstance(value, dict):
        given = value.get("brushlabels") or (value.get("labels") if "rle" in value else None) or []
        if len(given) > 1:
            raise DataError(f"{path}: one brush is {' and '.join(map(repr, given))}: a pixel has one class; split it")
        yield from map(str, given)
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _brushes(inner, path)


def _parts(mask: Path, labels: set[str], tasks: Path) -> tuple[str, str, str]:
    """Return task, annotation and label of a mask: of the labels that end its name, the longest."""
    match = MASK.fullmatch(mask.stem)
    fitting = [label for label in labels if match and f"-{match['label']}".endswith(f"-{label}")]
    if not match or not fitting:
        raise DataError(f"{mask} is called after no label of {tasks}: export both at one time")
    return match["task"], match["annotation"], max(fitting, key=len)


def _annotated(
    names: Mapping[str, list[str]], masks: Found, index: Mapping[str, int], folders: Sequence[Path]
) -> Iterator[Annotated]:
    for task, called in names.items():
        annotations = masks.get(task, {})
        if len(annotations) > 1:
            raise DataError(
                f"task {task} ({Path(called[0]).name}) has {len(annotations)} annotations, {', '.join(annotations)}: "
                "keep the masks of one"
            )
        image = find_image(called, folders)
        drawn = [(index[label], path) for found in annotations.values() for label, path in found]
        draw = partial(_label, drawn, index[BACKGROUND])
        yield Annotated(image_id(image.name), image, draw, empty=not drawn)


def _label(masks: Sequence[tuple[int, Path]], background: int, size: Size) -> Pixels:
    return paint([(index, _covered(path, size)) for index, path in masks], size, background)


def _covered(path: Path, size: Size) -> Mask:
    mask = np.asarray(open_mask(path).convert("L"), dtype=np.uint8)
    return np.asarray(require_size(mask, path, size) > 127)
