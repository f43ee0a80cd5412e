"""Every error that olmix raises on purpose.

One hierarchy, one line each: the file, the key, the numbers, and what to do. The command line prints the
message without a traceback and exits with 1; anything else that is raised is a defect of olmix.
"""

from __future__ import annotations


class OlmixError(Exception):
    """An error whose message is written for the person who runs olmix."""


class ConfigError(OlmixError):
    """params.yaml or runtime.yaml says something that cannot be."""


class DataError(OlmixError):
    """A shard, a task file or a tokeniser cannot be used as it is."""


class MixtureError(OlmixError):
    """A mixture file, a dataset version or a plan made of them is not valid."""


class InfeasibleError(OlmixError):
    """No mixture meets the repetition limits."""


class SwarmError(OlmixError):
    """The swarm cannot identify the law, or too few of its runs are there."""


class SolverError(OlmixError):
    """The solver did not reach the gap it certifies."""


class TrainingError(OlmixError):
    """A proxy run failed."""


class PipelineError(OlmixError):
    """The DVC pipeline is not in the state that a command needs."""
