#!/usr/bin/env bash
# The operators' tests with a build of the CPU kernels that checks every access to memory and every
# undefined operation. Three minutes; needs GCC's runtimes. make sanitize-cpu.
set -euo pipefail

python=$(realpath "$1")/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r setup.py pyproject.toml README.md LICENSE csrc python_tests "$work/"
sources=$(find repsim_fast -name '*.py' -o -name py.typed)
for file in $sources; do install -D "$file" "$work/$file"; done
cd "$work"

CFLAGS="-fsanitize=address,undefined -fno-omit-frame-pointer" \
  LDFLAGS="-fsanitize=address,undefined" FORCE_CUDA=0 \
  "$python" setup.py -q build_ext --inplace

# The interpreter is not built with them, so the runtimes have to be there before it; what torch and
# the interpreter leave behind at their end is not ours.
runtimes=""
for name in asan ubsan stdc++; do runtimes+="$(gcc -print-file-name=lib$name.so) "; done
export LD_PRELOAD=$runtimes ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1 PYTHONPATH=$work
"$python" -c "import repsim_fast; assert repsim_fast.__file__.startswith('$work/')"
# Documents, which are no part of the copy, and processes of their own have tests elsewhere.
"$python" -m pytest -q -x -s -o addopts= -p no:cacheprovider python_tests/ops \
  --ignore=python_tests/ops/test_contributing.py -m "not cuda" \
  -k "not instruction_set and not compile"
