"""What commands import, imported: `tests.warm` forks from the process that did."""

import importlib
import pkgutil

names = ["torch", "polars", "scipy.optimize", "dvc.cli.parser", "dvc.repo", "olmix.proxy.evaluation"]
for package in ("olmix.cli", "olmix.stages", "olmix.laws"):
    names += [module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}.")]
for name in names:
    importlib.import_module(name)
