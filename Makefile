# Everything runs in an environment of its own, .venv; `make VENV=/somewhere PYTHON=python3.12 test` puts it elsewhere.

PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= 2

BIN := $(VENV)/bin
PLUGINS := $(sort $(wildcard plugins/*/pyproject.toml))
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input

.PHONY: help venv test lint types lit unit arm-test oneapi-test device-test device-bench demo bench acceptance onnx-suite fuzz fuzz-files moe-exports large docs changelog clean

help:            ## what there is
	@sed -n 's/^\([a-z-]*\):[^#]*## /  make \1\t/p' Makefile | expand -t 20

venv: $(VENV)/.installed  ## the environment for development
$(VENV)/.installed: pyproject.toml $(PLUGINS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dscc needs Python 3.11 or newer; say which: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) -e '.[dev]' $(foreach p,$(PLUGINS),-e $(dir $(p)))
	@# Without a C compiler, kernels are linked by the one that the ziglang package holds.
	@command -v cc >/dev/null || command -v c++ >/dev/null || command -v clang >/dev/null || $(PIP) ziglang
	@touch $@

test: lint types lit unit  ## everything that CI runs

lint: venv       ## ruff
	$(BIN)/ruff check .

types: venv      ## mypy, strict
	$(BIN)/mypy
	$(BIN)/mypy $(dir $(PLUGINS))

lit: venv        ## commands, passes, targets and error messages
	$(BIN)/lit --quiet -j $(JOBS) tests/lit

unit: venv       ## unit tests
	$(BIN)/python -m pytest -q -n $(JOBS)

arm-test: venv   ## eight real models for ARM, executed under qemu and compared with onnxruntime
	$(BIN)/python -m benchmarks.cross --save --shapes 1 --target arm:cortex-a72 --target arm:neoverse-n1 --target arm:neoverse-v2

oneapi-test: venv  ## eight real models through OpenCL on this processor, compared with onnxruntime
	$(BIN)/python -m benchmarks.cross --save --target oneapi:cpu

demo: venv       ## fetch three models, compile, verify and race them
	$(PIP) -e '.[demo]'
	$(BIN)/python -m benchmarks.demo

bench: venv      ## the race that benchmarks/RESULTS.md is written from
	$(PIP) -e '.[bench,exports]'
	$(BIN)/python -m benchmarks.race --save

acceptance: venv ## every promise about real models, measured, into benchmarks/RESULTS.md
	$(PIP) -e '.[bench,exports]'
	$(BIN)/python -m benchmarks.acceptance --save

onnx-suite: venv ## ONNX's own backend test suite, into benchmarks/ONNX_SUITE.md
	$(BIN)/python -m benchmarks.onnx_suite --save --jobs $(JOBS)

# One seed is one sequence of graphs: give another one, as in `make fuzz SEED=7 SECONDS=600`.
SECONDS ?= 3600
SEED    ?= $(shell date +%j)
fuzz: venv       ## random graphs against onnxruntime and the reference, for SECONDS, from SEED
	$(BIN)/python -m benchmarks.fuzz --seconds $(SECONDS) --seed $(SEED) --jobs $(JOBS)

fuzz-files: venv ## ten minutes of altered model files: each is read, or refused in one line
	$(BIN)/python -m benchmarks.fuzz_files --seconds 600 --bases made suite real

moe-exports: venv  ## seven families of mixtures of experts as transformers exports them, recognised and compared
	$(PIP) -e '.[exports,verify]'
	$(BIN)/python -m benchmarks.moe_exports

large: venv      ## compile a model with 3 GB of weights, and say what memory that took
	$(BIN)/python -m benchmarks.large --folder $(or $(TMPDIR),/tmp)/dscc-large

device-test: venv  ## compile for the CUDA device of this machine, run, and compare with onnxruntime
	$(BIN)/python -m pytest -q tests/device

device-bench: venv  ## race PyTorch on the CUDA device of this machine, into benchmarks/RESULTS.md
	$(PIP) -e '.[bench,exports]'
	$(BIN)/python -m benchmarks.device build build/device
	$(BIN)/python -m benchmarks.device run build/device
	$(BIN)/python -m benchmarks.device report build/device

docs: venv       ## rewrite the pages of docs/ that are made from the code
	$(BIN)/python -m docs.generate

changelog: venv  ## what the next release's notes will say
	$(BIN)/towncrier build --draft

clean:           ## remove the environment and what tests leave behind
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
