"""Builds the extension and runs a small suite with the oldest torch, the newest and one between.

    python python_tests/build/torch_versions.py [VERSION ...]

A version is fetched alone (half a gigabyte); what it depends on is that of the environment, whose
own version counts as checked: `make build` and `make test` use it. With each of the others, every
source compiles without a warning, the CPU extension is built, and the suite runs; what was built
with the oldest also runs with the environment's. A version that cannot be had is named, with the
reason; the status is 1 when a build or a test fails, or when no version could be had.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from time import perf_counter

import torch
from check_compilers import ROOT, problems

OLDEST = "2.11.0"
FETCH_SECONDS = 150  # ten times what a fast registry takes
BUILD_SECONDS = 600
SUITE = [
    "ops/test_centered_gram.py",
    "similarity/test_cka.py",
    "similarity/streaming/test_minibatch.py",
]
PACKAGES = Path(torch.__file__).parents[1]
OWN = torch.__version__.partition("+")[0]


class Unavailable(Exception):
    """This torch cannot be had or cannot run here, and that is no fault of ours."""


class Failed(Exception):
    """Our build or our tests failed."""


def as_numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def wanted() -> list[str]:
    """The oldest, the newest and one between, the environment's if that is neither."""
    pip = [sys.executable, "-m", "pip", "index", "versions", "torch"]
    listed = subprocess.run(pip, capture_output=True, text=True, timeout=FETCH_SECONDS).stdout
    found = {v for v in re.findall(r"\d+\.\d+\.\d+", listed) if as_numbers(v) >= as_numbers(OLDEST)}
    if not found:
        print("pip's index names no versions of torch: the newest is unknown")
    ordered = sorted({OLDEST, OWN, *found}, key=as_numbers)
    between = OWN if OWN in ordered[1:-1] else ordered[len(ordered) // 2]
    return list(dict.fromkeys([OLDEST, between, ordered[-1]]))


def explained(said: str) -> list[str]:
    """Those lines of pip's that say what is wrong."""
    found = [line.strip() for line in said.splitlines() if re.search("ERROR|constraint", line)]
    return found or [said]


def fetch(version: str, folder: Path) -> Path:
    """torch unpacked, beside links to the CUDA libraries that it loads; a folder for PYTHONPATH."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"]
    pip += ["--only-binary=:all:", "--dest", str(folder), f"torch=={version}"]
    try:
        done = subprocess.run(pip, capture_output=True, text=True, timeout=FETCH_SECONDS)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"not fetched within {FETCH_SECONDS} s") from None
    if done.returncode != 0:
        raise Unavailable("\n  ".join(explained(done.stderr)))
    (wheel,) = folder.glob("torch-*.whl")
    packages = folder / "packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    wheel.unlink()
    if (PACKAGES / "nvidia").exists():
        (packages / "nvidia").symlink_to(PACKAGES / "nvidia")
    return packages


def run(command: list[str], what: str, folder: Path, *path: Path) -> str:
    """The output of a command that must succeed, with these folders before the environment's."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "FORCE_CUDA": "0",
        "REPSIM_WERROR": "1",
    }
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
    )
    if done.returncode != 0:
        said = done.stdout + done.stderr
        wrong = [line for line in said.splitlines() if re.search("(error|Error|ERROR).*: ", line)]
        raise Failed("\n".join([f"{what} failed:", said[-4000:], "", *wrong[:20]]))
    return done.stdout


def check(version: str, folder: Path) -> str:
    """Compiles, builds and tests with one version; what was done."""
    packages = fetch(version, folder)
    try:
        run(["-c", "import torch"], "import", folder, packages)
    except Failed as error:  # CUDA libraries of another major version
        if found := problems(packages / "torch"):
            raise Failed("\n".join(found)) from None
        raise Unavailable(f"sources compile, but it does not run here: {error}") from None

    work = folder / "work"
    setup = ["setup.py", "-q", "build", "--build-base", str(folder / "build")]
    run([*setup, "--build-lib", str(work)], "build", ROOT, packages)
    shutil.copytree(ROOT / "python_tests", work / "python_tests")
    shutil.copy(ROOT / "pyproject.toml", work)
    suite = ["-m", "pytest", "-q", *(f"python_tests/{name}" for name in SUITE)]
    lines = [run(suite, "suite", work, work, packages).splitlines()[-1]]
    say = "import repsim_fast, torch; print(repsim_fast.build_info()['torch_built_with'],"
    say += " 'with', torch.__version__)"
    if version == OLDEST:
        # What it has is the same; that it loads and computes is what is in question.
        lines.append(run(suite[:4], f"suite with torch {OWN}", work, work).splitlines()[-1])
        lines.append("built with " + run(["-c", say], "build_info", work, work).strip())
    return "; ".join(lines)


def main(versions: list[str]) -> int:
    """Status 0 if all that could be had builds and passes."""
    failed, checked = False, 0
    for version in versions or wanted():
        if version == OWN:
            print(f"torch {version}: the environment's own", flush=True)
            continue
        begun = perf_counter()
        print(f"torch {version}: ", end="", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(check(version, Path(folder)), end="")
                checked += 1
            except Unavailable as error:
                print(f"NOT CHECKED, could not be had: {error}", end="")
            except Failed as error:
                print(f"FAILED: {error}", end="")
                failed = True
        print(f" ({perf_counter() - begun:.0f} s)", flush=True)
    if not checked:
        print("no version but the environment's was checked")
    return 1 if failed or not checked else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
