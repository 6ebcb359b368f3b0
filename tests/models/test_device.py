"""What `device:` may name, and what is said where there is no such device."""

import pytest
import torch

from rrn.config import SettingsError
from rrn.models import device


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert device.resolve_device("auto").type == "cpu"
    assert device.resolve_device("meta").type == "meta"
    with pytest.raises(SettingsError, match=r"device: cuda:1, but torch sees no GPU here; set device: auto or cpu"):
        device.resolve_device("cuda:1")
    with pytest.raises(SettingsError, match=r"device: 'gpu' is none of auto, cpu, cuda, cuda:0, cuda:1"):
        device.resolve_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device.resolve_device("auto").type == "cuda"
    assert device.resolve_device("cuda:1").index == 1
    with pytest.raises(SettingsError, match=r"device: cuda:3, but torch sees 2 GPUs here, the first is cuda:0"):
        device.resolve_device("cuda:3")


def test_one_gpu_is_the_first_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert device.resolve_device("cuda") == torch.device("cuda")
    assert device.resolve_device("cuda:0").index == 0
    with pytest.raises(SettingsError, match=r"^device: cuda:1, but torch sees 1 GPUs here, the first is cuda:0$"):
        device.resolve_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SettingsError, match=r"auto or cpu, or install a driver and a CUDA build of torch$"):
        device.resolve_device("cuda")
