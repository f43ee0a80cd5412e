# make demo   from a clone to a mixture: environment, sample corpus, dvc repro, the mixture as a table
# make test   the same environment, then all that CI checks
# make quick  the inner loop: lint, types, and the tests that take least
# make wheel  the wheel in dist/, tried in a clean environment
PYTHON ?= python3
# Two test processes more than cores: many tests wait for DVC, a disk, a server or a cluster.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 2)')
# Versions to install: a file of pip constraints, or nothing for the newest.
CONSTRAINTS ?= constraints.txt
VENV := .venv
INSTALLED := $(VENV)/.installed
DATA := cpp docs doctest junk math py story tasks tokenizer
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: install demo test check quick lint types tests wheel docs docs-output bench clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit("olmix needs Python 3.11 or newer: make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS:%=-c %) -e '.[pipeline,lightgbm,slurm,ray,sample,dev]'
	@touch $@

demo: $(INSTALLED)
	@test -d data/tasks || (python -m olmix.sample_corpus --out data && cd data && dvc add --quiet $(DATA))
	@olmix init --upgrade > /dev/null
	dvc repro
	@olmix show

test: check

check: lint types tests

quick: lint types
	pytest -n logical --dist worksteal -m "not slow"

lint: $(INSTALLED)
	ruff check .
	ruff format --check .

types: $(INSTALLED)
	mypy

tests: $(INSTALLED)
	pytest -n $(WORKERS) --dist worksteal

wheel:
	$(PYTHON) scripts/try_wheel.py dist

docs: $(INSTALLED)
	python -m scripts.docs

docs-output: demo
	OLMIX_DEMO=$(CURDIR) python -m scripts.outputs

bench: $(INSTALLED)
	@for benchmark in benchmarks/*.py; do echo "== $$benchmark"; python $$benchmark || exit 1; done

clean:
	rm -rf $(VENV) build dist .olmix .mypy_cache .ruff_cache .pytest_cache .hypothesis
