# The same commands for people and for CI. `make demo` and `make test` need nothing installed but
# Python 3.11 or newer.
PYTHON ?= python3
VENV ?= .venv
# For x86-64 with AVX2, which nearly every machine has; OpenBLAS elsewhere ignores the name.
KERNEL ?= Haswell
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml | cksum | cut -d' ' -f1)-$(shell pwd | cksum | cut -d' ' -f1)

.PHONY: help install demo test test-slow kernel-test cluster-test lint format bench schema clean

help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(STAMP):
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=24'
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@rm -f $(VENV)/.installed-* && touch $@

install: $(STAMP) ## Create the virtual environment and install everything

demo: $(STAMP) ## Run the 15-institution federation on generated data and write a report
	$(BIN)/python -m fedfuse_ray run demo --out runs/demo

test: $(STAMP) ## Run the tests (about 25 minutes on 2 cores)
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadgroup

test-slow: $(STAMP) ## Run the long tests
	$(BIN)/python -m pytest -m slow

kernel-test: $(STAMP) ## Run again what must not depend on the kernels of the linear algebra
	OPENBLAS_CORETYPE=$(KERNEL) $(BIN)/python -m pytest -m "kernels and not slow"

cluster-test: $(STAMP) ## Bring a two-node cluster up on this machine, use it, take it down
	$(BIN)/python tests/cluster/main.py

lint: $(STAMP) ## Check format, style, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Rewrite the files in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## Run the benchmarks and compare them with the baseline
	$(BIN)/python -m benchmarks.all

schema: $(STAMP) ## Write the JSON schema of config files, for editors
	$(BIN)/python -m fedfuse_ray schema > docs/experiment.schema.json

clean: ## Remove what was built
	rm -rf $(VENV) dist build runs
