"""Compiles every `.cu` for each architecture, warnings as errors, and checks what ptxas reports.

    python csrc/tests/cuda_check.py [--all] [--if-available]

Without --all for two architectures, whose compilers differ most in registers.

Each kernel must stay within its line of `register_budget.txt`: registers, bytes spilled, bytes of
static shared memory. Needs nvcc (CUDA_HOME or PATH) and no GPU. Without nvcc: a message that
nothing was checked, and status 3, or 0 with --if-available.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
BUDGET = Path(__file__).with_name("register_budget.txt")
ALL = ("75", "80", "90", "100", "120")
FEW = ("90", "120")
WARPGROUPS = "90a"  # for the sources that have products by warpgroups
# Registers of a thread that every kernel may have: 65536 for 1024 threads, not 2048.
FREE_REGISTERS = {"75": 64}
NO_COMPILER = 3


class Usage(NamedTuple):
    """Of one kernel: registers a thread, bytes of spill loads and stores, bytes of a block."""

    registers: int
    spilled: int
    shared: int


def find_nvcc() -> str | None:
    """Path of the CUDA compiler, None without one."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    candidate = Path(home) / "bin" / "nvcc"
    return str(candidate) if candidate.exists() else shutil.which("nvcc")


def known_to(nvcc: str) -> set[str]:
    """Architectures that the compiler has code for."""
    listed = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True)
    return set(re.findall(r"compute_(\d+)", listed.stdout))


def targets(source: Path, architectures: Sequence[str]) -> list[str]:
    """Architectures that a source is checked for. The study is of later cards than sm_75."""
    special = "kernels/portability/warpgroup_products.h" in source.read_text()
    study = "benchmarks" in source.parts
    return [name for name in architectures if not (study and name == "75")] + [WARPGROUPS] * special


def compile_source(nvcc: str, source: Path, architecture: str, folder: Path) -> str:
    """ptxas' report; raises RuntimeError with the compiler's messages."""
    output = folder / f"{source.stem}.{architecture}.cubin"
    command = [
        *(nvcc, "-std=c++20", "-O3", "--expt-relaxed-constexpr"),
        *(f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'benchmarks'}"),
        f"-gencode=arch=compute_{architecture},code=sm_{architecture}",
        *("-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra", "-Xptxas", "-v"),
        *("-cubin", str(source), "-o", str(output)),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{source.name} for sm_{architecture}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def short_names(mangled: list[str]) -> list[str]:
    """`kernel<Arguments>`, without namespaces and parameters."""
    text = subprocess.run(
        ["c++filt"], input="\n".join(mangled), capture_output=True, text=True, check=True
    ).stdout
    names = []
    for line in text.splitlines():
        name = line.replace("(anonymous namespace)::", "").replace("repsim_fast::", "")
        name = re.sub(r"\([\w:]+\)(?=\d)", "", name)  # (int)64 in template arguments
        names.append(re.sub(r"\(.*", "", name).removeprefix("void ").replace(" ", ""))
    return names


def usages(report: str) -> dict[str, Usage]:
    """Kernel name -> what ptxas says it uses."""
    blocks = re.split(r"Compiling entry function '", report)[1:]
    names = short_names([block.partition("'")[0] for block in blocks])
    found = {}
    for name, block in zip(names, blocks, strict=True):
        numbers = {
            key: int(match[1]) if (match := re.search(pattern, block)) else 0
            for key, pattern in {
                "registers": r"Used (\d+) registers",
                "stored": r"(\d+) bytes spill stores",
                "loaded": r"(\d+) bytes spill loads",
                "shared": r"(\d+) bytes smem",
            }.items()
        }
        spilled = numbers["stored"] + numbers["loaded"]
        found[name] = Usage(numbers["registers"], spilled, numbers["shared"])
    return found


def read_budget() -> dict[str, Usage]:
    """Kernel name pattern -> limits, in the file's order."""
    budget = {}
    for line in BUDGET.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            name, *numbers = line.split()
            budget[name] = Usage(*map(int, numbers))
    return budget


def main() -> int:
    """Exit status: 0 passed, 1 problems, 3 no compiler."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--all", action="store_true", help=f"for {', '.join(ALL)}")
    parser.add_argument("--if-available", action="store_true", help="succeed without nvcc")
    options = parser.parse_args()
    nvcc = find_nvcc()
    if nvcc is None:
        print("cuda-check: no nvcc on PATH or in CUDA_HOME: no CUDA source was checked")
        return 0 if options.if_available else NO_COMPILER

    folders = ("csrc/cuda", "csrc/tests", "benchmarks/kernels")
    sources = sorted(path for folder in folders for path in ROOT.glob(f"{folder}/**/*.cu"))
    wanted, known = ALL if options.all else FEW, known_to(nvcc)
    if unknown := [name for name in wanted if name not in known]:
        print(f"cuda-check: this nvcc knows no {', '.join(unknown)}: not checked for")
    architectures = [name for name in wanted if name in known]
    jobs = [(source, name) for source in sources for name in targets(source, architectures)]
    budget, problems, matched = read_budget(), [], set()
    with tempfile.TemporaryDirectory() as folder:
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            running = [pool.submit(compile_source, nvcc, *job, Path(folder)) for job in jobs]
        for (_, architecture), job in zip(jobs, running, strict=True):
            try:
                report = job.result()
            except RuntimeError as error:
                problems.append(str(error))
                continue
            for name, used in usages(report).items():
                print(f"sm_{architecture:4} {name:62} {used.registers:4} registers")
                pattern = next((p for p in budget if fnmatch.fnmatchcase(name, p)), None)
                if pattern is None:
                    problems.append(f"{name}: not in {BUDGET.name}; sm_{architecture}: {used}")
                    continue
                matched.add(pattern)
                limits = budget[pattern]
                free = FREE_REGISTERS.get(architecture, 0)
                limits = limits._replace(registers=max(limits.registers, free))
                if any(have > limit for have, limit in zip(used, limits, strict=True)):
                    problems.append(f"{name}: sm_{architecture} {used}, budget {limits}")
    if not problems:
        unused = budget.keys() - matched
        problems += [f"{pattern}: in {BUDGET.name}, but no such kernel" for pattern in unused]
    for problem in problems:
        print(f"cuda-check: {problem}", file=sys.stderr)
    verdict = f"{len(problems)} problems" if problems else "passed"
    compiled = ", ".join(sorted({architecture for _, architecture in jobs}, key=len))
    print(f"cuda-check: {len(sources)} sources, {compiled}: {verdict}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
