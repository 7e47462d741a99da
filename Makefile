# make repro | make test | make smoke: each makes the environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: env repro test test-slurm lint docs smoke readme clean
.DEFAULT_GOAL := repro

env: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed, found " + sys.version.split()[0] + "; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

# The whole pipeline of params.yaml; ends with the results table and where the report lies.
repro: env
	PATH="$(CURDIR)/$(BIN):$$PATH" dvc repro
	@$(BIN)/python -m condpdiff.report.show

test: env lint
	$(BIN)/python -m pytest

lint: env docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive condpdiff stages

# The documentation, into site/index.html; a broken link fails.
docs: env
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The same dvc.yaml with configs/smoke.yaml in a throwaway clone: about two minutes on two cores.
smoke: env
	$(BIN)/python -m tests.smoke

# Put the committed run's table into the README.
readme: env
	$(BIN)/python -m condpdiff.report.show --readme

# `condpdiff launch` on a real Slurm: root and Slurm itself are needed, else it is skipped.
test-slurm: env
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -o addopts="" -v -rs tests/slurm/on_slurm.py

clean:
	rm -rf $(VENV) tmp
