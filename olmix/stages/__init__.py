"""The stages of dvc.yaml. A project relies on `main` of each, and on nothing else in the package."""
