"""The library's public names are pinned: one that goes or comes is a decision."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import olmix


def test_public_names() -> None:
    assert olmix.__all__ == [
        "Accepted", "CollapsedSpace", "Dataset", "Domain", "FitSettings", "LogLinear", "Mixture", "Observations",
        "OlmixError", "Plan", "Problem", "Reuse", "Sampling", "Share", "Solution", "SwarmDomain", "examine",
        "fit_loglinear", "fit_swarm", "law_kinds", "make_plan", "observe", "sample_swarm", "solve", "total_variation",
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


def test_an_error_of_the_library_speaks_of_no_file_of_a_project() -> None:
    domains = [olmix.SwarmDomain("a", "1", 0.5), olmix.SwarmDomain("b", "2", 0.5)]
    with pytest.raises(olmix.OlmixError) as raised:
        olmix.sample_swarm(domains, 1, olmix.Sampling())
    assert str(raised.value) == "runs: 1 runs cannot identify 2 domains; ask for more runs"
    assert (raised.value.file, raised.value.key, raised.value.way_out) == (None, "runs", "ask for more runs")
    again = pickle.loads(pickle.dumps(raised.value.at(file="params.yaml", key="swarm")))
    assert str(again) == "params.yaml: swarm.runs: 1 runs cannot identify 2 domains; ask for more runs"


def test_the_guides_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    guide = (Path(__file__).parent.parent / "docs" / "fit.md").read_text()
    snippet = guide.split("```python\n")[1].split("```")[0]
    exec(compile(snippet, "docs/fit.md", "exec"), {})
    assert "Interval(" in capsys.readouterr().out
