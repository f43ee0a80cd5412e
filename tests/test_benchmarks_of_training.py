"""The benchmarks of training run where there is nothing to measure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def run(*arguments: str) -> str:
    command = [sys.executable, str(BENCHMARKS / "gpu_training.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device, so it measures for minutes")
def test_without_a_gpu_it_says_so_in_one_line() -> None:
    assert run().splitlines() == ["no CUDA device: nothing was measured (--tiny --device cpu walks through it)"]


def test_the_benchmark_of_gpus_can_be_walked_through() -> None:
    lines = run("--tiny", "--device", "cpu", "--repeats", "1").splitlines()
    assert lines[0].startswith("CPU, torch ")
    assert [line.split("  ")[0] for line in lines[2:4]] == ["100k, olmix", "100k, stock modules"]
    assert lines[4].startswith("100k: ")
    assert "times the stock loop" in lines[4]
