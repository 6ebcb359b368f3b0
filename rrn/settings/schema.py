"""The settings, section by section: every key of params.yaml, its type, its range, and which switches need another.

`rrn.config` reads them; what they mean stands beside each key in params.yaml.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rrn.settings.limits import (
    Architecture,
    Channels,
    Classes,
    Device,
    Encoder,
    Flag,
    Folder,
    Fraction,
    Images,
    Name,
    NaturalFloat,
    NaturalInt,
    Partition,
    Place,
    PositiveFloat,
    PositiveInt,
    Processes,
    Scale,
    Scene,
    Section,
    Seed,
    Side,
    Text,
    nearest,
    require_shares,
)
from rrn.settings.rows import Method

IGNORE_INDEX = 255
"""The value of void pixels in every label tensor of the package, whatever a data set calls void."""


class Loading(Section):
    """How images are read, which changes no bit, and how many are evaluated together, which changes rounding."""

    workers: Processes
    cache: Flag
    evaluation_batch: Images
    evaluation_pixels: PositiveInt


class Scenes(Section):
    """How many val and test scenes build/shapes has; the first of them are those that ship."""

    val: Scene
    test: Scene


class Dataset(Section):
    """Where the images lie and how they are read."""

    kind: Literal["folder", "voc", "cityscapes", "camvid"]
    path: Place
    void: tuple[Annotated[int, Field(ge=0, le=255, strict=True)], ...] | None
    unlabeled: Folder | None
    train: Folder
    val: Folder
    test: Folder
    size: tuple[Side, Side] | None
    scenes: Scenes = Scenes(val=512, test=2048)
    classes: Classes | None = None
    exif: Literal["refuse", "apply", "ignore"] = "refuse"

    @model_validator(mode="after")
    def _possible(self) -> Dataset:
        if self.kind != "folder" and self.void is not None:
            raise ValueError(
                f"void: {list(self.void)} is for kind: folder; {self.kind} knows which of its values are void: "
                "set void: null"
            )
        if self.kind != "folder" and self.unlabeled is not None:
            raise ValueError(
                f"unlabeled: {self.unlabeled} is for kind: folder; in {self.kind} all train images outside the "
                "partition are unlabeled: set unlabeled: null"
            )
        if self.train in (self.val, self.test):
            raise ValueError(f"train: {self.train} is val or test, too; what is learned from must not be scored on")
        if self.unlabeled in (self.train, self.val, self.test):
            raise ValueError(f"unlabeled: {self.unlabeled} is a split already; name a folder of images/ of its own")
        return self


class SplitSettings(Section):
    """Who is labeled."""

    protocol: Literal["seeded", "cps", "u2pl", "classic"]
    seed: Seed | None
    stratified: Flag

    @model_validator(mode="after")
    def _possible(self) -> SplitSettings:
        if self.stratified and self.protocol != "seeded":
            raise ValueError(
                f"stratified: true is for protocol: seeded; the lists of {self.protocol} are as published: "
                "set stratified: false"
            )
        return self


class Ablation(Section):
    """The lists that the pipeline runs over."""

    partitions: tuple[Partition, ...] = Field(min_length=1)
    methods: tuple[Name, ...] = Field(min_length=1)
    seeds: tuple[Seed, ...] = Field(min_length=1)
    beside: tuple[Name, ...]
    explore: Name | None

    @model_validator(mode="after")
    def _once(self) -> Ablation:
        for key in ("partitions", "methods", "seeds"):
            values = getattr(self, key)
            if len(set(values)) < len(values):
                raise ValueError(f"{key}: {list(values)} names one twice; remove the second")
        return self


class Second(Section):
    """In what the second segmenter differs from the first; its weights are always its own, and null is from scratch."""

    encoder: Encoder
    weights: Place | None = None
    architecture: Architecture | None = None
    decoder_channels: Channels | None = None
    rate: PositiveFloat = 1.0


class Model(Section):
    """The segmenters."""

    architecture: Architecture
    encoder: Encoder
    weights: Place | None
    output_stride: Literal[8, 16]
    decoder_channels: Channels
    atrous_rates: tuple[Side, Side, Side]
    second: Second | None = None

    @model_validator(mode="after")
    def _possible(self) -> Model:
        channels, architecture = self.second and self.second.decoder_channels, self.both[1].architecture
        if channels is not None and not architecture.startswith("DeepLabV3"):
            raise ValueError(
                f"second.decoder_channels: {channels} is for DeepLabV3 and DeepLabV3Plus, without effect on "
                f"{architecture}; leave it out"
            )
        return self

    @property
    def both(self) -> tuple[Model, Model]:
        """What each of the two segmenters is built from."""
        first = self.model_copy(update={"second": None})
        if self.second is None:
            return first, first
        changed = self.second.model_dump(exclude={"rate", "weights"}, exclude_none=True)
        return first, first.model_copy(update=changed | {"weights": self.second.weights})

    @property
    def rates(self) -> tuple[float, float]:
        """Factor of each segmenter on the learning rate."""
        return 1.0, self.second.rate if self.second else 1.0


class Augment(Section):
    """Random geometry and color of training crops."""

    crop: Annotated[int, Field(ge=16, le=65535, strict=True)]
    scales: tuple[Scale, Scale]
    flip: Flag
    jitter: Fraction

    @model_validator(mode="after")
    def _ordered(self) -> Augment:
        if self.scales[0] > self.scales[1]:
            raise ValueError(f"scales {list(self.scales)} must be [smallest, largest]")
        return self


class BatchSize(Section):
    """Images of one step, over all processes."""

    labeled: Images
    unlabeled: Images


class Speed(Section):
    """What makes a training faster, or smaller in memory."""

    merged: Flag
    compile: Text | None
    checkpointing: Flag


class CutMix(Section):
    """Boxes of the mixed unlabeled images."""

    boxes: Annotated[int, Field(ge=1, le=1024, strict=True)]
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
    """That of the segmenters."""

    kind: Literal["sgd", "adamw"] = "sgd"
    lr: PositiveFloat
    head: PositiveFloat = 1.0
    layer_decay: Annotated[PositiveFloat, Field(le=1)] = 1.0
    momentum: Fraction
    weight_decay: NaturalFloat
    poly: NaturalFloat


class Log(Section):
    """How often a training run reports, evaluates and saves."""

    every: PositiveInt
    evaluate: PositiveInt
    checkpoint: PositiveInt
    diagnose: NaturalInt
    regions: PositiveInt | None = None
    evidence: NaturalInt
    tensorboard: Flag = False

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

    mode: Literal["whole", "pad", "sliding"]
    window: tuple[Side, Side] | None
    stride: tuple[Side, Side] | None
    last: Literal["shifted", "ragged"]
    scales: tuple[Scale, ...] = Field(min_length=1)
    flip: Flag
    folded: Flag

    @model_validator(mode="after")
    def _possible(self) -> Evaluate:
        if self.mode == "whole" and (self.window or self.stride):
            raise ValueError("window and stride are for mode: pad or sliding; set both to null, or another mode")
        if self.mode != "whole" and self.window is None:
            raise ValueError(f"mode: {self.mode} needs window: [height, width]")
        if self.mode == "pad" and self.stride is not None:
            raise ValueError("stride is for mode: sliding; set stride: null, or mode: sliding")
        if self.mode == "sliding":
            if self.window is None or self.stride is None:
                raise ValueError("mode: sliding needs window: [height, width] and stride: [height, width]")
            if any(step > side for step, side in zip(self.stride, self.window, strict=True)):
                raise ValueError(
                    f"stride: {list(self.stride)} is larger than window: {list(self.window)}, which would leave "
                    "pixels that no window sees"
                )
        return self


class Settings(Section):
    """All settings of one run: params.yaml with one row of `methods:` merged into `method`."""

    name: Name
    device: Device
    precision: Literal["fp32", "bf16", "fp16"]
    threads: Annotated[Processes, Field(ge=1)]
    nproc: Annotated[Processes, Field(ge=1)]
    loading: Loading
    dataset: Dataset
    split: SplitSettings
    ablation: Ablation
    model: Model
    augment: Augment
    batch: BatchSize
    speed: Speed
    cutmix: CutMix
    warmup: Schedule
    train: Schedule
    optimizer: Optimizer
    log: Log
    evaluate: Evaluate
    method: Method
    methods: dict[Name, dict[str, Any]] = Field(
        min_length=1, description="rows, each a name and what it changes of method: {supervised: {consistency: false}}"
    )

    @property
    def region(self) -> int:
        """Side of a region, in pixels."""
        return self.augment.crop // self.method.grid

    @model_validator(mode="after")
    def _possible(self) -> Settings:
        crop, grid = self.augment.crop, self.method.grid
        if crop % grid:
            fitting = [g for g in range(1, min(crop, 2 * grid) + 1) if crop % g == 0]
            raise ValueError(
                f"method.grid: {grid} regions do not fill augment.crop: {crop} pixels evenly; try grid {fitting}"
            )
        judge = self.method.discriminator
        cells = crop // judge.input_stride // 2 ** len(judge.channels)
        if self.method.uses_discriminators and judge.network == "convolutions" and cells < grid:
            raise ValueError(
                f"method.grid: {grid} regions a side, but the discriminator's map has {cells} cells a side; "
                "lower grid, discriminator.input_stride or the number of discriminator.channels"
            )
        if self.model.second is not None and self.method.students == 1:
            raise ValueError(
                "model.second is for networks: pair; with student_teacher the second segmenter is the average of the "
                "first: set model.second: null, or method.networks: pair"
            )
        if self.nproc > 1 and ":" in self.device:
            raise ValueError(
                f"device: {self.device} is one GPU, and nproc: {self.nproc} needs one each; set device: cuda"
            )
        if self.nproc > 1 and self.method.uses_discriminators and judge.cutmix:
            raise ValueError(
                f"method.discriminator.cutmix: true mixes images of one process, and with nproc: {self.nproc} others "
                "than with 1; set nproc: 1, or method.discriminator.cutmix: false"
            )
        for key in ("labeled", "unlabeled"):
            require_shares(f"batch.{key}", getattr(self.batch, key), self.nproc)
        named = [("methods", name) for name in self.ablation.methods]
        named += [("explore", self.ablation.explore)] if self.ablation.explore else []
        for key, name in named:
            if name not in self.methods:
                raise ValueError(f"ablation.{key}: {name!r} is no row of methods:{nearest(name, self.methods)}")
        return self
