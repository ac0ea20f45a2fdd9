#!/usr/bin/env bash
# One wheel, built with the torch of the given environment, must run with another torch; and
# `pip install .` with build isolation must work there. Slow (it makes an environment), hence a
# script of its own: make wheel-check.
set -euo pipefail

builder=$(realpath "$1")/bin
python=${PYTHON:-python3}
other_torch=${OTHER_TORCH:-2.13.0}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "== wheel built with torch $("$builder/python" -c 'import torch; print(torch.__version__)')"
"$builder/pip" wheel -q --no-build-isolation --no-deps -w "$work/wheel" .

"$python" -m venv "$work/env"
env=$work/env/bin
"$env/pip" install -q "torch==$other_torch" pytest pytest-benchmark pytest-timeout
"$env/pip" install -q "$work"/wheel/repsim_fast-*.whl
echo "== runs with torch $("$env/python" -c 'import torch; print(torch.__version__)')"
(cd "$work" && "$env/repsim-fast" info)
# Not from the repository's root: the installed package is the one under test.
cp -r python_tests "$work/python_tests"
cp pyproject.toml "$work/"
(cd "$work" && "$env/pytest" -q python_tests/ops/test_centered_gram.py python_tests/similarity/test_cka.py \
  python_tests/similarity/test_minibatch.py)

echo "== pip install . with build isolation, torch $other_torch in the build environment"
"$env/pip" uninstall -q -y repsim_fast
echo "torch==$other_torch" > "$work/constraints.txt"
PIP_CONSTRAINT="$work/constraints.txt" "$env/pip" install -q --no-deps .
(cd "$work" && "$env/python" -c "
import torch
from repsim_fast import build_info
from repsim_fast.similarity import cka
x = torch.randn(50, 4)
assert abs(float(cka(x, 2 * x)) - 1) < 1e-5
print('built with torch', build_info()['torch_built_with'], 'runs with', torch.__version__)")
echo "wheel check passed"
