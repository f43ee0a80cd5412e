"""From observations to a proposal and how far to trust it: fitting, choosing a law, the bootstrap, sweeps."""
