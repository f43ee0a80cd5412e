"""What commands import, imported: `tests.warm` forks from the process that did."""

import importlib

from tests.warm import modules

COMMANDS = modules("olmix.cli", "olmix.stages", "olmix.laws")
for name in ("torch", "polars", "scipy.optimize", "dvc.cli.parser", "dvc.repo", "olmix.proxy.evaluation", *COMMANDS):
    importlib.import_module(name)
