"""What a run was made with: what matters, what an older piece lacks, and weights without their folder."""

import pytest
from pydantic import BaseModel
from studies import make_settings

from rrn import config
from rrn.pieces.made_with import first_difference, made_with, of_row, with_defaults


class Inner(BaseModel):
    by: str
    sides: tuple[int, int] = (2, 3)


class Outer(BaseModel):
    inner: Inner
    memory: Inner | None = None


class LaterMethod(config.Method):
    memory: int = 3


class LaterSettings(config.Settings):
    """Settings of a later version, with a key that pieces of this one lack."""

    method: LaterMethod


def test_defaults_fill_what_is_missing_and_nothing_else():
    held = {"inner": {"by": "none", "per": "batch"}, "other": 1}
    full = {"by": "none", "per": "batch", "sides": [2, 3]}
    assert with_defaults(held, Outer) == {"inner": full, "memory": None, "other": 1}
    assert held["inner"] == {"by": "none", "per": "batch"}
    assert with_defaults({}, Outer) == {"memory": None}
    assert with_defaults({}, LaterSettings) == {}


def test_a_key_that_an_older_piece_lacks_counts_as_its_default():
    settings = of_row(make_settings(["rrn"], [0]), "rrn")
    later = LaterSettings.model_validate(settings.model_dump(mode="json"))
    assert first_difference(made_with(settings), later) == ""
    changed = later.model_copy(update={"method": later.method.model_copy(update={"memory": 4})})
    assert first_difference(made_with(settings), changed) == "method.memory: 3, here 4"
    assert first_difference(made_with(later), settings) == "method.memory: 3, here absent"


def test_a_row_is_laid_on_the_method():
    said = made_with(of_row(make_settings(["supervised"], [0]), "supervised"))
    assert said["method"]["consistency"] is False
    assert {"name", "device", "threads", "nproc", "loading", "ablation", "methods"}.isdisjoint(said)
    assert "path" not in said["dataset"] and list(said["speed"]) == ["merged"]


@pytest.mark.parametrize(
    ("weights", "said"), [(None, None), ("lite0", "lite0"), ("timm/gluon@mine/a.pth", "timm/gluon@a.pth")]
)
def test_weights_are_named_without_their_folder(weights, said):
    settings = make_settings(["rrn"], [0])
    settings = settings.model_copy(update={"model": settings.model.model_copy(update={"weights": weights})})
    assert made_with(settings)["model"]["weights"] == said
