"""Floor 2: what the stages read and write: the files of `build/` and `mixtures/`, one module a stage or file."""
