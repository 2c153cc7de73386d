# Sets up, builds, runs and checks everything. PY chooses the interpreter; one that has torch keeps its own.
PY ?= python3
VENV := .venv
PYTHON := $(VENV)/bin/python
TORCH := 2.13.0
JOBS ?= $(shell nproc)
SOURCES := $(shell find csrc -name '*.cpp' -o -name '*.h') setup.py
CUDA_SOURCES := $(shell find cuda -type f)
ifneq ($(wildcard /usr/lib/ccache),)
export PATH := /usr/lib/ccache:$(PATH)
endif

.PHONY: help setup build cuda demo docs test test-emulated lint format types bench gpu sanitize fuzz threads valgrind coverage soak cpp wheel sdist try-wheel clean
.DEFAULT_GOAL := help

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'
	@echo "  PY=/path/to/python chooses the interpreter (its own torch is used when it has one)"

$(VENV)/ready: tools/setup.py pyproject.toml
	$(PY) tools/setup.py run $(VENV) $(TORCH)
	@touch $@

$(VENV)/dev: $(VENV)/ready
	$(PYTHON) tools/setup.py dev $(VENV)
	@touch $@

setup: $(VENV)/ready build  ## Create .venv, install what is needed, build the library

# A library newer than every source needs no build; setup.py itself compiles only what changed.
python/lierope/liblierope_cpu.so: $(SOURCES) | $(VENV)/ready
	MAX_JOBS=$(JOBS) $(PYTHON) setup.py -q build_ext --inplace
	@touch $@

build: python/lierope/liblierope_cpu.so  ## Compile the library (incremental)

# Needs nvcc, but neither a GPU nor a torch with CUDA.
python/lierope/liblierope_cuda.so: $(SOURCES) $(CUDA_SOURCES) | $(VENV)/ready
	MAX_JOBS=$(JOBS) LIEROPE_BUILD=cuda $(PYTHON) setup.py -q build_ext --inplace
	@touch $@

cuda: setup python/lierope/liblierope_cuda.so  ## Compile the CUDA kernels (incremental; needs nvcc, no GPU)

demo: setup  ## The main job: train a small ViT on handwritten digits with several encodings
	$(PYTHON) -m lierope train --data digits --output runs/digits --overwrite $(ARGS)

test: setup $(VENV)/dev  ## Run all tests
	$(PYTHON) -m pytest -n $(JOBS) --dist worksteal $(ARGS)

test-emulated: setup $(VENV)/dev  ## Run the operator tests on the CUDA kernels, emulated on the CPU
	JOBS=$(JOBS) MAX_JOBS=$(JOBS) PYTHON=$(PYTHON) bash tools/emulated.sh $(ARGS)

lint: $(VENV)/dev  ## Check format and style of Python and C++
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	find $(wildcard csrc cuda tests) -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' | xargs -r $(VENV)/bin/clang-format --dry-run --Werror

format: $(VENV)/dev  ## Bring Python and C++ into format
	$(PYTHON) -m ruff check --fix-only -q .
	$(PYTHON) -m ruff format -q .
	find $(wildcard csrc cuda tests) -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' | xargs -r $(VENV)/bin/clang-format -i

types: $(VENV)/dev  ## Check the types of the package
	$(PYTHON) -m mypy python/lierope benchmarks/studies

docs: setup $(VENV)/dev  ## Build the pages and the reference of every public name into build/docs
	$(PYTHON) -m sphinx -q -W -b html docs build/docs

bench: setup  ## Measure speed against torch and write benchmarks/results
	$(PYTHON) -m benchmarks.speed $(ARGS)

gpu:  ## On a machine with a GPU: test, check and measure the CUDA kernels
	$(if $(wildcard $(VENV)/ready),$(PYTHON),$(PY)) tools/gpu.py $(ARGS)

sanitize: setup $(VENV)/dev  ## Run the operator tests under AddressSanitizer and UBSan (ARGS=short: the fuzzer's calls, minutes)
	MAX_JOBS=$(JOBS) PYTHON=$(PYTHON) bash tools/sanitize.sh $(ARGS)
	$(if $(filter short,$(ARGS)),,MAX_JOBS=$(JOBS) PYTHON=$(PYTHON) bash tools/emulated.sh sanitize)

fuzz: setup  ## Feed the operators by libFuzzer under AddressSanitizer (needs clang; SECONDS_EACH=60)
	MAX_JOBS=$(JOBS) PYTHON=$(PYTHON) bash tools/fuzz.sh $(ARGS)

threads: setup $(VENV)/dev  ## Run operators on several threads under ThreadSanitizer (needs LLVM's libomp)
	MAX_JOBS=$(JOBS) PYTHON=$(PYTHON) bash tools/threads.sh $(ARGS)

valgrind: setup  ## Call every operator with random arguments under valgrind (needs valgrind)
	PYTHON=$(PYTHON) bash tools/valgrind.sh

coverage: setup $(VENV)/dev  ## Count the lines of C++ and Python that the tests run
	MAX_JOBS=$(JOBS) JOBS=$(JOBS) PYTHON=$(PYTHON) bash tools/coverage.sh $(ARGS)

soak: setup  ## Train with changing shapes for an hour and watch memory and speed
	$(PYTHON) -m benchmarks.soak $(ARGS)

cpp: setup  ## Build and run a C++ program that uses the operators, and a compiled model, by LibTorch
	$(PYTHON) tests/cpp/run.py

wheel: setup  ## Pack dist/*.whl, with the CUDA library where it is built (LIEROPE_WHEEL=cpu: without; =cuda: it must be)
	MAX_JOBS=$(JOBS) $(PYTHON) -m pip wheel -q --no-build-isolation --no-deps -w dist .
	@ls -l dist

sdist: $(VENV)/ready  ## Pack the sources: dist/*.tar.gz
	$(PYTHON) setup.py -q sdist
	@ls -l dist

try-wheel: wheel  ## Try both wheels in clean environments, by Python and torch (downloads gigabytes; --publish writes docs/install.md)
	LIEROPE_WHEEL=cpu $(MAKE) wheel
	$(PYTHON) -m pip install -q uv
	$(PYTHON) -m tools.try_wheel $(ARGS)

clean:  ## Remove what was built (keeps .venv and runs)
	rm -rf build dist *.egg-info python/*.egg-info python/lierope/*.so compile_commands.json
	find . -name __pycache__ -not -path './.venv/*' -exec rm -rf {} +
