"""Runs every CUDA kernel on the CPU under sanitizers, one OS thread for each CUDA thread.

    python csrc/tests/sanitize.py

First address and undefined behaviour, then data races; last a proof that a race would be seen: the
same kernels without their barriers must be reported. Needs g++ and its sanitizer libraries, no
CUDA. Under two minutes on two cores.
"""

from __future__ import annotations

import concurrent.futures
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
OUT = ROOT / "build" / "sanitize"
SOURCES = [
    *sorted(CSRC.glob("cuda/**/*.cu")),
    *sorted(CSRC.glob("tests/*.cu")),
    *sorted(ROOT.glob("benchmarks/kernels/*.cu")),
    CSRC / "tests" / "runner_threads.cpp",
    CSRC / "tests" / "sanitize_main.cpp",
]
# Whose barriers are dropped to show that a race is seen, the engine with them.
RACING = {"probe_kernels.cu", "centered_gram.cu", "runner_threads.cpp"}
COMPILE = [
    *(os.environ.get("CXX", "g++"), "-std=c++20", "-O1", "-g1", "-fno-omit-frame-pointer"),
    *("-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-Wno-psabi"),
    *(f"-I{CSRC}", f"-I{ROOT / 'benchmarks'}"),
]
ENVIRONMENT = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1"}


def build(name: str, *flags: str, lent: Path | None = None) -> Path:
    """The program of sanitize_main.cpp, compiled with these flags; what is not in RACING, if there
    is a folder that lends it, is taken from there."""
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    sources = [s for s in SOURCES if lent is None or s.name in RACING]
    objects = [folder / f"{source.name}.o" for source in sources]
    commands = [
        [*COMPILE, *flags, "-x", "c++", "-c", str(source), "-o", str(output)]
        for source, output in zip(sources, objects, strict=True)
    ]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda command: subprocess.run(command, check=True), commands):
            pass
    # Last, so that inline functions in both are those of this build.
    objects += [lent / f"{s.name}.o" for s in SOURCES if lent is not None and s not in sources]
    program = folder / "kernels"
    link = [COMPILE[0], *flags, *map(str, objects), "-o", str(program)]
    subprocess.run(link, check=True)
    return program


def check(title: str, program: Path) -> None:
    """Runs all kernels; a sanitizer's report ends the program and this script."""
    print(f"{title}: ", end="", flush=True)
    subprocess.run([str(program)], check=True, env=ENVIRONMENT)


def check_race_is_seen(program: Path, kernels: str) -> None:
    """The program without barriers must stop at a data race inside a kernel."""
    done = subprocess.run([str(program), kernels], capture_output=True, text=True, env=ENVIRONMENT)
    kernel = re.search(r"#\d+ .*?(\w+_kernel)", done.stderr)
    if done.returncode == 0 or "ThreadSanitizer: data race" not in done.stderr or not kernel:
        sys.exit(f"the thread sanitizer missed the races of the {kernels}:\n{done.stderr}")
    print(f"without barriers, {kernels}: data race reported in {kernel[1]}")


def main() -> None:
    """Everything; raises or exits with a status other than 0 at the first failure."""
    try:
        check(
            "addresses and undefined behaviour",
            build("address", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
        )
        threads = build("thread", "-fsanitize=thread")
        check("data races", threads)
        racing = build(
            "no_barriers", "-fsanitize=thread", "-DREPSIM_DROP_BARRIERS", lent=threads.parent
        )
    except subprocess.CalledProcessError as error:
        sys.exit(f"sanitize: failed: {' '.join(error.cmd)}")
    for kernels in ("probes", "grams"):
        check_race_is_seen(racing, kernels)
    print("sanitize: passed")


if __name__ == "__main__":
    main()
