"""The files of `build/`, `mixtures/` and `external/`: readers and writers, one module a file."""
