# `make run` and `make test` set up everything they need in .venv; a second call installs nothing.
PYTHON ?= python3
CORES ?= all
VENV := .venv
INSTALLED := $(VENV)/.installed
EXECUTOR := packages/snakemake-executor-plugin-submitit
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# What is imported is compiled once, not by each of hundreds of processes, whatever the environment (of a container) says.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run plan test lint format reference clean

run: $(INSTALLED)
	snakemake --cores $(CORES) --rerun-incomplete --show-failed-logs
	@python scripts/show_reports.py config.yaml

# What the default experiment would cost.
plan: $(INSTALLED)
	@python scripts/plan.py config.yaml

# As many processes as the machine has cores; tests/conftest.py says which tests stay together.
test: $(INSTALLED)
	pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

lint: $(INSTALLED)
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow
	snakemake --lint

format: $(INSTALLED)
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

# Writes the JSON schema and the reference page of the configuration from the typed models.
reference: $(INSTALLED)
	python scripts/write_reference.py

clean:
	rm -rf $(VENV) results .snakemake

$(INSTALLED): pyproject.toml $(EXECUTOR)/pyproject.toml envs/constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --no-compile --constraint envs/constraints.txt --editable $(EXECUTOR) --editable '.[dev]'
	touch $@
