"""Which image goes into which split: as exported, by share, by group, or by lists. No torch."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rrn.annotations.source import Annotated
from rrn.data.decoding import DataError

AS_EXPORTED = "say which image goes where: --split train=0.8 val=0.2, or --lists DIR with train.txt and val.txt"


def as_exported(images: Sequence[Annotated]) -> dict[str, str]:
    """Return id -> split, as the export has them.

    Raises:
        DataError: some image has none, or all have the same.
    """
    splits = {image.name: image.split for image in images}
    if without := [name for name, split in splits.items() if not split]:
        raise DataError(f"the export does not say in which split {without[0]} is ({len(without)} such); {AS_EXPORTED}")
    if len(set(splits.values())) == 1:
        raise DataError(f"the export has no split but {next(iter(splits.values()))!r}; {AS_EXPORTED}")
    return splits


def by_share(
    images: Sequence[Annotated], shares: Mapping[str, float], pattern: str | None, seed: int
) -> dict[str, str]:
    """Return id -> split, drawn by chance; a group goes into one split as a whole.

    Groups are taken in an order by chance, and each goes where most images are missing.

    Args:
        images: of the export.
        shares: split -> share of the images; they add up to 1.
        pattern: regular expression, searched in an id: what it matches, or its first group, is the group. None: each
            image is one.
        seed: of the order.

    Raises:
        DataError: shares that do not add up, an id without a group, or too few groups for all splits.
    """
    if min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise DataError(
            f"--split: shares must be above 0 and add up to 1, and are {', '.join(map(str, shares.values()))}"
        )
    groups: dict[str, list[str]] = defaultdict(list)
    for image in images:
        groups[_group(image.name, pattern)].append(image.name)
    if len(groups) < len(shares):
        raise DataError(
            f"--group: there are {len(groups)} groups for {len(shares)} splits; {', '.join(sorted(groups)[:5])}"
        )
    missing = {split: share * len(images) for split, share in shares.items()}
    found: dict[str, str] = {}
    for group in np.random.default_rng(seed).permutation(sorted(groups)):
        split = max(missing, key=lambda name: missing[name])
        missing[split] -= len(groups[group])
        found |= dict.fromkeys(groups[group], split)
    if empty := set(shares) - set(found.values()):
        raise DataError(
            f"--split: no image is left for {', '.join(sorted(empty))}; give it a larger share, or group less"
        )
    return found


def _group(name: str, pattern: str | None) -> str:
    match = re.search(pattern or ".*", name)
    if not match:
        raise DataError(f"--group: {pattern!r} is not found in the id {name}; it must be in every one")
    return match[1] if match.re.groups else match[0]


def by_lists(images: Sequence[Annotated], folder: Path) -> dict[str, str]:
    """Return id -> split of the lists train.txt, val.txt, ...; a line is an id, or the name of the file.

    Raises:
        DataError: there is no list, or an image is in none or two, or is not in the export.
    """
    lists = {path.stem: path.read_text(encoding="utf-8").split("\n") for path in sorted(folder.glob("*.txt"))}
    if not lists:
        raise DataError(f"--lists: {folder} holds no train.txt, val.txt, ...")
    ids = {image.image.name: image.name for image in images} | {image.name: image.name for image in images}
    entries = [(line.strip(), split) for split, lines in lists.items() for line in lines if line.strip()]
    if strange := [line for line, _ in entries if line not in ids]:
        raise DataError(f"--lists: {strange[0]!r} is no image of the export ({len(strange)} such)")
    if twice := [name for name, count in Counter(ids[line] for line, _ in entries).items() if count > 1]:
        raise DataError(f"--lists: {twice[0]} is listed twice ({len(twice)} such); an image is in one split")
    found = {ids[line]: split for line, split in entries}
    if left := [image.name for image in images if image.name not in found]:
        raise DataError(f"--lists: {left[0]} is in no list ({len(left)} such); list it, or take it out of the export")
    return found
