"""Floor 2: runs: their keys and records, the journal, and the engine that trains them."""
