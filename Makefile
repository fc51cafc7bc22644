# Both commands set themselves up from a bare clone and Python 3.10 or newer.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow clean

demo: $(VENV)/.runtime  ## segment the shipped pictures; results in out/demo
	$(BIN)/risengine demo

test: $(VENV)/.dev  ## style, types and the quick tests
	$(BIN)/pytest

test-slow: $(VENV)/.dev  ## the long parity suites
	$(BIN)/pytest -m slow

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable .
	touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "Installing the test environment (torch included): a few minutes the first time"
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[dev]'
	touch $@ $(VENV)/.runtime

clean:
	rm -rf $(VENV) out build dist .mypy_cache .ruff_cache .pytest_cache
