"""What this machine can train on besides its cores."""

from __future__ import annotations

from pathlib import Path

# What a driver shows of a GPU: where neither is, torch need not be loaded to know that there is none.
_DRIVERS = (Path("/proc/driver/nvidia"), Path("/dev/kfd"))


def count_gpus() -> int:
    """GPUs that torch can use here."""
    if not any(driver.exists() for driver in _DRIVERS):
        return 0
    import torch

    return torch.cuda.device_count()
