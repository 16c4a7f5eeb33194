# `make demo` sets everything up and runs the main job; `make test` sets everything up and passes
# the tests. Both need Python 3.11, pip and make, and nothing else.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# `make test-hosts` does the same for the libraries that read archives: torch, pandas, Ray and so
# on, some 2 GB. It takes the CPU build of torch that TORCH names.

TORCH ?= torch==2.13.0

# Tests side by side, on as many processors as there are. Neighbours mostly stay together, because
# they share what is slow to make. Those that kill processes at a moment are alone, and so are the
# slow ones, which measure memory.

SIDE_BY_SIDE := -n auto --maxprocesses 8 --dist worksteal

.PHONY: demo test test-slow test-hosts check bench clean

demo: $(VENV)/installed
	$(BIN)/python examples/demo.py

test: check
	$(BIN)/pytest -q $(SIDE_BY_SIDE) --ignore-glob='*crash.py'
	$(BIN)/pytest -q tests/test_*crash.py

test-slow: $(VENV)/installed-dev
	$(BIN)/pytest -q -m slow

test-hosts: $(VENV)/installed-hosts
	$(BIN)/pytest -q $(SIDE_BY_SIDE) tests/integrations

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --strict cli

bench: $(VENV)/installed-dev
	$(BIN)/python benchmarks/bench_seal.py
	$(BIN)/python benchmarks/bench_read.py
	$(BIN)/python benchmarks/bench_memory.py
	$(BIN)/python benchmarks/bench_keystore.py
	$(BIN)/python benchmarks/bench_rotate.py
	$(BIN)/python benchmarks/bench_reencrypt.py
	$(BIN)/python benchmarks/bench_sources.py
	$(BIN)/python benchmarks/bench_logs.py
	$(BIN)/python benchmarks/bench_tables.py

# One that is there and good is kept. Links to another Python would be kept by `venv` too, and what
# an interrupted one left out would stay out.
$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'pqvault needs Python 3.11 or newer: make PYTHON=python3.12' >&2; exit 1; }
	@$(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2> /dev/null \
	  || { rm -f $(BIN)/python*; $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

$(VENV)/installed-hosts: $(VENV)/installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '$(TORCH)'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,hosts]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps litdata
	touch $@

clean:
	rm -rf $(VENV) demo build *.egg-info
