# `make demo` and `make test` are all that a fresh clone needs: Python 3.11+ and a C++ compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The bindings are installed without their own compile: they load the libraries that we build.
export CMAKE_ARGS := -DLLAMA_BUILD=OFF
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo test lint types sizes unit ui bench bench-demo bench-memory \
        bench-ladder lock clean

help:
	@echo "make demo    build, test and show the embedded model, end to end"
	@echo "make test    everything that CI runs"
	@echo "make ui      the Dagster and MLflow pages"
	@echo "make bench   the benchmarks (see benchmarks/)"

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@echo "creating the environment in $(VENV) (about 2 minutes)"
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[build,dev]'
	@touch $@

demo: install
	@$(BIN)/quantmint build phi-3-nano

ui: install
	@$(BIN)/quantmint ui

test: install lint types sizes unit

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

sizes: install
	$(BIN)/python tools/sizes.py

unit: install
	$(BIN)/pytest

bench: bench-demo bench-memory bench-ladder

bench-demo: install
	$(BIN)/python benchmarks/demo.py

bench-memory: install
	$(BIN)/python benchmarks/memory.py

bench-ladder: install
	$(BIN)/python benchmarks/ladder.py

# Pins every dependency to what a fresh resolution gives today.
lock:
	@rm -rf build/lock && $(PYTHON) -m venv build/lock
	@build/lock/bin/pip install --quiet --editable '.[build,dev,smollm2]'
	@build/lock/bin/pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt

clean:
	rm -rf $(VENV) build dist .quantmint *.egg-info src/*.egg-info
