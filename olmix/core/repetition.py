"""Simulated repetition: how much of a domain a proxy is shown, so that it repeats there as it does in the target run.

A target of R tokens that gives a domain of N tokens the share p reads it p R / N times. A proxy of r tokens that draws
from n tokens of it reads them p r / n times: the same for every p when n = N r / R. Without it a small proxy never
repeats what the target repeats many times, and the laws learn that data is endless.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """The lengths of a proxy's run, of the target training run and of a sequence, in tokens."""

    run_tokens: int
    target_tokens: int
    sequence_length: int

    def sequences(self, tokens: int) -> float:
        """Sequences of a domain of `tokens` tokens that a proxy may draw from, N r / R in sequences; not whole."""
        return tokens * self.run_tokens / self.target_tokens / self.sequence_length

    def rows(self, tokens: int) -> int:
        """The same as whole sequences, one at least."""
        return max(1, round(self.sequences(tokens)))
