# Both commands set themselves up from a bare clone and Python 3.10 or newer.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.10 python3; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
	&& command -v $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test test-slow clean

demo: $(VENV)/.runtime  ## segment the shipped pictures; results in out/demo
	$(BIN)/risengine demo

test: $(VENV)/.dev  ## style, types and the quick tests
	$(BIN)/python -m pytest

test-slow: $(VENV)/.dev  ## the long parity suites
	$(BIN)/python -m pytest -m slow

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.10 or newer with venv is needed: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.runtime: pyproject.toml | $(BIN)/python
	$(PIP) install --editable .
	touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "Installing the test environment (torch included): a few minutes the first time"
	$(PIP) install --editable '.[dev]'
	touch $@ $(VENV)/.runtime

clean:
	rm -rf $(VENV) out build dist .mypy_cache .ruff_cache .pytest_cache
