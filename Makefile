# Every target sets up .venv by itself; nothing else is needed but Python >= 3.11.
PYTHON ?= python3
BIN := .venv/bin
# Threads that wait should sleep, not spin: a busy machine runs the tests several times faster.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test test-full test-lowest docs lint format peers clean
.DEFAULT_GOAL := demo

# The main job on real generated video: train, test, predict, report.
demo: .venv/ready
	$(BIN)/mmaction-lite demo

# The suite, without the slow checks: under 5 minutes on 2 cores.
test: .venv/ready
	$(BIN)/python -m pytest -m "not slow"

# All of it, fault drills, large sweeps and compilation included: under 25 minutes.
test-full: .venv/ready .venv/docs-ready
	$(BIN)/python -m pytest

# The suite, without the slow checks, with the lowest version of every dependency that pyproject.toml accepts.
# These old packages raise deprecation warnings beside newer packages that they depend on.
test-lowest: .venv-lowest/ready
	.venv-lowest/bin/python -m pytest -m "not slow" -W ignore::DeprecationWarning

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The documentation site, in build/docs; open build/docs/index.html. Warnings are errors.
docs: .venv/docs-ready
	$(BIN)/python -m sphinx -W --keep-going -b html docs build/docs

# Other frameworks, each in an environment of its own, to measure beside; see docs/benchmark.md. mit_tsm and
# pyslowfast are environments for checkouts of these projects.
peers: $(patsubst benchmarks/peers/%.txt,.peers/%/ready,$(wildcard benchmarks/peers/*.txt))

.peers/%/ready: benchmarks/peers/%.txt
	$(PYTHON) -m venv .peers/$*
	.peers/$*/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

clean:
	rm -rf .venv .venv-lowest .peers build dist .pytest_cache .ruff_cache

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mmaction-lite needs Python 3.11 or newer; $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=/path/to/python")'
	@echo "Installing into .venv; this takes a few minutes the first time."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

LOWEST = import re, tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; e = p["optional-dependencies"]; \
  print("\n".join(re.sub(">=", "==", r) for r in p["dependencies"] + e["jpeg"] + e["parquet"] + e["serve"]))

.venv-lowest/ready: pyproject.toml
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) -c '$(LOWEST)' > .venv-lowest/constraints.txt
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check --constraint .venv-lowest/constraints.txt \
	  --editable '.[jpeg,parquet,serve]' 'aiohttp>=3.10' 'hypothesis>=6.110' 'pytest>=8.3'
	@touch $@

.venv/docs-ready: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@touch $@
