#!/usr/bin/env bash
# From the source archive to an installed package, as the README says, in an environment that has
# nothing but torch; then what `pip install` with build isolation does before it compiles. What a plain
# installation does without is named. Slow (it compiles), hence a script of its own: make wheel-check.
# Other versions of torch are for torch_versions.py.
set -euo pipefail

builder=$(realpath "$1")/bin
python=${PYTHON:-python3}
torch=$("$builder/python" -c 'import importlib.metadata as m; print(m.version("torch"))')
# The way of the sources through pip is that of CPU operators; make build compiles CUDA's, too.
export FORCE_CUDA=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "== source archive"
make --no-print-directory VENV="$1" DIST="$work" sdist
tar -xzf "$work"/repsim_fast-*.tar.gz -C "$work"
source=$(echo "$work"/repsim_fast-*/)
if [ -e .git ]; then
  missing=$(git ls-files | grep -v '\.gitignore$' | sort |
    comm -23 - <(cd "$source" && find . -type f | sed 's#^\./##' | sort))
  [ -z "$missing" ] || { echo "not in the archive: $missing"; exit 1; }
fi
cd "$source"
for built in $(find . -name '*.so' -o -name __pycache__); do
  echo "in the archive: $built" && exit 1
done

echo "== no wheel without the extension"
if REPSIM_BUILD_EXTENSIONS=0 "$builder/pip" wheel -q --no-build-isolation --no-deps \
  -w "$work/wheel" . 2>"$work/said"; then
  echo "a wheel without the extension was built" && exit 1
fi
grep "REPSIM_BUILD_EXTENSIONS=0 is for" "$work/said"

echo "== the README's commands, torch $torch"
"$python" -m venv "$work/env"
env=$work/env/bin
"$builder/python" python_tests/build/lend_torch.py "$work/env" "$work/lent"
awk '/environment of your own/ { found = 1 } found && /^```/ { if (inside) exit; inside = 1; next }
     inside' README.md >"$work/commands"
cat "$work/commands"
grep -q -- --no-build-isolation "$work/commands"
PIP_QUIET=1 PATH=$env:$PATH bash -e "$work/commands"

echo "== what a plain installation does, and what it does without"
cd "$work"
"$env/python" - <<'PY'
import importlib.util
from pathlib import Path

import torch
from torch import nn

from repsim_fast import build_info, compare
from repsim_fast.report.folder import write_folder

for extra in ("sklearn", "pyarrow", "pandas", "torchvision"):
    assert importlib.util.find_spec(extra) is None, f"{extra} is no dependency"
net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
result = compare(net, net, torch.randn(60, 6), batch_size=20, progress=False)
assert abs(float(result.grids()[0].value[0, 0]) - 1) < 1e-5
write_folder(Path("report"), result)
print(*sorted(path.name for path in Path("report").iterdir()))
try:
    result.grids()[0].to_dataframe()
except ImportError as error:
    assert "repsim_fast[tables]" in str(error), error
print("built with torch", build_info()["torch_built_with"], "runs with", torch.__version__)
PY
"$env/repsim-fast" demo --epochs 1 --limit 200 --out demo

echo "== tests of the installed package"
"$env/pip" install -q pytest pytest-benchmark pytest-timeout
# Not from the repository's root: the installed package is the one under test.
mkdir tests && cp -r "$source/python_tests" "$source/pyproject.toml" tests/
(cd tests && "$env/pytest" -q python_tests/ops/test_centered_gram.py \
  python_tests/similarity/test_cka.py python_tests/similarity/streaming/test_minibatch.py)

echo "== pip install with build isolation, up to the compilation, torch $torch lent to it"
"$env/pip" uninstall -q -y repsim_fast
echo "torch==$torch" >constraints.txt
PIP_FIND_LINKS="$work/lent" PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
  "$env/pip" install --dry-run --no-deps "$work"/repsim_fast-*.tar.gz | tee isolated.txt
grep "Would install repsim_fast-" isolated.txt
echo "wheel check passed"
