# A fresh machine needs two commands: `make demo` and `make test`. Both make the environment in
# $(VENV) and compile the extension on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= out

# `make gpu` runs with the Python that is there (offline, no environment of its own).
GPU_PYTHON ?= python3
GPU_OUT ?= out/gpu

# Metadata and entry point; the extension is compiled in place afterwards, where ninja keeps what
# did not change.
EDITABLE := REPSIM_BUILD_EXTENSIONS=0 $(BIN)/pip install -q --no-build-isolation --no-deps -e .

CSRC := $(shell find csrc -type f)

.PHONY: demo test build lint format bench cuda-check sanitize wheel-check clean \
        gpu gpu-build gpu-test gpu-sanitize gpu-bench

demo: $(VENV)/.built  ## main job: train, compare, picture and report on embedded digits
	$(BIN)/repsim-fast demo --out $(OUT)/demo

test: $(VENV)/.built  ## whole test suite
	$(BIN)/pytest python_tests

bench: $(VENV)/.built  ## benchmarks; correctness is checked before anything is timed
	$(BIN)/pytest benchmarks --benchmark-enable --benchmark-json=$(OUT)/benchmarks.json

# The environment: torch and torchvision from the registry, then what pyproject.toml names.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q "torch>=2.11" torchvision
	$(BIN)/pip install -q "setuptools>=77" wheel ninja numpy "pybind11>=2.13"
	$(BIN)/python -c "import pip._vendor.tomli as tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
	  print('\n'.join(p['dependencies'] + sum((p['optional-dependencies'][x] for x in ('vision', 'test', 'lint')), [])))" \
	  > $(VENV)/requirements.txt
	$(BIN)/pip install -q -r $(VENV)/requirements.txt
	touch $@

$(VENV)/.built: $(VENV)/.installed setup.py $(CSRC)
	test -x $(BIN)/repsim-fast || $(EDITABLE)
	flock $(VENV)/.lock env REPSIM_WERROR=1 $(BIN)/python setup.py -q build_ext --inplace
	touch $@

build: $(VENV)/.built

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \
	  | xargs $(BIN)/clang-format --dry-run --Werror

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \
	  | xargs $(BIN)/clang-format -i

cuda-check:  ## compiles every kernel for every architecture; registers and spills within budget
	$(PYTHON) csrc/tests/cuda_check.py

sanitize: $(VENV)/.installed  ## CUDA kernels on the CPU under address, undefined and thread sanitizers
	$(BIN)/python csrc/tests/sanitize.py

wheel-check: $(VENV)/.built  ## one wheel, built with this torch, runs with another
	PYTHON=$(PYTHON) bash python_tests/build/wheel_check.sh $(VENV)

# On a machine with a GPU, offline. Each part ends well inside ten minutes.
gpu: gpu-build gpu-test gpu-sanitize gpu-bench

gpu-build:
	mkdir -p $(GPU_OUT)
	FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="9.0" $(GPU_PYTHON) -m pip install -q --no-build-isolation --no-deps --no-index -e .
	cd $(GPU_OUT) && $(GPU_PYTHON) -m repsim_fast info

gpu-test: gpu-build
	REPSIM_REQUIRE_CUDA=1 $(GPU_PYTHON) -m pytest python_tests -q --junitxml=$(GPU_OUT)/tests.xml

gpu-sanitize: gpu-build
	cd $(GPU_OUT) && for tool in memcheck racecheck initcheck synccheck; do \
	  compute-sanitizer --tool $$tool --error-exitcode 1 \
	    $(GPU_PYTHON) $(CURDIR)/python_tests/csrc/small_shapes.py || exit 1; done

gpu-bench: gpu-build
	REPSIM_REQUIRE_CUDA=1 $(GPU_PYTHON) -m pytest benchmarks --benchmark-enable -q \
	  --benchmark-json=$(GPU_OUT)/benchmarks.json

clean:
	rm -rf build dist $(OUT) repsim_fast/*.so *.egg-info
