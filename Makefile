# Every command sets itself up from a bare clone and Python 3.10 or newer; test-cpp also needs the packages of .ci/run.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.10 python3; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
	&& command -v $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
CPP := build/cpp
# An official release archive of ONNX Runtime; made of Debian's headers and the wheel's library when left out.
ONNXRUNTIME_ROOT ?=

.PHONY: demo test test-slow test-cpp test-cpp-sanitized clean

demo: $(VENV)/.runtime  ## segment the shipped pictures; results in out/demo
	$(BIN)/risengine demo

test: $(VENV)/.dev  ## style, types and the quick tests
	$(BIN)/python -m pytest

test-slow: $(VENV)/.dev  ## the long parity suites
	$(BIN)/python -m pytest -m slow

test-cpp-sanitized: CPP := build/cpp-sanitized
test-cpp-sanitized: CPP_OPTIONS := -DRISENGINE_SANITIZE=address,undefined -DRISENGINE_EVERY=20

# The C++ library: build, install, a consumer, and the answers beside Python's; -sanitized: with ASan and UBSan.
test-cpp test-cpp-sanitized: $(VENV)/.dev
	$(if $(ONNXRUNTIME_ROOT),,engine/cpp/setup_onnxruntime.sh $(BIN)/python build/onnxruntime)
	cmake -S . -B $(CPP) -DONNXRUNTIME_ROOT=$(abspath $(or $(ONNXRUNTIME_ROOT),build/onnxruntime)) \
		-DRISENGINE_PYTHON=$(abspath $(BIN)/python) -DRISENGINE_BUILD_TESTS=ON -DRISENGINE_BUILD_EXAMPLES=ON \
		$(CPP_OPTIONS)
	cmake --build $(CPP) --parallel 2
	ctest --test-dir $(CPP) --output-on-failure --parallel 2

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
