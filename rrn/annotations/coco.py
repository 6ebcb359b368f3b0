"""COCO: polygons and run lengths in JSON, as CVAT, Roboflow, Label Studio and many others export them. No torch."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from rrn.annotations.source import (
    BACKGROUND,
    Annotated,
    Mask,
    Source,
    find_image,
    image_id,
    is_background,
    paint,
    read_json,
    split_name,
)
from rrn.data.decoding import DataError, Pixels, Size

ROBOFLOW = "_annotations.coco.json"
NEEDED = "pycocotools is missing, which reads COCO: `.venv/bin/pip install -e '.[import]' -c requirements.lock`"


class _Category(BaseModel):
    id: int
    name: str
    supercategory: str | None = None


class _Image(BaseModel):
    id: int
    file_name: str
    height: int
    width: int


class _Annotation(BaseModel):
    id: int | str = "without id"
    image_id: int
    category_id: int
    segmentation: list[list[float]] | dict[str, Any] | None = None


class _File(BaseModel):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def read_coco(source: Path, images: Path | None = None) -> Source:
    """Read a JSON file, or all of a folder: `annotations/instances_*.json`, or one in each folder, as Roboflow does.

    A class is a category; uncovered pixels are `background`, which may be a category itself. A category that is the
    kind of others, and labels nothing, is left out.

    Args:
        source: the file, or the folder.
        images: where the images are, if not beside it.

    Raises:
        DataError: what is wrong, and where.
    """
    if find_spec("pycocotools") is None:
        raise DataError(NEEDED)
    files = {path: _parsed(path) for path in _json_files(source)}
    names = [BACKGROUND, *(name for file in files.values() for name in _named(file))]
    index = {name: number for number, name in enumerate(dict.fromkeys(names))}
    found: list[Annotated] = []
    for path, file in files.items():
        word = path.parent.name if path.name == ROBOFLOW else path.stem.removeprefix("instances_")
        root = path.parent.parent if path.parent.name == "annotations" else path.parent
        folders = [place / part for place in ([images] if images else [root, root / "images"]) for part in (word, "")]
        found += _images(path, file, index, folders, split_name(word) if len(files) > 1 else "")
    return Source(tuple(index), tuple(found))


def _json_files(source: Path) -> list[Path]:
    """Return the files of an export, of which only those of instances count where there are such."""
    if source.is_file():
        return [source]
    patterns = ("*.json", "annotations/*.json", f"*/{ROBOFLOW}")
    found = sorted(path for pattern in patterns for path in source.glob(pattern))
    files = [path for path in found if path.stem.startswith("instances")] or found
    if not files:
        raise DataError(f"{source} holds no JSON file, nor do annotations/ or folders with {ROBOFLOW}; name the file")
    return files


def _parsed(path: Path) -> _File:
    try:
        file = _File.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{path} is no COCO file: {where}: {first['msg']}; export polygons or masks as COCO") from error
    for category in file.categories:
        category.name = BACKGROUND if is_background(category.name) else category.name
    return file


def _named(file: _File) -> list[str]:
    """Return the categories by id, without kinds of others that label nothing."""
    kinds = {category.supercategory for category in file.categories if category.supercategory != category.name}
    used = {annotation.category_id for annotation in file.annotations}
    return [c.name for c in sorted(file.categories, key=lambda c: c.id) if c.id in used or c.name not in kinds]


def _images(path: Path, file: _File, index: dict[str, int], folders: Sequence[Path], split: str) -> list[Annotated]:
    """Return the images of a file, each with its annotations."""
    categories = {category.id: category.name for category in file.categories}
    of_image: dict[int, list[_Annotation]] = defaultdict(list)
    known = {image.id for image in file.images}
    for annotation in file.annotations:
        if annotation.category_id not in categories or annotation.image_id not in known:
            raise DataError(
                f"{path}: annotation {annotation.id} is of the image {annotation.image_id} and the category "
                f"{annotation.category_id}, one of which the file lacks; export it again"
            )
        of_image[annotation.image_id].append(annotation)
    found = []
    for image in file.images:
        drawn = [(index[categories[a.category_id]], a) for a in of_image[image.id]]
        draw = partial(_label, path, image, drawn, index[BACKGROUND])
        place = find_image([image.file_name], folders)
        found.append(Annotated(image_id(image.file_name), place, draw, split, empty=not drawn))
    return found


def _label(
    path: Path, image: _Image, annotations: Sequence[tuple[int, _Annotation]], background: int, size: Size
) -> Pixels:
    if (image.height, image.width) != size:
        raise DataError(
            f"{path} says that {image.file_name} is {image.width} x {image.height} pixels, but it is {size[1]} x "
            f"{size[0]}: was it scaled, or turned, after it was labeled?"
        )
    return paint([(index, _mask(path, annotation, size)) for index, annotation in annotations], size, background)


def _mask(path: Path, annotation: _Annotation, size: Size) -> Mask:
    """Return which pixels an annotation covers."""
    from pycocotools import mask as runs

    if not annotation.segmentation:
        raise DataError(
            f"{path}: annotation {annotation.id} is a box without a polygon or mask: draw one, or remove the box"
        )
    try:
        whole = _runs(runs, annotation.segmentation, size)
        with warnings.catch_warnings():  # pycocotools 2.0.11 asks NumPy 2 in the way of NumPy 1
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            return runs.decode(whole).view(bool)
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(
            f"{path}: annotation {annotation.id} is no polygon and no mask ({error}); draw it again"
        ) from error


def _runs(runs: Any, drawn: list[list[float]] | dict[str, Any], size: Size) -> dict[str, Any]:
    """Return the run lengths of polygons, of lists of counts, or as they are; a line has no area and covers nothing."""
    if isinstance(drawn, list):
        if wrong := [polygon for polygon in drawn if len(polygon) % 2]:
            raise ValueError(f"{len(wrong[0])} numbers are no points")
        areas = [polygon for polygon in drawn if len(polygon) >= 6]
        return runs.merge(runs.frPyObjects(areas, *size)) if areas else runs.frPyObjects(_nothing(size), *size)
    if tuple(drawn["size"]) != size:
        raise ValueError(f"it has {drawn['size']} rows and columns, and its image {list(size)}")
    if not isinstance(drawn["counts"], list):
        return drawn
    if min(drawn["counts"], default=0) < 0 or sum(drawn["counts"]) != size[0] * size[1]:
        raise ValueError("its counts do not add up to the pixels of the image")
    return runs.frPyObjects(drawn, *size)


def _nothing(size: Size) -> dict[str, Any]:
    return {"size": list(size), "counts": [size[0] * size[1]]}
