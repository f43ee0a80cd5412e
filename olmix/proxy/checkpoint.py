"""The checkpoint of one run: what a run that was stopped goes on from.

It holds weights, both moments of the optimiser, and the loss of every sequence read so far, in one safetensors file
that is renamed into place whole, with a digest of its tensors. The data order is not in it: it is a plan, and the
step says where in it the run is. On one CPU thread a run that goes on ends in the same bytes as one that was never
stopped. Its price is twelve bytes a parameter and one write each `seconds`; a file that is damaged or another run's
is as good as none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from olmix.files import write_bytes

_STEP = "step"


@dataclass(frozen=True)
class Checkpoint:
    """Where a run keeps its state, the key of that run, and the seconds between two writes (0: after each step)."""

    path: Path
    key: str
    seconds: float

    def write(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Write the state after `step` steps, atomically; raises OlmixError when it cannot be written."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        metadata = {_STEP: str(step), "key": self.key, "digest": _digest(step, tensors)}
        write_bytes(self.path, save(tensors, metadata))

    def read(self) -> tuple[int, dict[str, Tensor]] | None:
        """The step and the state of this run, or None when there is no file, or a damaged one, or another run's."""
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("key") != self.key:
                    return None
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dictionary
            step = int(metadata[_STEP])
        except (OSError, SafetensorError, KeyError, ValueError):
            return None  # absent, cut short or overwritten by another hand: the run starts anew
        return (step, state) if metadata.get("digest") == _digest(step, state) else None

    def clear(self) -> None:
        """Remove the file, if it is there: the run has ended."""
        self.path.unlink(missing_ok=True)


def _digest(step: int, tensors: Mapping[str, Tensor]) -> str:
    digest = xxhash.xxh3_128(str(step).encode())
    for name in sorted(tensors):
        digest.update(f"{name}{tuple(tensors[name].shape)}{tensors[name].dtype}".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
