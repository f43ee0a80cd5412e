"""olmix: a declarative, dataset-versioned build system for language-model data mixtures."""

__version__ = "0.1.0"
