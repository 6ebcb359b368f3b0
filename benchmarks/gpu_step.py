"""Part of gpu.py: what a training step costs, at the size of `python -m rrn.preset voc resnet50`.

Two DeepLabV3+ on ResNet-50, crop 512, 8 labeled and 8 + 8 unlabeled images, 21 classes; random weights and images, so
that no file is read. Rivals take turns in one process, some steps a turn, and every other round goes backwards: their
ratios hold where the clock of the GPU does not. Unless a name says otherwise: bf16, channels last, cudnn.benchmark,
fp32 without TF32. Peak memory is that of one rival's networks, optimizers and step, without those of the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from gpu_facts import operations, tensor_cores_in_fp32
from gpu_part import Part, begin, wait
from measuring import Row, ratio, row
from reference_step import ReferenceStep
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from training import TINY, random_batch

from rrn import config
from rrn.method import RRN
from rrn.training.learner import PRECISIONS, Learner, prepare_for

STEPS = 4
"""Of a turn; the device is waited for before and behind them, not between."""
ROUNDS, WARMUP = 7, 1
CLASSES = {"voc": 21, "cityscapes": 19}
QUIET: dict[str, Any] = {"model": {"weights": None}, "optimizer": {"lr": 0.001}}
"""No file of weights, and a rate at which random labels leave all numbers finite."""

Step = Callable[[], object]


@dataclass(frozen=True)
class Rival:
    """What takes steps.

    Attributes:
        row: of the ablation table; "reference": the step of the released code.
        precision: of the networks' passes.
        data: whose preset gives crop, classes and grid.
        speed: differences to `speed` of the preset.
        tf32: whether fp32 products are rounded to TF32.
        benchmark: whether cuDNN tries its algorithms and takes the fastest.
        layout: of weights and activations.
    """

    row: str
    precision: str = "bf16"
    data: str = "voc"
    speed: Mapping[str, Any] = field(default_factory=dict)
    tf32: bool = False
    benchmark: bool = True
    layout: torch.memory_format = torch.channels_last


BASE = "rrn, bf16"
FIRST = {
    f"{name}, {precision}": Rival(name, precision)
    for precision in ("bf16", "fp32")
    for name in ("rrn", "cps_cutmix", "reference")
}
COMPARED = (
    ("reference, bf16", "rrn, bf16"),
    ("reference, fp32", "rrn, fp32"),
    ("rrn, bf16", "cps_cutmix, bf16"),
    ("rrn, fp32", "cps_cutmix, fp32"),
    ("rrn, fp32", "rrn, bf16"),
)
"""Whose seconds are divided by whose, of the first six."""
CROP_800 = "rrn, bf16, crop 800"
LATER: dict[str, tuple[str, Rival, str, Rival]] = {
    "local_filter": ("local_filter, bf16", Rival("local_filter"), BASE, Rival("rrn")),
    "fp16": ("rrn, fp16", Rival("rrn", "fp16"), BASE, Rival("rrn")),
    "TF32": ("rrn, fp32, TF32", Rival("rrn", "fp32", tf32=True), "rrn, fp32", Rival("rrn", "fp32")),
    "contiguous": ("rrn, bf16, contiguous", Rival("rrn", layout=torch.contiguous_format), BASE, Rival("rrn")),
    "no benchmark": ("rrn, bf16, cudnn.benchmark off", Rival("rrn", benchmark=False), BASE, Rival("rrn")),
    "merged": ("rrn, bf16, speed.merged", Rival("rrn", speed={"merged": True}), BASE, Rival("rrn")),
    "crop 800": (
        f"{CROP_800}, speed.checkpointing",
        Rival("rrn", data="cityscapes", speed={"checkpointing": True}),
        CROP_800,
        Rival("rrn", data="cityscapes"),
    ),
    "compile": ("rrn, bf16, speed.compile", Rival("rrn", speed={"compile": "inductor"}), BASE, Rival("rrn")),
}
"""Case -> a rival's name and itself, and whom it is compared with."""
COMPILING = 60.0
"""Seconds without which it is not tried to compile."""


@dataclass
class Running:
    """A rival that is ready to take steps.

    Attributes:
        step: takes one.
        state: bytes of its networks and optimizers on the device, after its first step.
        switches: gives the context in which it runs.
        images: of a step.
    """

    step: Step
    state: int
    switches: Callable[[], AbstractContextManager[None]]
    images: int

    def take(self, steps: int) -> None:
        """Take steps, without waiting for the device between them."""
        with self.switches():
            for _ in range(steps):
                self.step()


def settings_of(rival: Rival, small: bool) -> config.Settings:
    """Return the settings of a rival: those of its preset, or tiny ones."""
    root = config.find_root()
    values = config.read(root / "params.yaml")
    for name in (rival.data, "resnet50"):
        values = config.merge(values, config.read(root / "presets" / f"{name}.yaml"))
    for changes in (QUIET, TINY if small else {}):
        values = config.merge(values, changes)
    row = "rrn" if rival.row == "reference" else rival.row
    speed = dict(rival.speed) | ({"compile": "eager"} if small and "compile" in rival.speed else {})
    device = "cpu" if small else "cuda"
    return config.resolve(values, row, {"device": device, "precision": rival.precision, "speed": speed})


def started(rival: Rival, part: Part) -> Running:
    """Build a rival on the device and let it take its first step."""
    settings = settings_of(rival, part.small)
    batch = random_batch(settings, CLASSES[rival.data]).to(part.device)
    before = allocated(part.device)
    build = reference if rival.row == "reference" else ours
    step = build(settings, rival, part.device, batch)
    running = Running(
        step, 0, partial(switched, rival, part.device), settings.batch.labeled + 2 * settings.batch.unlabeled
    )
    running.take(1)
    wait(part.device)
    running.state = allocated(part.device) - before
    return running


def ours(settings: config.Settings, rival: Rival, device: torch.device, batch: Any) -> Step:
    """Return the project's step."""
    model = prepare_for(RRN(settings, CLASSES[rival.data], 0), device, settings.speed).train()
    learner = Learner(model.to(memory_format=rival.layout), settings, settings.train, decay=True)
    return lambda: learner.step(batch, 0)


def reference(settings: config.Settings, rival: Rival, device: torch.device, batch: Any) -> Step:
    """Return the step of the released code; its networks' passes are in the rival's precision, its losses in fp32."""
    released = ReferenceStep(settings, CLASSES[rival.data], 0)
    for network in (*released.segmenters, *released.discriminators):
        network.to(device)
        if rival.precision != "fp32":
            network.forward = in_precision(network.forward, device, PRECISIONS[rival.precision])
    return lambda: released.step(batch)


def in_precision(forward: Callable[..., Any], device: torch.device, dtype: torch.dtype) -> Callable[..., Any]:
    """Let a pass compute in a shorter type, and answer in fp32."""

    def short(images: Tensor) -> Any:
        with torch.autocast(device.type, dtype=dtype):
            answer = forward(images)
        return tuple(part.float() for part in answer) if isinstance(answer, tuple) else answer.float()

    return short


@contextmanager
def switched(rival: Rival, device: torch.device) -> Iterator[None]:
    """Set what a rival wants of cuDNN and of fp32 products; as it was afterwards."""
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = rival.benchmark
    try:
        with tensor_cores_in_fp32(rival.tf32):
            yield
    finally:
        torch.backends.cudnn.benchmark = before


def allocated(device: torch.device) -> int:
    """Return the bytes of all tensors on the device; 0 on a CPU, where nobody counts them."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def turns(rivals: Mapping[str, Running], part: Part, seconds: float) -> dict[str, list[float]]:
    """Let rivals take turns, and return the seconds a step of each, round by round.

    At least two rounds; as many as fit into `seconds`, but not more than ROUNDS.
    """
    found: dict[str, list[float]] = {name: [] for name in rivals}
    end = time.monotonic() + seconds
    for number in range(WARMUP + ROUNDS):
        for name in list(rivals)[:: -1 if number % 2 else 1]:
            wait(part.device)
            start = time.perf_counter()
            rivals[name].take(1 if part.small else STEPS)
            wait(part.device)
            if number >= WARMUP:
                found[name].append((time.perf_counter() - start) / (1 if part.small else STEPS))
        if number > WARMUP and (part.small or time.monotonic() > end):
            break
    return found


def timed(rivals: Mapping[str, Running], found: Mapping[str, list[float]]) -> Iterator[Row]:
    """Yield the rows of times."""
    for name, seconds in found.items():
        yield row(name, "a step", "s", seconds)
        yield row(name, "images a second", "images/s", [rivals[name].images / value for value in seconds])


def costs(name: str, rival: Rival, running: Running, seconds: list[float], part: Part) -> Iterator[Row]:
    """Yield operations of a step, and its share of what the GPU does in a matrix product of the same precision."""
    with FlopCounterMode(display=False) as counted:
        running.take(1)
    done, rate = float(counted.get_total_flops()), max(operations(rival.precision, part.device, part.small, rival.tf32))
    yield row(name, "operations a step", "count", [done])
    yield row(name, "share of the rate of a matrix product", "share", [done / 1e12 / each / rate for each in seconds])


def peak(running: Running, device: torch.device) -> int:
    """Return the bytes that a rival has at most in a step: its own state, and what the step adds to that."""
    return running.state + peak_of(device, lambda: running.take(1))


def peak_of(device: torch.device, call: Callable[[], object]) -> int:
    """Return how many bytes a call has on the device at most, beside what was there before."""
    wait(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = allocated(device)
    call()
    wait(device)
    return torch.cuda.max_memory_allocated(device) - before


def kernels(running: Running) -> float:
    """Return how many kernels the GPU runs in a step; on a CPU, how many operators are called.

    Raises:
        RuntimeError: the profiler saw none.
    """
    if not torch.cuda.is_available():
        with Operators() as operators:
            running.take(1)
        return float(operators.count)
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        running.take(1)
        torch.cuda.synchronize()
    on_the_gpu = [event.name for event in profiled.events() if event.device_type == DeviceType.CUDA]
    count = sum(not name.startswith(("Memcpy", "Memset")) for name in on_the_gpu)
    if not count:
        raise RuntimeError("the profiler saw no kernel")
    return float(count)


class Operators(TorchDispatchMode):
    """Counts the operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        """Do what is asked for, and count it."""
        self.count += 1
        return function(*arguments, **(keywords or {}))


def first(part: Part) -> Iterator[Row]:
    """Measure the six that matter most, in turns; then what a step of each costs beside time."""
    rivals = {name: started(rival, part) for name, rival in FIRST.items()}
    found = turns(rivals, part, part.left() / 2)
    yield from timed(rivals, found)
    for name, other in COMPARED:
        yield ratio(f"{name} / {other}", "a step", found[name], found[other])
    yield from memory(rivals, part)
    for name, running in rivals.items():
        yield from costs(name, FIRST[name], running, found[name], part)


def memory(rivals: Mapping[str, Running], part: Part) -> Iterator[Row]:
    """Yield peak memory, and that of rrn as a multiple of the reference's; nothing on a CPU."""
    if part.device.type != "cuda":
        return
    peaks = {name: peak(running, part.device) / 1e6 for name, running in rivals.items()}
    for name, bytes_held in peaks.items():
        yield row(name, "peak memory", "MB", [bytes_held])
    for name, other in COMPARED:
        if name in peaks and other in peaks:
            yield ratio(f"{name} / {other}", "peak memory", [peaks[name]], [peaks[other]])


def counted(rivals: Mapping[str, Rival], part: Part) -> Iterator[Row]:
    """Count kernels, or operators on a CPU."""
    what = "kernels a step" if part.device.type == "cuda" else "operators a step"
    for name, rival in rivals.items():
        release()
        yield row(name, what, "count", [kernels(started(rival, part))])


def later(case: str, part: Part) -> Iterator[Row]:
    """Measure one change beside what it is compared with."""
    name, rival, other, base = LATER[case]
    both = {name: rival, other: base}
    running = {known: started(each, part) for known, each in both.items()}
    found = turns(running, part, part.left() / 3)
    new = {known: each for known, each in running.items() if known not in FIRST}
    yield from timed(new, {known: found[known] for known in new})
    yield ratio(f"{name} / {other}", "a step", found[name], found[other])
    yield from memory(new, part)
    for known, each in new.items():
        if "compile" not in both[known].speed:  # operations of what is compiled cannot be counted
            yield from costs(known, both[known], each, found[known], part)


def main() -> None:
    """Measure, in order of worth."""
    part = begin(__doc__)
    if part.small:
        torch.set_num_threads(1)
    part.run("rrn, cps_cutmix, reference", lambda: first(part))
    in_bf16 = {name: rival for name, rival in FIRST.items() if rival.precision == "bf16"}
    part.run("kernels", lambda: counted(in_bf16, part))
    for case in LATER:
        release()
        part.run(case, lambda case=case: later(case, part), COMPILING if case == "compile" and not part.small else 0)
    others = {name: rival for name, rival, _, _ in LATER.values() if "compile" not in rival.speed}
    part.run("kernels of the others", lambda: counted(others, part))


def release() -> None:
    """Give memory back that the last case has left."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
