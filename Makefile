# make run    the whole graph on the sample dataset, ending with the scores of the four variants
# make ui     the Dagster UI on the same home, at http://localhost:3000, and the pages it links to
# make test   the test suite
# make faults what can happen to a machine, done to the tiny model's graph at each stage
PYTHON ?= $(shell command -v python3.11 || command -v python3)
export PHI3_HOME ?= $(CURDIR)/home
export DAGSTER_HOME ?= $(PHI3_HOME)/.dagster
BIN := .venv/bin
# Hundreds of processes would each compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run ui test test-slow faults lint lock clean

run: .venv/installed
	@$(BIN)/phi3 run

ui: .venv/installed
	@$(BIN)/phi3 ui

test: .venv/installed lint
	@$(BIN)/pytest -m "not slow" -n 3 --dist worksteal

test-slow: .venv/installed
	@$(BIN)/pytest -m slow

faults: .venv/installed
	@$(BIN)/python -m phi3_assets_tests.faults --side-by-side 2

lint: .venv/installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# --no-deps: the lock names every package, and nothing may come in beside it. Except that PyPI's torch for Linux finds CUDA
# in packages of NVIDIA's, whose versions it names itself; a build for CPUs has none, and then nothing is installed.
.venv/installed: requirements.lock setup.cfg pyproject.toml
	@echo "Installing into .venv; the first time this takes two to five minutes."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "Python 3.11 is needed; name one with: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --no-deps --requirement requirements.lock
	@$(BIN)/pip install --quiet --constraint requirements.lock torch
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Resolve anew what setup.cfg asks for, keeping every version that still fits.
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet --constraint requirements.lock '.[dev,azure,postgres]' setuptools wheel
	build/lock/bin/pip freeze --all --exclude phi3-assets --exclude pip | sed 's/+cpu$$//' > build/requirements.lock
	mv build/requirements.lock requirements.lock

clean:
	rm -rf build .venv
