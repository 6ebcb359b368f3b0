"""The settings of one row of the ablation table: what it may change, and which switches need another.

What they mean stands beside each key in params.yaml, under `method:`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rrn.settings.limits import (
    Below1,
    Channels,
    Flag,
    Fraction,
    NaturalFloat,
    NaturalInt,
    PositiveFloat,
    PositiveInt,
    Section,
)

JUDGED = ("product", "mean", "votes")
"""Candidates of rho that ask the discriminators."""


class Filter(Section):
    """Local pseudo-label filtering: which regions are kept."""

    by: Literal[
        "none", "region_score", "confidence", "probability", "confidence_divergence", "pixel_confidence", "random"
    ]
    per: Literal["batch", "class"] = "batch"
    keep: Literal["threshold", "fraction", "soft"]
    tau: Fraction
    fraction: Fraction
    floor: Fraction = 0.0
    start: NaturalInt

    @model_validator(mode="after")
    def _possible(self) -> Filter:
        if self.per == "class" and self.keep != "fraction":
            raise ValueError(
                f"per: class keeps a fraction of each class, and keep: {self.keep} keeps none; "
                "set keep: fraction, or per: batch"
            )
        if self.keep == "soft" and self.by in ("none", "random"):
            raise ValueError(
                f"keep: soft weighs by a score, and by: {self.by} is none; set by: probability or another, or "
                "keep: fraction"
            )
        return self


class Strong(Section):
    """Colors of the unlabeled images that students see, beyond those of the teachers' view; 0: as they are."""

    jitter: Fraction = 0.0
    gray: Fraction = 0.0
    blur: Fraction = 0.0
    views: Annotated[int, Field(ge=1, le=2, strict=True)] = 1


class Negative(Section):
    """Negative learning: what students are told of pixels whose pseudo-labels weigh nothing."""

    weight: PositiveFloat
    below: Annotated[Below1, Field(gt=0)]


class Discriminator(Section):
    """The region discriminators and their training."""

    network: Literal["convolutions", "relations"] = "convolutions"
    objective: Literal["adversarial", "accuracy"]
    maps: Literal["soft", "hard"]
    sees_image: Flag
    sees_both: Flag
    input_stride: PositiveInt
    channels: tuple[Channels, ...] = Field(min_length=1)
    dropout: Below1
    lr: PositiveFloat
    betas: tuple[Below1, Below1]
    feature_matching: NaturalFloat
    answers_of: Literal["students", "teachers"] = "students"
    cutmix: Flag = False
    wrong_weight: PositiveFloat = 1.0
    pretrain: NaturalInt = 0


class Method(Section):
    """One row of the ablation table, complete."""

    labels: Literal["partition", "all"]
    warmup: Literal["shared", "own"] = "shared"
    networks: Literal["pair", "student_teacher"] = "pair"
    consistency: Flag
    cutmix: Flag
    strong: Strong | None = None
    lambda_u: NaturalFloat
    lambda_u_ramp: NaturalInt
    teacher_statistics: Literal["batch", "running"]
    filter: Filter
    rho: Literal["none", "product", "mean", "votes", "agreement", "divergence", "probability"]
    labels_from: Literal["other", "ensemble", "ensemble_below_tau"] = "other"
    teacher: Literal["current", "ema"] = "current"
    teacher_decay: Below1 = 0.99
    negative: Negative | None = None
    grid: PositiveInt
    discriminator: Discriminator

    @property
    def uses_discriminators(self) -> bool:
        """Whether anything of this row depends on region discriminators."""
        return self.filter.by != "none" or self.rho in JUDGED

    @property
    def students(self) -> int:
        """How many of the two segmenters learn from losses: both, or the first, of which the second is an average."""
        return 1 if self.networks == "student_teacher" else 2

    @model_validator(mode="after")
    def _possible(self) -> Method:
        judge = self.discriminator
        if self.labels == "all" and self.consistency:
            raise ValueError(
                "labels: all is the supervised upper bound, which leaves no unlabeled images; "
                "set consistency: false, or labels: partition"
            )
        if not self.consistency:
            self._without_pseudo_labels()
        if self.networks == "student_teacher":
            self._with_one_student()
        if self.labels_from == "ensemble_below_tau" and self.filter.by in ("none", "random"):
            raise ValueError(
                f"labels_from: ensemble_below_tau asks the score of filter.by, and {self.filter.by} is none; "
                "set filter.by: probability or another, or labels_from: ensemble"
            )
        if (
            self.negative is not None
            and self.rho == "none"
            and (self.filter.by == "none" or self.filter.keep == "soft")
        ):
            raise ValueError(
                "negative is about pseudo-labels that weigh nothing, and in this row none does; set filter.by: "
                "probability or another with filter.keep: fraction or threshold, or rho: agreement, or negative: null"
            )
        if self.uses_discriminators:
            self._with_discriminators()
        if judge.feature_matching and self.uses_discriminators and judge.maps == "hard":
            raise ValueError(
                "discriminator.maps: hard carries no gradient, so feature matching cannot work on it; "
                "set discriminator.maps: soft, or discriminator.feature_matching: 0"
            )
        if judge.sees_both and self.uses_discriminators and judge.objective == "adversarial":
            raise ValueError(
                "discriminator.sees_both: true is for objective: accuracy; a label has no second opinion beside it: "
                "set discriminator.sees_both: false, or discriminator.objective: accuracy"
            )
        if judge.feature_matching and self.uses_discriminators and judge.objective == "accuracy":
            raise ValueError(
                "discriminator.objective: accuracy has no real and fake features to match; "
                "set discriminator.feature_matching: 0, or discriminator.objective: adversarial"
            )
        return self

    def _without_pseudo_labels(self) -> None:
        """Refuse what is said of the pseudo-labels of a row that has none."""
        if self.strong is not None:
            raise ValueError(
                "strong changes the unlabeled images that students see in the consistency term; "
                "set consistency: true, or strong: null"
            )
        meant: dict[str, tuple[str, str]] = {"filter.by": (self.filter.by, "none"), "rho": (self.rho, "none")}
        meant |= {"labels_from": (self.labels_from, "other"), "teacher": (self.teacher, "current")}
        meant |= {"networks": (self.networks, "pair")}
        if self.negative is not None:
            raise ValueError(
                "negative is about pseudo-labels of the consistency term that weigh nothing; "
                "set consistency: true, or negative: null"
            )
        for key, (value, off) in meant.items():
            if value != off:
                raise ValueError(
                    f"{key}: {value} is about the pseudo-labels of the consistency term; "
                    f"set consistency: true, or {key}: {off}"
                )

    def _with_discriminators(self) -> None:
        """Refuse discriminators whose parts do not go with each other."""
        judge = self.discriminator
        if judge.network == "relations" and judge.objective == "adversarial":
            raise ValueError(
                "discriminator.network: relations learns where labels are right; "
                "set discriminator.objective: accuracy, or discriminator.network: convolutions"
            )
        if judge.network == "relations" and not (judge.sees_both and judge.maps == "soft" and not judge.sees_image):
            raise ValueError(
                "discriminator.network: relations compares the probabilities of both segmenters, and no image; "
                "set discriminator.sees_both: true, maps: soft and sees_image: false, or network: convolutions"
            )
        told = {"answers_of": "students", "cutmix": False, "wrong_weight": 1.0, "pretrain": 0}
        for key, off in told.items():
            said = f"discriminator.{key}: {_text(getattr(judge, key))}"
            if judge.objective == "adversarial" and getattr(judge, key) != off:
                raise ValueError(
                    f"{said} is about labeled images, of which objective: adversarial sees the labels alone; "
                    f"set discriminator.objective: accuracy, or discriminator.{key}: {_text(off)}"
                )
            if key in ("cutmix", "pretrain") and getattr(judge, key) and judge.answers_of == "students":
                raise ValueError(
                    f"{said} needs segmenters that are asked for it: no student sees those images in training mode; "
                    f"set discriminator.answers_of: teachers, or discriminator.{key}: {_text(off)}"
                )

    def _with_one_student(self) -> None:
        """Refuse what needs two segmenters that learn."""
        if self.teacher != "current":
            raise ValueError(
                f"teacher: {self.teacher} is for networks: pair; the teacher of a student is an average already, with "
                "teacher_decay: set teacher: current, or networks: pair"
            )
        if self.negative is not None:
            raise ValueError(
                "negative is for networks: pair; a student that says itself what it should avoid learns nothing: "
                "set negative: null, or networks: pair"
            )
        if self.labels_from != "other":
            raise ValueError(
                f"labels_from: {self.labels_from} is for networks: pair; a student that is half of the ensemble would "
                "label its own images: set labels_from: other, or networks: pair"
            )


def _text(value: object) -> str:
    """Return a value as params.yaml has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
