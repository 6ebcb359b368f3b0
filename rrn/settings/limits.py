"""What settings are made of: sections, and kinds of values with their limits and words for messages (`description`).

And names of settings: near ones, and those that have moved.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from rrn.runtime.places import literal
from rrn.settings.wording import short

LARGEST = 2**31 - 1
"""Of every whole number but seeds: no loop, list or tensor of more is meant."""

MOVED = {
    "workers": "loading.workers",
    "dataset.cache": "loading.cache",
    "evaluate.batch": "loading.evaluation_batch",
    "evaluate.pixels": "loading.evaluation_pixels",
    "evaluate.evidence": "log.evidence",
}
"""Where a key of earlier versions stands now."""


ONE_VALUE = frozenset({"dataset.classes", "model.second"})
"""Settings that take the place of an earlier value as a whole, although they have keys."""


class Section(BaseModel):
    """A group of settings: frozen, no unknown key, no silent conversion from strings."""

    model_config = ConfigDict(frozen=True, extra="forbid")


PositiveInt = Annotated[int, Field(ge=1, le=LARGEST, strict=True)]
NaturalInt = Annotated[int, Field(ge=0, le=LARGEST, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**63, strict=True)]
Processes = Annotated[int, Field(ge=0, le=1024, strict=True)]
"""Workers, threads, processes: more are not to be had, and asking for them may stop the machine."""
Images = Annotated[int, Field(ge=1, le=65536, strict=True)]
Scene = Annotated[int, Field(ge=1, le=10000, strict=True)]
Side = Annotated[int, Field(ge=1, le=65535, strict=True)]
"""Of an image, in pixels."""
Channels = Annotated[int, Field(ge=1, le=16384, strict=True)]
Fraction = Annotated[float, Field(ge=0, le=1, strict=True)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
NaturalFloat = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Scale = Annotated[float, Field(ge=1 / 64, le=64, strict=True)]
Below1 = Annotated[float, Field(ge=0, lt=1, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Byte = Annotated[int, Field(ge=0, le=255)]
NAME = "letters, digits, _ and . (at most 64, a letter or digit first)"
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.]*$", max_length=64, strict=True, description=NAME)]
Architecture = Annotated[Name, Field(description="the name of a network, such as DeepLabV3Plus or Unet")]
Encoder = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        max_length=255,
        strict=True,
        description="the name of an encoder, such as tu-resnet50 or mit_b0",
    ),
]
Text = Annotated[
    str,
    Field(
        pattern=r"^[^\x00-\x1f\x7f]+$",
        max_length=4096,
        strict=True,
        description="one line of text, not empty and of at most 4096 characters",
    ),
]
"""One line, not empty."""
Place = Annotated[Text, AfterValidator(literal)]
"""A path that stands for itself, without `~` or a $VARIABLE."""
Folder = Annotated[
    str,
    Field(
        pattern=r"^[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*$",
        max_length=255,
        strict=True,
        description="the name of one folder or list in the data set, no path, with no dot first",
    ),
]
"""The name of one folder, or list, in the data set: no path, so that nothing outside of it is read."""
Device = Annotated[
    str,
    Field(
        pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?|meta)$",
        strict=True,
        description="auto, cpu or cuda (or cuda:0, one GPU of several)",
    ),
]
Partition = Annotated[
    str, BeforeValidator(lambda value: _partition(value)), Field(description="1of16, a number of images, or all")
]
"""1of16 (one image in sixteen is labeled), 662 (that many are), or all."""
NUMBER = "[1-9][0-9]{0,8}"
"""Of images, as a partition writes it."""


def _partition(value: Any) -> str:
    """Return a partition as text; it names folders and stages, so a share is written 1of16, not 1/16."""
    text = str(value) if isinstance(value, int | str) else ""
    if not re.fullmatch(r"N(ofN)?|all".replace("N", NUMBER), text):
        share = re.fullmatch(f"({NUMBER})/({NUMBER})", text)
        hint = f"write {share[1]}of{share[2]}" if share else "expected 1of16, a number of images, or all"
        raise ValueError(f"no partition: {hint}")
    return text


MEMBERS = "a list of names or label values of the data set, such as [car, truck]"
CHOSEN = "names of classes, each with a list of names or label values of the data set: {car: [car, truck]}"


def _classes(value: Any) -> dict[str, tuple[int | str, ...]]:
    """Return classes and what each is made of."""
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"expected {CHOSEN}, or null")
    for name, members in value.items():
        if not isinstance(name, str) or name in ("", "-", "*") or name != name.strip():
            raise ValueError(f"{short(name)} is no name of a class: expected a text, no - or *, no blanks around it")
        if not isinstance(members, list | tuple) or not members or not all(map(_is_member, members)):
            raise ValueError(f"{short(name)} is {short(members)}: expected {MEMBERS}")
    if sum("*" in members for members in value.values()) > 1:
        raise ValueError('"*", all that is left: expected in one class at most')
    if len(value) < 2:
        raise ValueError("one class, and nothing is learned: expected another, such as background: ['*']")
    return {name: tuple(members) for name, members in value.items()}


def _is_member(value: Any) -> bool:
    """Return whether a value may name a class, or be a label value."""
    return 0 <= value <= 255 if isinstance(value, int) and not isinstance(value, bool) else isinstance(value, str)


Classes = Annotated[dict[str, tuple[int | str, ...]], BeforeValidator(_classes), Field(description=CHOSEN)]
"""Name of a class -> names or values of the data set that are this class; "*" stands for all that is left."""


def require_shares(key: str, images: int, nproc: int) -> None:
    """Refuse a batch, of the name `key`, that processes cannot share evenly, or that leaves one a single image."""
    if images % nproc:
        fitting = max(2, -(-images // nproc)) * nproc
        raise ValueError(f"{key}: {images} is not a multiple of nproc: {nproc}; take {fitting}, or lower nproc")
    if images // nproc < 2:
        raise ValueError(
            f"{key}: {images} gives fewer than 2 images to each of nproc: {nproc}, and batch norm needs 2; "
            "raise it or lower the other"
        )


def near(name: str, known: Any) -> str | None:
    """Return the known name that is nearest, letter case aside; None if none is near."""
    folded = {str(k).casefold(): str(k) for k in known}
    found = difflib.get_close_matches(name[:80].casefold(), folded, n=1)
    return folded[found[0]] if found else None


def nearest(name: str, known: Any) -> str:
    """Return '; did you mean ...?' with the nearest known name, or the list of them."""
    found = near(name, known)
    return f"; did you mean {found!r}?" if found else f"; there are {', '.join(sorted(map(str, known)))}"


def up_to_date(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that an earlier version has written, a key that has moved at its new place."""
    found = copy.deepcopy(dict(params))
    for old, new in MOVED.items():
        (*sections, key), (section, name) = old.split("."), new.split(".")
        held = found.get(sections[0], {}) if sections else found
        if key in held:
            found.setdefault(section, {})[name] = held.pop(key)
    return found
