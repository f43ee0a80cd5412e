"""What commands import, imported: `tests.warm` forks from the process that did."""

import importlib

from tests.warm import modules

for name in modules("olmix.cli", "olmix.stages"):
    importlib.import_module(name)
