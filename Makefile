# A fresh machine needs two commands: `make demo` and `make test`. Both make the environment in
# $(VENV) and compile the extension on first use. Variables: PYTHON, VENV, OUT, WORKERS, and those of
# tools/environment.sh, such as TORCH=cpu.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= out
EXPERIMENTS ?= robust_representations catastrophic_overfitting class_selectivity compact_robust
DIST ?= dist
WORKERS ?= auto

# `make gpu` runs with the Python that is there (offline, no environment of its own).
GPU_PYTHON ?= python3
GPU_OUT ?= out/gpu

CSRC := $(shell find csrc -type f)

# A worker a core, a thread a worker: the suite's matrices are too small for more. Bytecode is kept,
# whatever the shell says: tests start the package's commands again and again.
test doctest: export PYTHONDONTWRITEBYTECODE :=
PYTEST := OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pytest -n $(WORKERS) --dist worksteal

GPU_TESTS := kernels similarity attacks rest
GPU_SANITIZERS := memcheck racecheck initcheck synccheck
GPU_BENCHES := operators study paths steps svd attacks end-to-end

.PHONY: demo test docs build lint lint-python lint-cpp format doctest bench bench-check bench-peers experiment-smoke cuda-check cuda-check-all \
        compiler-check test-levels faults \
        sanitize sanitize-cpu torch-check sdist wheel-check clean help \
        gpu gpu-build gpu-test gpu-sanitize gpu-bench gpu-learning gpu-experiment \
        $(GPU_TESTS:%=gpu-test-%) $(GPU_SANITIZERS:%=gpu-sanitize-%) $(GPU_BENCHES:%=gpu-bench-%)

demo: $(VENV)/.built  ## main job: train, compare, picture and report on embedded digits
	$(BIN)/repsim-fast demo --out $(OUT)/demo

test: $(VENV)/.built  ## the test suite, examples of the docstrings among it
	$(PYTEST) python_tests

doctest: $(VENV)/.built  ## examples of the docstrings alone
	$(PYTEST) python_tests/docs/test_docstrings.py

# One thread: the notebooks' networks gain nothing by more.
docs: $(VENV)/.built  ## the documentation site in $(OUT)/docs, notebooks run; warnings are errors
	$(BIN)/python -c "import sphinx, myst_nb, furo" 2>/dev/null || \
	  $(BIN)/pip install -q sphinx myst-nb furo
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -b html -W --keep-going -q docs $(OUT)/docs

# One thread: networks this small gain nothing by more, and lose much beside other work.
experiment-smoke: $(VENV)/.built  ## the experiments on digits, each in two minutes
	for name in $(EXPERIMENTS); do \
	  OMP_NUM_THREADS=1 $(BIN)/python -m experiments.$$name --preset smoke --quiet \
	    --work $(OUT)/$$name/work --results $(OUT)/$$name/results || exit; \
	done

# FAULTS=--short for a minute of it; --out and --keep are options, too.
faults: $(VENV)/.built  ## kills, full disks, changed files, odd commands, threads, leaks; prints a table
	OMP_NUM_THREADS=1 $(BIN)/python -m python_tests.faults $(FAULTS)

bench: $(VENV)/.built  ## benchmarks; correctness is checked before anything is timed
	$(BIN)/pytest benchmarks --benchmark-enable --benchmark-json=$(OUT)/benchmarks.json

# PEERS="--only layer_grid": options of that script.
bench-peers: $(VENV)/.built  ## benchmarks beside other packages, which get an environment of their own
	$(BIN)/python benchmarks/beside_peers.py --out $(OUT)/peers $(PEERS)

bench-check: $(VENV)/.built  ## the benchmarks' checks of correctness, without their times
	$(PYTEST) benchmarks

$(VENV)/.installed: pyproject.toml tools/environment.sh
	PYTHON="$(PYTHON)" sh tools/environment.sh $(VENV)
	touch $@

$(VENV)/.built: $(VENV)/.installed setup.py $(CSRC)
	$(BIN)/python setup.py -q build_ext --inplace
	touch $@

# The stamp says nothing where the extension has been removed.
ifeq ($(wildcard repsim_fast/_C.*.so),)
.PHONY: $(VENV)/.built
endif

build: $(VENV)/.built  ## environment and extension; compiles what changed

lint: lint-python lint-cpp  ## formats, types, arrows between rooms, compiler warnings

lint-python: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lint-cpp: $(VENV)/.installed
	find csrc benchmarks -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \
	  | xargs $(BIN)/clang-format --dry-run --Werror
	$(BIN)/python python_tests/build/check_compilers.py --quick

format: $(VENV)/.installed  ## formats Python and C++
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	find csrc benchmarks -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \
	  | xargs $(BIN)/clang-format -i

compiler-check: $(VENV)/.installed  ## our C++ with every other g++ and clang++ that is here
	$(BIN)/python python_tests/build/check_compilers.py

test-levels: $(VENV)/.built  ## CPU kernels with the lower instruction sets of this processor
	$(BIN)/python python_tests/build/simd_levels.py

cuda-check:  ## compiles every kernel for two architectures; registers and spills within budget
	$(PYTHON) csrc/tests/cuda_check.py

cuda-check-all:  ## the same for all of them, some minutes
	$(PYTHON) csrc/tests/cuda_check.py --all

sanitize:  ## CUDA kernels on the CPU under address, undefined and thread sanitizers
	$(PYTHON) csrc/tests/sanitize.py

sanitize-cpu: $(VENV)/.installed  ## CPU operators under address and undefined sanitizers
	bash python_tests/build/sanitize_cpu.sh $(VENV)

torch-check: $(VENV)/.built  ## builds and tests with the oldest torch, the newest and one between
	$(BIN)/python python_tests/build/torch_versions.py

sdist: $(VENV)/.installed  ## source archive in $(DIST)
	$(BIN)/python setup.py -q sdist --dist-dir $(DIST)

wheel-check: $(VENV)/.built  ## source archive, wheel, and the README's installation in an empty environment
	PYTHON=$(PYTHON) bash python_tests/build/wheel_check.sh $(VENV)

# On a machine with a GPU, offline: `make gpu`, or its parts one after another, each stopped before
# ten minutes: gpu-build, gpu-test-*, gpu-sanitize-*, gpu-bench-* (make -n gpu names them all).
# Results are written to $(GPU_OUT).
gpu: gpu-test gpu-sanitize gpu-bench  ## on a machine with a GPU: tests, sanitizers, benchmarks
gpu-test: $(GPU_TESTS:%=gpu-test-%)
gpu-sanitize: $(GPU_SANITIZERS:%=gpu-sanitize-%)
gpu-bench: $(GPU_BENCHES:%=gpu-bench-%)  ## the table: achieved over bound
	$(GPU_PYTHON) benchmarks/gpu_summary.py $(GPU_OUT)

GPU_PART := timeout 590 env REPSIM_REQUIRE_CUDA=1
# Not the options of pyproject.toml, which need pytest-benchmark.
GPU_PYTEST := $(GPU_PART) $(GPU_PYTHON) -m pytest -q -o addopts=-ra --import-mode=importlib

# Once for all parts: it takes minutes. Named by the sources' contents, as their dates say nothing
# where each command finds them copied anew, or the clock is another.
GPU_BUILT := build/.gpu-built-$(shell cat setup.py $(sort $(CSRC)) | cksum | tr ' ' -)

gpu-build: $(GPU_BUILT)
	mkdir -p $(GPU_OUT)
	cd $(GPU_OUT) && $(GPU_PYTHON) -m repsim_fast info

$(GPU_BUILT):
	FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="9.0a" $(GPU_PYTHON) -m pip install -q --no-build-isolation --no-deps --no-index -e .
	$(GPU_PYTHON) python_tests/csrc/build_runner.py cuda
	mkdir -p build
	rm -f build/.gpu-built*
	touch $@

GPU_TESTS_kernels := csrc ops
GPU_TESTS_similarity := similarity comparison capture
GPU_TESTS_attacks := attacks training
# Everything else, so that a new folder is not forgotten.
GPU_TESTS_rest := $(filter-out \
  $(GPU_TESTS_kernels) $(GPU_TESTS_similarity) $(GPU_TESTS_attacks) __pycache__, \
  $(notdir $(patsubst %/,%,$(wildcard python_tests/*/))))

$(GPU_TESTS:%=gpu-test-%): gpu-test-%: gpu-build
	$(GPU_PYTEST) $(GPU_TESTS_$*:%=python_tests/%) --junitxml=$(GPU_OUT)/tests-$*.xml

# Every tensor an allocation of its own: torch's pools would hide an access behind one's end, and
# memory that nothing wrote.
$(GPU_SANITIZERS:%=gpu-sanitize-%): gpu-sanitize-%: gpu-build
	cd $(GPU_OUT) && $(GPU_PART) PYTORCH_NO_CUDA_MEMORY_CACHING=1 \
	  compute-sanitizer --tool $* --error-exitcode 1 \
	  $(GPU_PYTHON) $(CURDIR)/python_tests/csrc/small_shapes.py

gpu-bench-operators: gpu-build
	$(GPU_PART) $(GPU_PYTHON) benchmarks/kernels/operators.py --out $(GPU_OUT)/operators.json

gpu-bench-study: gpu-build
	$(GPU_PART) $(GPU_PYTHON) benchmarks/kernels/study.py --out $(GPU_OUT)/kernel_study.json

gpu-bench-paths: gpu-build
	$(GPU_PART) $(GPU_PYTHON) benchmarks/kernels/gram_paths.py --out $(GPU_OUT)/gram_paths.json

# Beside torch and public tools, as on the CPU.
GPU_BENCHES_steps := centered_gram pgd_steps
GPU_BENCHES_svd := batched_svd
GPU_BENCHES_attacks := pgd_end_to_end
gpu-bench-steps gpu-bench-svd gpu-bench-attacks: gpu-bench-%: gpu-build
	$(GPU_PYTEST) -s --record-to $(GPU_OUT) $(GPU_BENCHES_$*:%=benchmarks/test_%.py)

gpu-bench-end-to-end: gpu-build
	$(GPU_PART) $(GPU_PYTHON) benchmarks/end_to_end_gpu.py --out $(GPU_OUT)

# CIFAR-10 as parquet files, which `make gpu` does without. To be repeated while make says Error 75.
GPU_DATA ?= ../shared/data
gpu-learning: gpu-build  ## published recipes against the published accuracies of early epochs
	$(GPU_PYTHON) benchmarks/learning.py --data $(GPU_DATA)/cifar10 --minutes 8 \
	  --out $(GPU_OUT)/learning.json

# Ten hours by estimate, in parts of eight minutes, which are no part of `make gpu`: "Error 75"
# means that the same command goes on from there, success that all questions are answered.
gpu-experiment: gpu-build
	$(GPU_PYTHON) -m experiments.robust_representations --preset gpu --minutes 8 --quiet

clean:  ## removes what was built, not the environment
	rm -rf build dist $(OUT) repsim_fast/*.so *.egg-info $(VENV)/.built

help:  ## these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
