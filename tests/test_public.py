"""The library's public names are pinned: one that goes or comes is a decision."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

import olmix


def test_public_names() -> None:
    assert olmix.__all__ == [
        "Accepted", "CollapsedSpace", "Dataset", "Domain", "LogLinear", "Mixture", "OlmixError", "Plan", "Reuse",
        "Sampling", "Share", "Solution", "SwarmDomain", "fit_loglinear", "make_plan", "sample_swarm", "solve",
        "total_variation",
    ]  # fmt: skip
    assert all(getattr(olmix, name).__doc__ for name in olmix.__all__)


def test_from_a_swarm_to_a_mixture_without_dvc_or_torch() -> None:
    domains = [olmix.SwarmDomain("a", "1", 0.5), olmix.SwarmDomain("b", "2", 0.3), olmix.SwarmDomain("c", "3", 0.2)]
    mixtures = olmix.sample_swarm(domains, 12, olmix.Sampling())
    truth = np.array([[-0.5, 0.2, 0.4], [0.3, -0.6, 0.4]])
    law = olmix.fit_loglinear(mixtures, 1.0 + np.exp(mixtures @ truth.T))
    solution = olmix.solve(
        law.objective(), reference=np.array([0.5, 0.3, 0.2]), kl=0.05, caps=np.array([0.6, 1.0, 1.0])
    )
    assert solution.gap <= 1e-9
    assert solution.weights[2] < 0.2
    check = "import olmix; olmix.solve; import sys; print({'torch', 'dvc', 'pydantic'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout == "set()\n"
