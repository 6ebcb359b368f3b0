"""Lack of memory, as torch says it on each device, becomes an error that says what to do."""

import pytest
import torch

from rrn.runtime import memory
from rrn.runtime.memory import MemoryShortage

SAID = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nand more"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED\nmore"),
    "cpu": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: 5 bytes\nmore"
    ),
}


def fail(error, ways=dict):
    with memory.explain_oom("a picture", ways):
        raise error


@pytest.mark.parametrize("where", SAID)
def test_the_message_has_what_torch_said_and_the_settings_that_are_there_to_be_taken(where):
    error = SAID[where]
    with pytest.raises(MemoryShortage) as caught:
        fail(error, lambda: {"smaller: true costs time": True, "other: true": False, "less: 1 is coarse": True})
    first = str(error).splitlines()[0]
    assert str(caught.value).splitlines() == [
        f"a picture does not fit into memory ({first}); what would need less:",
        "  smaller: true costs time",
        "  less: 1 is coarse",
    ]
    assert caught.value.__cause__ is error


def test_other_errors_stay_what_they_are():
    error = RuntimeError("shapes differ")
    with pytest.raises(RuntimeError, match=r"^shapes differ$") as caught:
        fail(error)
    assert caught.value is error


def test_a_real_shortage_on_the_cpu_is_recognized():
    with (
        pytest.raises(MemoryShortage, match=r"^a tensor does not fit into memory"),
        memory.explain_oom("a tensor", dict),
    ):
        torch.empty(1 << 60, dtype=torch.uint8)
