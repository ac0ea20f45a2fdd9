"""Runs the tests of the CPU kernels with each instruction set of this processor but the highest.

    python python_tests/build/simd_levels.py

The highest is that of the suite. A level that the processor lacks is named as not run. What tests
torch's side of an operator (gradients, tracing, refusals) is the same with all levels, and left
out. Status 1 if a test fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from repsim_fast import build_info

ROOT = Path(__file__).resolve().parents[2]
LEVELS = ("baseline", "avx2", "avx512", "avx512_vnni", "amx")
FILES = [f"python_tests/ops/test_{op}.py" for op in ("centered_gram", "cross_gram", "batched_svd")]
FILES += [f"python_tests/ops/test_{name}.py" for name in ("batch_norm_relu", "pgd_steps")]
LEFT_OUT = "opcheck or torch_checks or gradients or compile or bad_input or errors or misuse"


def run(level: str) -> int:
    print(f"\n== {level}", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not cuda"]
    environment = {**os.environ, "REPSIM_SIMD": level}
    done = subprocess.run([*command, "-k", f"not ({LEFT_OUT})", *FILES], cwd=ROOT, env=environment)
    return done.returncode


def main() -> int:
    """Status 0 if every level passes."""
    have = build_info()["simd_levels"].split(", ")
    failed = [level for level in have[:-1] if run(level) != 0]
    for level in LEVELS:
        said = "failed" if level in failed else "passed" if level in have[:-1] else "NOT RUN"
        why = ": that of the suite" if level == have[-1] else ""
        print(f"{level:12} {said}{why or ('' if level in have else ': not of this processor')}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
