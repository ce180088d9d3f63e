# Everything below sets itself up; it needs Python >= 3.11, make and a package registry.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export DVC_NO_ANALYTICS := 1

.PHONY: demo test setup bench repro clean lock help

demo: $(READY) ## Draw signs, run the whole graph on them, print the comparison.
	@$(BIN)/python -m stages.demo

test: $(READY) ## Lint, type-check, test.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

setup: $(READY) ## Set up the environment in .venv, and run nothing.

bench: $(READY) ## Stage one beside what one would write without it.
	@$(BIN)/python -m benchmarks.speed

repro: $(READY) ## Run what params.yaml says, on the official data.
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fc7cache needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

lock: ## Pin anew what pyproject.toml asks for, for every Python and platform at once.
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip install --quiet uv
	$(VENV)/lock/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --upgrade \
		--python-version 3.11 --extra dev --output-file requirements.lock pyproject.toml

clean: ## Remove what was made, but for downloads, the DVC cache and the environment.
	rm -rf demo digits accuracy scratch results models data/index.csv data/classes.json data/thumbnails.zip data/features.zarr .mypy_cache .pytest_cache .ruff_cache .hypothesis

help: ## Print what can be made.
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "make %-6s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
