"""Which image goes into which split: as exported, by share, by group, or by lists. No torch."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rrn.annotations.source import Annotated, image_id, read_text, split_name
from rrn.data.decoding import DataError

CHOICES = "say which image goes where: --split train=0.8,val=0.2, or --lists DIR with train.txt and val.txt"


def as_exported(images: Sequence[Annotated]) -> dict[str, str]:
    """Return id -> split, as the export has them.

    Raises:
        DataError: some image has none, all have the same, or none is in train.
    """
    splits = {image.name: image.split for image in images}
    if without := [name for name, split in splits.items() if not split]:
        raise DataError(f"the export does not say in which split {without[0]} is ({len(without)} such); {CHOICES}")
    found = sorted(set(splits.values()))
    if len(found) == 1 or "train" not in found:
        raise DataError(f"the export has the splits {', '.join(found)}, and train and another are needed; {CHOICES}")
    return splits


def by_share(
    images: Sequence[Annotated], shares: Mapping[str, float], pattern: re.Pattern[str] | None, seed: int
) -> dict[str, str]:
    """Return id -> split, drawn by chance; a group goes into one split as a whole.

    Groups are taken in an order by chance, and each goes where most images are missing; one with an image that nobody
    labeled goes into train, which alone may have such.

    Args:
        images: of the export.
        shares: split -> share of the images; they add up to 1, and train is one.
        pattern: searched in an id: its first group that is found, or all that is, names the group. None: each image is
            one.
        seed: of the order, at least 0.

    Raises:
        DataError: shares that do not add up, an id without a group, or too few groups for all splits.
    """
    given = ", ".join(f"{name}={share}" for name, share in shares.items())
    if not all(share > 0 for share in shares.values()) or not math.isclose(sum(shares.values()), 1, abs_tol=1e-6):
        raise DataError(f"--split: shares must be above 0 and add up to 1, and are {given}")
    if "train" not in shares:
        raise DataError(f"--split: train is missing in {given}")
    groups: dict[str, list[Annotated]] = defaultdict(list)
    for image in images:
        groups[image.name if pattern is None else _group(image.name, pattern)].append(image)
    missing = {split: share * len(images) for split, share in shares.items()}
    found: dict[str, str] = {}
    order = np.random.default_rng(seed).permutation(sorted(groups)).tolist()
    for group in sorted(order, key=lambda name: all(image.draw for image in groups[name])):  # stable: unlabeled first
        is_labeled = all(image.draw for image in groups[group])
        split = max(missing, key=lambda name: missing[name]) if is_labeled else "train"
        missing[split] -= len(groups[group])
        found |= dict.fromkeys((image.name for image in groups[group]), split)
    if empty := [split for split in shares if split not in found.values()]:
        what = "images" if pattern is None else f"groups, such as {order[0]!r},"
        raise DataError(f"--split: of {len(groups)} {what} none is left for {', '.join(empty)}; give it a larger share")
    return found


def _group(name: str, pattern: re.Pattern[str]) -> str:
    match = pattern.search(name)
    if not match:
        raise DataError(f"--group: {pattern.pattern!r} is not found in the id {name!r}; it must be in every one")
    return next((part for part in match.groups() if part is not None), match[0])


def by_lists(images: Sequence[Annotated], folder: Path) -> dict[str, str]:
    """Return id -> split of the lists train.txt, val.txt, ...; a line is an id, or the path that the export has.

    Raises:
        DataError: there is no list of train, one is empty, or an image is in none or two, or is not in the export.
    """
    lists = {path: read_text(path, "").splitlines() for path in sorted(folder.glob("*.txt"))}
    if "train" not in [split_name(path.stem) for path in lists]:
        raise DataError(f"--lists: {folder} holds no train.txt")
    ids = {image.name for image in images}
    found: dict[str, str] = {}
    for path, lines in lists.items():
        names = [line.strip() for line in lines if line.strip()]
        if not names:
            raise DataError(f"--lists: {path} is empty")
        for line in names:
            name = line if line in ids else image_id(line)
            if name not in ids:
                raise DataError(f"--lists: {path} has {line!r}, which is no image of the export")
            if name in found:
                raise DataError(f"--lists: {name} is listed twice; an image is in one split")
            found[name] = split_name(path.stem)
    if left := [image.name for image in images if image.name not in found]:
        raise DataError(f"--lists: {left[0]} is in no list ({len(left)} such); list it, or take it out of the export")
    return found
