"""Every benchmark that compares with other packages, beside all of these that can be had.

    python benchmarks/beside_peers.py --out FOLDER [--environment FOLDER] [--also REQUIREMENT ...]
        [--only NAME ...] [--data CIFAR10]

The packages get an environment of their own, on whose path this one's stand, so that torch is not
fetched again and nothing here is replaced. torch, NumPy and SciPy stay what they are here: both
sides of a ratio run with the same. A package that cannot be installed or imported is named with
the reason, and the rest goes on. Then tests of agreement run, and the benchmarks, which check
before they time. Their results replace those in the folder; ``peers.json`` says what became of
each package. ``PYTEST_ADDOPTS="-k pair"`` runs some cases, as of any pytest.

Status 1: no package was measured. Status 2: some were, and a check or a benchmark failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import site
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCHMARKS)]
from timing import machine, write_json  # noqa: E402

ROOT = BENCHMARKS.parent
# Distributions, and the modules that they bring.
PEERS = {
    "pytorch-cka": "cka",
    "torchmetrics": "torchmetrics",
    "rsatoolbox": "rsatoolbox",
    "dcor": "dcor",
    "netrep": "netrep",
    "torchattacks": "torchattacks",
    "foolbox": "foolbox",
    "pyautoattack": "pyautoattack",
}
# Not asked for by name: an index may come to have something else under it.
UNPUBLISHED = {"netrep": "its authors have it on no package index; give its sources: --also FOLDER"}
HELD = ("torch", "numpy", "scipy")
INSTALL_SECONDS = 300  # several times what the largest takes from a fast index

PYTEST = ["-m", "pytest", "-q", "-o", "timeout=0"]
AGREEMENT = [
    "python_tests/similarity/test_peers.py",
    "python_tests/attacks/test_adapters.py",
    "python_tests/attacks/test_apgd.py::test_auto_attack_with_the_package",
]


@dataclass
class Peer:
    """What became of a package: its version or why there is none, and the results that have it."""

    name: str
    version: str | None = None
    reason: str | None = None
    measured_in: tuple[str, ...] = ()


def benchmarks(out: Path, data: str | None) -> dict[str, list[str]]:
    """What Python runs for each results file."""
    timed = [*PYTEST, "-s", "--benchmark-enable", "--record-to", str(out)]
    found = {
        name: [*timed, f"benchmarks/test_{name}.py"]
        for name in ("layer_grid", "measures", "pgd_end_to_end")
    }
    training = ["benchmarks/training_speed.py", "--methods", "pgd", "--batches", "1"]
    found["training_speed"] = [*training, "--out", str(out / "training_speed.json")]
    if data is not None:
        strength = ["benchmarks/l1_attack.py", "--data", data, "--work", str(out / "l1_attack")]
        found["l1_attack"] = [*strength, "--out", str(out / "l1_attack.json")]
    return found


def lent(environment: Path) -> Path:
    """The Python of an environment that sees this one's packages behind its own."""
    venv.create(environment, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text("".join(f"{path}\n" for path in site.getsitepackages()))
    (environment / "held.txt").write_text("".join(f"{name}=={version(name)}\n" for name in HELD))
    return environment / "bin" / "python"


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        said = f"ERROR: not done within {INSTALL_SECONDS} s"
        return subprocess.CompletedProcess(command, 1, "", said)


def install(python: Path, requirement: str) -> str | None:
    """Why pip could not, if so."""
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
    done = run([*pip, "--constraint", str(python.parents[1] / "held.txt"), requirement])
    if done.returncode == 0:
        return None
    said = (done.stdout + done.stderr).splitlines()
    why = [line for line in said if re.search(r"^ERROR: (?!Resol)|^ +\S+ \S+ depends on ", line)]
    return "; ".join(line.removeprefix("ERROR: ").strip() for line in why) or "\n".join(said[-5:])


def imported(python: Path, name: str, module: str) -> Peer:
    """A package as it can be imported, or not."""
    code = "import importlib, importlib.metadata, sys; importlib.import_module(sys.argv[2])\n"
    code += "print(importlib.metadata.version(sys.argv[1]))"
    done = run([str(python), "-W", "ignore", "-c", code, name, module])
    if done.returncode == 0:
        return Peer(name, version=done.stdout.split()[-1])
    return Peer(name, reason=f"import {module}: {done.stderr.strip().splitlines()[-1]}")


def gathered(python: Path, also: Sequence[str]) -> list[Peer]:
    """Every package, installed where that can be done."""
    for requirement in also:
        if reason := install(python, requirement):
            sys.exit(f"--also {requirement}: {reason}")
    # All before the first is imported: a later one may replace what an earlier one needs.
    reasons = {name: UNPUBLISHED.get(name) or install(python, name) for name in PEERS}
    found = [imported(python, name, module) for name, module in PEERS.items()]
    for peer in found:
        if peer.version is None:
            peer.reason = reasons[peer.name] or peer.reason
        print(f"{peer.name}: {peer.version or f'NOT THERE: {peer.reason}'}", flush=True)
    return found


def has(path: Path, name: str) -> bool:
    """Whether results have a row of a package, or were measured with it all."""
    held = json.loads(path.read_text()) if path.exists() else {"machine": {}, "rows": []}
    return name in held["machine"] or any(name in row["case"] for row in held["rows"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--environment", type=Path, help="default: the results' folder and -venv")
    parser.add_argument("--also", nargs="+", default=[], help="more that pip is to install")
    parser.add_argument("--only", nargs="+", help="results files, as layer_grid")
    parser.add_argument("--data", help="CIFAR-10, as for `repsim-fast train`: adds l1_attack")
    given = parser.parse_args(arguments)
    out = given.out.resolve()
    runs = benchmarks(out, given.data)
    if unknown := set(given.only or ()) - set(runs):
        parser.error(f"--only must be of {', '.join(runs)}, got {', '.join(sorted(unknown))}")
    runs = {name: runs[name] for name in given.only or runs}
    python = lent((given.environment or out.with_name(f"{out.name}-venv")).resolve())
    peers = gathered(python, given.also)

    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    failed = []
    (out / "peers.json").unlink(missing_ok=True)  # what an unfinished run is without
    for name, command in {"agreement": [*PYTEST, *AGREEMENT], **runs}.items():
        print(f"== {name}", flush=True)
        (out / f"{name}.json").unlink(missing_ok=True)  # its rows would be taken for this run's
        command = [str(python), *command]
        if subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}).returncode:
            failed.append(name)
    for peer in peers:
        peer.measured_in = tuple(name for name in runs if has(out / f"{name}.json", peer.name))
        where = ", ".join(peer.measured_in) or "nothing"
        print(f"{peer.name} {peer.version or f'({peer.reason})'}: measured in {where}")
    about = {"machine": machine(), "failed": failed, "peers": [asdict(peer) for peer in peers]}
    write_json(out / "peers.json", about)
    if failed:
        print(f"failed: {', '.join(failed)}")
    if not any(peer.measured_in for peer in peers):
        print("no package was measured")
        return 1
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
