"""One step of learning: gradients, precision, and updates that a bad loss cannot reach. No equation of the method.

Nothing in a step waits for the device, on one GPU (with several, synchronized batch norm does). Whether losses and
gradients are finite stays there as a flag; from the first step that is not, no update is applied, so that weights and
optimizers are those in which it went wrong, until the host asks (`require_finite`). fp16 is the exception: its scaler
skips steps whose gradients overflow, and reads them back for that; there only losses count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from rrn import config
from rrn.data.batches import Batch
from rrn.method import RRN, Losses
from rrn.models.functional import ramp
from rrn.models.modes import NormStatistics, recomputing
from rrn.models.segmenter import layer_scales, speed_up
from rrn.runtime import distributed, memory

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ADAMW_BETAS = (0.9, 0.999)


class LossError(FloatingPointError):
    """A loss, a gradient or a weight is not finite.

    Attributes:
        step: the first that went wrong; weights, statistics and optimizers are still those before it. None: they are
            not.
    """

    def __init__(self, message: str, step: int | None = None) -> None:
        super().__init__(message)
        self.step = step


class Learner:
    """The networks of a run while they learn.

    Args:
        model: in training mode, on its device.
        settings: precision, speed, optimizer, and those of the discriminators.
        schedule: of the stage.
        decay: whether the learning rate decays over the stage.
    """

    def __init__(self, model: RRN, settings: config.Settings, schedule: config.Schedule, decay: bool) -> None:
        self.model, self.settings, self.schedule, self.decay = model, settings, schedule, decay
        self.device, self.half = model.device, settings.precision == "fp16"
        self.optimizers = optimizers(model, settings)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.half)
        self.first_nonfinite_step = torch.full((), -1, dtype=torch.int64, device=self.device)

    def rate(self, step: int) -> float:
        """Return the learning rate of the segmenters in a step, before the factor `optimizer.head`."""
        return learning_rate(step, self.settings.optimizer, self.schedule, self.decay)

    def step(self, batch: Batch, number: int) -> Losses:
        """Learn from one batch on the device; return the losses and measures, scalars, still there.

        Raises:
            MemoryShortage: the device, or the computer, has no memory left for it; says what would need less.
        """
        with memory.explain_oom("a step", lambda: _remedies(self.settings)):
            return self._step(batch, number)

    def _step(self, batch: Batch, number: int) -> Losses:
        for group in self.optimizers["segmenters"].param_groups:
            group["lr"] = group["factor"] * self.rate(number)
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        statistics = NormStatistics(self.model)
        losses = self._gradients(batch, number)
        values = distributed.all_reduce_sum(torch.stack(list(losses.values())))
        for networks in self.optimizers:
            distributed.reduce_gradients(getattr(self.model, networks).parameters())
        finite = self._all_finite(values, number)
        self._update(finite, self.optimizers)
        distributed.all_reduce_mean(b for name, b in self.model.students.named_buffers() if "running_" in name)
        if self.device.type != "cpu" or not finite:
            statistics.keep(finite)
        self.model.update_teachers(number, finite)
        return dict(zip(losses, values, strict=True))

    def pretrain(self, batch: Batch, number: int) -> Losses:
        """Let the discriminators learn from a batch while the segmenters stay as they are; return their losses.

        Raises:
            MemoryShortage: as `step`.
        """
        with memory.explain_oom("a step", lambda: _remedies(self.settings)):
            self.optimizers["discriminators"].zero_grad(set_to_none=True)
            losses = Losses()
            self._backward(self.model.discriminator_losses(self.model.begin_step(batch, number)), losses)
            values = distributed.all_reduce_sum(torch.stack(list(losses.values())))
            distributed.reduce_gradients(self.model.discriminators.parameters())
            self._update(self._all_finite(values, number), ["discriminators"])
            return dict(zip(losses, values, strict=True))

    def _gradients(self, batch: Batch, number: int) -> Losses:
        """Take the gradients of all losses; return losses and measures."""
        losses = Losses()
        step = self.model.begin_step(batch, number)
        self._backward(self.model.segmenter_losses(step, self.settings.speed.merged), losses)
        self._backward(self.model.discriminator_losses(step), losses)
        return losses | step.measures

    def _backward(self, passes: Iterator[Losses], losses: Losses) -> None:
        """Take the gradients of one pass before the next one is computed, and add its values to `losses`."""
        while True:
            with self._autocast():
                found = next(passes, None)
            if found is None:
                return
            with recomputing(self.model.segmenters) if self.settings.speed.checkpointing else nullcontext():
                self.scaler.scale(torch.stack(list(found.values())).sum()).backward()
            add(losses, {name: value.detach() for name, value in found.items()})

    def _autocast(self) -> AbstractContextManager[None]:
        wanted = PRECISIONS[self.settings.precision]
        return nullcontext() if wanted == torch.float32 else torch.autocast(self.device.type, dtype=wanted)

    def _all_finite(self, values: Tensor, number: int) -> Tensor:
        """Return whether losses, measures and gradients of all steps so far are finite; note the first that is not."""
        finite = values.isfinite().all()
        if not self.half:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            finite = finite & torch.nn.utils.get_total_norm(gradients, math.inf).isfinite()
        before = self.first_nonfinite_step < 0
        self.first_nonfinite_step = torch.where(before & ~finite, number, self.first_nonfinite_step)
        return before & finite

    def _update(self, finite: Tensor, networks: Iterable[str]) -> None:
        if (self.half or self.device.type == "cpu") and not finite:
            return
        for optimizer in (self.optimizers[name] for name in networks):
            if optimizer.defaults["fused"] and not self.half:  # those ask on the device
                vars(optimizer).update(grad_scale=None, found_inf=(~finite).float())
            self.scaler.step(optimizer)
        self.scaler.update()

    def require_finite(self, history: list[Losses], done: int, run: str) -> Tensor:
        """Read the losses and measures of the last steps back.

        Args:
            history: what `step` returned for them.
            done: number of steps done.
            run: which run, for the message.

        Returns:
            float64 [steps, losses and measures] on the CPU.

        Raises:
            LossError: one is not finite, or a gradient was not.
        """
        values = torch.stack([torch.stack(list(losses.values())) for losses in history]).double().cpu()
        found = dict[int, tuple[int, int]]()
        for index, term in (~values.isfinite()).nonzero().tolist():
            found.setdefault(done - len(values) + index, (index, term))
        steps = [*found, int(self.first_nonfinite_step)] if self.first_nonfinite_step >= 0 else [*found]
        if not steps:
            return values
        first, what = min(steps), "a gradient is not finite"
        if first in found:
            name, value = list(history[0])[found[first][1]], values[found[first]].item()
            what = f"loss {name!r} is {value}"
        raise LossError(f"{what} at step {first} of {run}; its update was not applied", first)

    def state(self) -> dict[str, Any]:
        """Return what the next step depends on, beside the settings: dictionaries, numbers and tensors."""
        return {
            "model": self.model.state_dict(),
            "optimizers": {name: _moments(optimizer) for name, optimizer in self.optimizers.items()},
            "scaler": self.scaler.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        self.model.load_state_dict(state["model"])
        for name, optimizer in self.optimizers.items():
            _restore(optimizer, state["optimizers"][name])
        self.scaler.load_state_dict(state["scaler"])


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    """Return the state of an optimizer by the number of a parameter; the settings say the rest."""
    return {str(number): moments for number, moments in optimizer.state_dict()["state"].items()}


def _restore(optimizer: torch.optim.Optimizer, moments: dict[str, dict[str, Any]]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    laid = {
        int(number): {name: _laid_as(parameters[int(number)], value) for name, value in kept.items()}
        for number, kept in moments.items()
    }
    optimizer.load_state_dict({"state": laid, "param_groups": optimizer.state_dict()["param_groups"]})


def _laid_as(parameter: Tensor, value: Any) -> Any:
    """Return a value, channels last where it is a tensor of the parameter's shape and the parameter is."""
    alike = isinstance(value, Tensor) and value.shape == parameter.shape
    return torch.empty_like(parameter, device=value.device, dtype=value.dtype).copy_(value) if alike else value


def _remedies(settings: config.Settings) -> memory.Remedies:
    return {
        "speed.checkpointing: true computes activations twice": not settings.speed.checkpointing,
        "precision: bf16 takes half of the activations": settings.precision == "fp32",
        "nproc: more processes share a batch, with a GPU each": True,
        "batch.labeled, batch.unlabeled, augment.crop: with smaller ones it is another training": True,
    }


def add(losses: Losses, more: Losses) -> None:
    """Add the values of `more` to those of the same name in `losses`."""
    for name, value in more.items():
        losses[name] = losses[name] + value if name in losses else value


def prepare_for(model: RRN, device: torch.device, speed: config.Speed) -> RRN:
    """Move the networks to a device, channels last, and make them as fast and as small as `speed` says.

    On CUDA batch norm is synchronized over processes, and cuDNN tries out which of its convolutions is the fastest for
    each size that comes: crops have one (`rrn.evaluation.inference.many_sizes` stops it for whole images).
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        if distributed.world() > 1:
            model.segmenters = convert_sync_batchnorm(model.segmenters)  # torch's own would drop timm's activations
    model.add_teachers()
    for segmenter in model.segmenters:
        speed_up(segmenter, speed)
    return model.to(device).to(memory_format=torch.channels_last)


def optimizers(model: RRN, settings: config.Settings) -> dict[str, torch.optim.Optimizer]:
    """Build SGD or AdamW for the segmenters, and Adam for the discriminators.

    Fused, but for SGD on the CPU, whose last bits would differ from those of the results in the repository, and SGD in
    fp16, which would begin with a momentum that nobody has set where the scaler skips the first step.
    """
    options, judge, device = settings.optimizer, settings.method.discriminator, model.device.type
    adam_fused = device != "meta"  # its square roots are exact; the others' depend on the processor
    built: dict[str, torch.optim.Optimizer] = {}
    if options.kind == "adamw":
        built["segmenters"] = torch.optim.AdamW(
            _groups(model, settings), lr=options.lr, betas=ADAMW_BETAS, fused=adam_fused
        )
    else:
        sgd_fused = device == "cuda" and settings.precision != "fp16"
        built["segmenters"] = torch.optim.SGD(
            _groups(model, settings), lr=options.lr, momentum=options.momentum, fused=sgd_fused
        )
    if model.discriminators:
        parameters = model.discriminators.parameters()
        built["discriminators"] = torch.optim.Adam(parameters, lr=judge.lr, betas=judge.betas, fused=adam_fused)
    return built


def _groups(model: RRN, settings: config.Settings) -> list[dict[str, Any]]:
    """Group the students' parameters: by the factor on their rate, norms and biases without weight decay."""
    options, groups = settings.optimizer, []
    factors = _factors(model, settings)
    for factor in dict.fromkeys(factors.values()):
        here = [p for p in model.students.parameters() if factors[p] == factor]
        for decay, flat in ((options.weight_decay, False), (0.0, True)):
            parameters = [p for p in here if (p.ndim <= 1) == flat]
            groups.append({"params": parameters, "weight_decay": decay, "factor": factor})
    return groups


def _factors(model: RRN, settings: config.Settings) -> dict[nn.Parameter, float]:
    """Return the factor on the rate of each parameter of the students: of its layer or the head, and its segmenter."""
    options, factors = settings.optimizer, dict[nn.Parameter, float]()
    for segmenter, rate in zip(model.students, settings.model.rates, strict=False):
        encoder = segmenter.get_submodule("network.encoder")
        layers = dict.fromkeys(encoder.parameters(), 1.0)
        if options.layer_decay != 1:
            layers |= layer_scales(encoder, options.layer_decay)
        factors |= {p: rate * layers.get(p, options.head) for p in segmenter.parameters()}
    return factors


def learning_rate(step: int, optimizer: config.Optimizer, schedule: config.Schedule, decay: bool) -> float:
    """Return the learning rate of a step: a linear ramp, then constant, or poly decay to 0 over the stage."""
    rate = optimizer.lr * ramp(step, schedule.lr_ramp)
    return rate * (1 - step / schedule.steps) ** optimizer.poly if decay else rate
