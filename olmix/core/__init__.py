"""Floor 1: plain values and pure mathematics. Arrays in, arrays out; no files, no processes, no printing."""
