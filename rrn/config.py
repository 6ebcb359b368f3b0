"""Settings: params.yaml and a row of its ablation table -> one frozen, validated object.

params.yaml is the one source of every setting. A row of `methods:` is a difference to `method:`; `load("rrn")` merges
the two, so that nothing else in the package knows rows by name. A key that does not exist, a wrong type, or a switch
that needs another is a `SettingsError` that names the key and says what to do.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

IGNORE_INDEX = 255
"""The value of void pixels in every label tensor of the package, whatever a data set calls void."""

PositiveInt = Annotated[int, Field(ge=1, strict=True)]
NaturalInt = Annotated[int, Field(ge=0, strict=True)]
Fraction = Annotated[float, Field(ge=0, le=1, strict=True)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
NaturalFloat = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Below1 = Annotated[float, Field(ge=0, lt=1, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.]*$")]
Partition = Annotated[str, BeforeValidator(str), Field(pattern=r"^([1-9]\d*of[1-9]\d*|[1-9]\d*|all)$")]
"""1of16 (one image in sixteen is labeled), 662 (that many are), or all."""


class SettingsError(ValueError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another one."""


class Section(BaseModel):
    """A group of settings: frozen, no unknown key, no silent conversion from strings."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Dataset(Section):
    """Where the images lie and how they are read."""

    path: str
    void: tuple[Annotated[int, Field(ge=0, le=255, strict=True)], ...]
    train: str
    val: str
    test: str
    size: tuple[PositiveInt, PositiveInt] | None
    cache: Flag


class Split(Section):
    """Who is labeled."""

    seed: NaturalInt


class Ablation(Section):
    """The lists that the pipeline runs over."""

    partitions: tuple[Partition, ...] = Field(min_length=1)
    methods: tuple[Name, ...] = Field(min_length=1)
    seeds: tuple[NaturalInt, ...] = Field(min_length=1)
    beside: tuple[Name, ...]


class Model(Section):
    """The segmenter."""

    architecture: str
    encoder: str
    weights: str | None
    output_stride: Literal[8, 16]
    decoder_channels: PositiveInt
    atrous_rates: tuple[PositiveInt, PositiveInt, PositiveInt]


class Augment(Section):
    """Random geometry and colour of training crops."""

    crop: Annotated[int, Field(ge=16, strict=True)]
    scales: tuple[PositiveFloat, PositiveFloat]
    flip: Flag
    jitter: Fraction

    @model_validator(mode="after")
    def _ordered(self) -> Augment:
        if self.scales[0] > self.scales[1]:
            raise ValueError(f"scales {list(self.scales)} must be [smallest, largest]")
        return self


class BatchSize(Section):
    """Images of one step, over all processes."""

    labeled: PositiveInt
    unlabeled: PositiveInt


class CutMix(Section):
    """Boxes of the mixed unlabeled images."""

    boxes: PositiveInt
    area: tuple[Fraction, Fraction]

    @model_validator(mode="after")
    def _ordered(self) -> CutMix:
        if self.area[0] > self.area[1]:
            raise ValueError(f"area {list(self.area)} must be [smallest, largest]")
        return self


class Schedule(Section):
    """Length of a stage."""

    steps: PositiveInt
    lr_ramp: NaturalInt


class Optimizer(Section):
    """SGD of the segmenters."""

    lr: PositiveFloat
    momentum: Fraction
    weight_decay: NaturalFloat
    poly: NaturalFloat


class Log(Section):
    """How often a training run reports, evaluates and saves."""

    every: PositiveInt
    evaluate: PositiveInt
    checkpoint: PositiveInt
    diagnose: NaturalInt

    @model_validator(mode="after")
    def _in_step(self) -> Log:
        for key in ("evaluate", "checkpoint"):
            if getattr(self, key) % self.every:
                raise ValueError(
                    f"{key}: {getattr(self, key)} is not a multiple of every: {self.every}; losses are looked at "
                    "every so many steps, and only then are networks evaluated and saved"
                )
        return self


class Evaluate(Section):
    """Evaluation."""

    batch: PositiveInt


class Filter(Section):
    """Local pseudo-label filtering: which regions are kept."""

    by: Literal["none", "region_score", "confidence", "random"]
    keep: Literal["threshold", "fraction"]
    tau: Fraction
    fraction: Fraction
    start: NaturalInt


class Discriminator(Section):
    """The region discriminators and their training."""

    objective: Literal["adversarial", "accuracy"]
    maps: Literal["soft", "hard"]
    sees_image: Flag
    input_stride: PositiveInt
    channels: tuple[PositiveInt, ...] = Field(min_length=1)
    dropout: Below1
    lr: PositiveFloat
    betas: tuple[Below1, Below1]
    feature_matching: NaturalFloat


class Method(Section):
    """One row of the ablation table, complete."""

    labels: Literal["partition", "all"]
    consistency: Flag
    cutmix: Flag
    lambda_u: NaturalFloat
    lambda_u_ramp: NaturalInt
    teacher_statistics: Literal["batch", "running"]
    filter: Filter
    rho: Literal["none", "product", "mean", "votes", "agreement", "divergence"]
    grid: PositiveInt
    discriminator: Discriminator

    @property
    def uses_discriminators(self) -> bool:
        """Whether anything of this row depends on region discriminators."""
        return self.filter.by != "none"

    @model_validator(mode="after")
    def _possible(self) -> Method:
        judge = self.discriminator
        if self.filter.by != "none" and not self.consistency:
            raise ValueError(
                f"filter.by: {self.filter.by} filters the pseudo-labels of the consistency term; "
                "set consistency: true, or filter.by: none"
            )
        if self.rho != "none" and self.filter.by == "none":
            raise ValueError(f"rho: {self.rho} weighs the regions that a filter keeps; set filter.by, or rho: none")
        if judge.feature_matching and self.uses_discriminators and judge.maps == "hard":
            raise ValueError(
                "discriminator.maps: hard carries no gradient, so feature matching cannot work on it; "
                "set discriminator.maps: soft, or discriminator.feature_matching: 0"
            )
        if judge.feature_matching and self.uses_discriminators and judge.objective == "accuracy":
            raise ValueError(
                "discriminator.objective: accuracy has no real and fake features to match; "
                "set discriminator.feature_matching: 0, or discriminator.objective: adversarial"
            )
        return self


class Settings(Section):
    """All settings of one run: params.yaml with one row of `methods:` merged into `method`."""

    name: Name
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|meta)$")]
    precision: Literal["fp32", "bf16", "fp16"]
    threads: PositiveInt
    nproc: PositiveInt
    workers: NaturalInt
    dataset: Dataset
    split: Split
    ablation: Ablation
    model: Model
    augment: Augment
    batch: BatchSize
    cutmix: CutMix
    warmup: Schedule
    train: Schedule
    optimizer: Optimizer
    log: Log
    evaluate: Evaluate
    method: Method
    methods: dict[Name, dict[str, Any]] = Field(min_length=1)

    @property
    def region(self) -> int:
        """Side of a region, in pixels."""
        return self.augment.crop // self.method.grid

    @model_validator(mode="after")
    def _possible(self) -> Settings:
        crop, grid = self.augment.crop, self.method.grid
        if crop % grid:
            fitting = [g for g in range(1, crop + 1) if crop % g == 0 and abs(g - grid) <= grid]
            raise ValueError(
                f"method.grid: {grid} regions do not fill augment.crop: {crop} pixels evenly; try grid {fitting}"
            )
        judge = self.method.discriminator
        cells = crop // judge.input_stride // 2 ** len(judge.channels)
        if self.method.uses_discriminators and cells < grid:
            raise ValueError(
                f"method.grid: {grid} regions a side, but the discriminator's map has {cells} cells a side; "
                "lower grid, discriminator.input_stride or the number of discriminator.channels"
            )
        for key in ("labeled", "unlabeled"):
            if getattr(self.batch, key) % self.nproc:
                raise ValueError(f"batch.{key}: {getattr(self.batch, key)} is not a multiple of nproc: {self.nproc}")
            if getattr(self.batch, key) // self.nproc < 2:
                raise ValueError(
                    f"batch.{key}: {getattr(self.batch, key)} gives fewer than 2 images to each of {self.nproc} "
                    "processes, and batch norm needs 2; raise it or lower nproc"
                )
        for name in self.ablation.methods:
            if name not in self.methods:
                raise ValueError(f"ablation.methods: {name!r} is no row of methods:{_nearest(name, self.methods)}")
        return self


def find_root(start: Path | None = None) -> Path:
    """Return the nearest folder at or above `start` (default: the current one) that holds params.yaml and dvc.yaml.

    Raises:
        FileNotFoundError: if there is none.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").exists() and (folder / "dvc.yaml").exists():
            return folder
    raise FileNotFoundError(f"no params.yaml beside a dvc.yaml in {here} or above it: start in the repository")


def load(method: str | None = None, overrides: Mapping[str, Any] | None = None, root: Path | None = None) -> Settings:
    """Read params.yaml and resolve one row of the ablation table.

    Args:
        method: name of a row of `methods:`; None leaves the defaults of `method:`.
        overrides: nested differences applied last, for a quick interactive try.
        root: folder of params.yaml; default `find_root()`.

    Raises:
        SettingsError: names the key, what was expected, and the nearest existing name.
    """
    path = (root or find_root()) / "params.yaml"
    return resolve(read(path), method, overrides)


def read(path: Path) -> dict[str, Any]:
    """Read a YAML 1.2 file as DVC does (1e-3 is a number, `no` a string) into plain Python values."""
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise SettingsError(f"{path.name} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path.name}: expected keys and values, found {type(values).__name__}")
    return values


def resolve(
    params: Mapping[str, Any], method: str | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Merge `overrides` and a row of `methods:` into `params` and validate; every other row is validated too.

    What `overrides` says of `method` is laid on last, over the row.

    Raises:
        SettingsError: see `load`.
    """
    overrides = dict(overrides or {})
    last = {"method": overrides.pop("method")} if "method" in overrides else {}
    merged = merge(params, overrides)
    rows = merged.get("methods") or {}
    if method is not None and method not in rows:
        raise SettingsError(f"params.yaml: methods has no row {method!r}{_nearest(method, rows)}")
    _validate(merged, "")
    for row in rows:
        _validate(_with_row(merged, row), f"methods.{row}: ")
    return _validate(merge(_with_row(merged, method), last), "" if method is None else f"methods.{method}: ")


def merge(base: Mapping[str, Any], over: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return `base` with `over` laid on it, section by section; rows of `methods:` may be new, other keys may not.

    Raises:
        SettingsError: if `over` has a key that `base` has not.
    """
    result = copy.deepcopy(dict(base))
    for key, value in over.items():
        name = f"{where}{key}"
        if key not in result and where not in ("methods.",) and not where.startswith("methods."):
            raise SettingsError(f"params.yaml has no setting {name!r}{_nearest(str(key), result)}")
        section = result.get(key)
        if isinstance(section, Mapping) and isinstance(value, Mapping):
            value = merge(section, value, f"{name}.")
        elif isinstance(section, Mapping):
            raise SettingsError(f"params.yaml: {name} is a section with keys {sorted(section)}, not {value!r}")
        result[key] = value
    return result


def fingerprint(values: Any) -> str:
    """Return 12 hexadecimal digits that identify settings, or anything JSON can hold."""
    if isinstance(values, BaseModel):
        values = values.model_dump(mode="json")
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _with_row(params: dict[str, Any], method: str | None) -> dict[str, Any]:
    """Return `params` with one row laid on `method:`."""
    row = {} if method is None else params["methods"][method]
    try:
        return {**params, "method": merge(params["method"], row, "method.")}
    except SettingsError as error:
        raise SettingsError(re.sub(r"\bmethod\.", f"methods.{method}.", str(error), count=1)) from error


def _validate(params: Mapping[str, Any], prefix: str) -> Settings:
    """Check all values; every problem stands in one message."""
    try:
        return Settings.model_validate(params)
    except ValidationError as error:
        lines = [_explain(problem, params) for problem in error.errors()]
        raise SettingsError("\n".join(f"params.yaml: {prefix}{line}" for line in lines)) from error


def _explain(problem: Any, params: Mapping[str, Any]) -> str:
    """Return one readable line of a pydantic error."""
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        *parents, key = problem["loc"]
        model: Any = Settings
        for parent in parents:
            model = model.model_fields[parent].annotation
        return f"no setting {where!r}{_nearest(str(key), model.model_fields)}"
    if problem["type"] == "missing":
        return f"{where} is missing"
    message = re.sub(r"^Value error, ", "", problem["msg"])
    if problem["type"] == "value_error":
        return f"{where}: {message}" if where else message
    return f"{where} is {problem['input']!r}: {message}"


def _nearest(name: str, known: Any) -> str:
    """Return '; did you mean ...?' with the nearest known name, or the list of them."""
    near = difflib.get_close_matches(name, [str(k) for k in known], n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(map(str, known)))}"
