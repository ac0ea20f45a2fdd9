"""Packages that cannot be had are named, the others are measured, and no package here is replaced.

The registry is a folder of made-up wheels.
"""

from __future__ import annotations

import ast
import json
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from benchmarks import beside_peers

BENCHMARK = """
import json, pathlib, sys
import made_up

results = {"machine": {}, "rows": [{"case": "made-up", "median_s": made_up.SECONDS}]}
pathlib.Path(sys.argv[1]).write_text(json.dumps(results))
"""


def wheel(registry: Path, name: str, source: str, *requires: str) -> None:
    module = name.replace("-", "_")
    about = f"{module}-1.0.dist-info"
    needs = "".join(f"Requires-Dist: {need}\n" for need in requires)
    with zipfile.ZipFile(registry / f"{module}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{module}.py", source)
        archive.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}"
        )
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(beside_peers, "PYTEST", [])
    monkeypatch.setattr(beside_peers, "AGREEMENT", ["-c", "pass"])
    return folder


def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], benchmark: str = BENCHMARK
) -> tuple[int, dict[str, Any]]:
    """Status, and what became of each package."""
    out, script = tmp_path / "out", tmp_path / "benchmark.py"
    out.mkdir(exist_ok=True)
    script.write_text(benchmark)
    command = [str(script), str(out / "made_up.json")]
    monkeypatch.setattr(beside_peers, "benchmarks", lambda out, data: {"made_up": command})
    monkeypatch.setattr(beside_peers, "PEERS", {n: n.replace("-", "_") for n in names})
    status = beside_peers.main(["--out", str(out)])
    held = json.loads((out / "peers.json").read_text())
    return status, {peer["name"]: peer for peer in held["peers"]}


def test_what_cannot_be_had_is_named_and_the_rest_is_measured(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(registry, "made-up", "SECONDS = 2")
    wheel(registry, "outdated", "import numpy.no_such_module")
    wheel(registry, "forbidding", "", "numpy<1")
    before = version("numpy")
    names = ["absent", "forbidding", "outdated", "netrep", "made-up"]
    status, found = run(tmp_path, monkeypatch, names)
    assert status == 0
    assert (found["made-up"]["version"], found["made-up"]["measured_in"]) == ("1.0", ["made_up"])
    assert "No matching distribution found for absent" in found["absent"]["reason"]
    assert "forbidding 1.0 depends on numpy<1" in found["forbidding"]["reason"]
    assert "import outdated: ModuleNotFoundError: No module" in found["outdated"]["reason"]
    assert "on no package index" in found["netrep"]["reason"]
    assert all(not found[name]["measured_in"] for name in names[:-1])
    assert version("numpy") == before
    with pytest.raises(ImportError):
        __import__("made_up")


@pytest.mark.parametrize(
    ("names", "script", "status"),
    [
        (["absent"], BENCHMARK, 1),
        (["made-up"], BENCHMARK + "assert made_up.SECONDS == 3", 2),
    ],
)
def test_status(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    names: list[str], script: str, status: int,
) -> None:  # fmt: skip
    wheel(registry, "made-up", "SECONDS = 2")
    old = tmp_path / "out" / "made_up.json"
    old.parent.mkdir()
    old.write_text('{"machine": {}, "rows": [{"case": "absent"}]}')
    assert run(tmp_path, monkeypatch, names, script)[0] == status


def test_every_package_that_benchmarks_compare_with_is_asked_for() -> None:
    """Those that benchmarks import within a function, as what need not be there is."""
    imported: set[str] = set()
    for path in beside_peers.BENCHMARKS.glob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.Import):
                        imported.update(name.name.partition(".")[0] for name in node.names)
                    elif isinstance(node, ast.ImportFrom):
                        imported.add(str(node.module).partition(".")[0])
    assert imported - {"torch"} == set(beside_peers.PEERS.values())
    assert set(beside_peers.UNPUBLISHED) < set(beside_peers.PEERS)


def test_an_interrupted_run_says_nothing_of_packages(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(registry, "made-up", "SECONDS = 2")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "peers.json").write_text("{}")  # of the run before
    monkeypatch.setattr(beside_peers, "has", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, monkeypatch, ["made-up"])
    assert (tmp_path / "out" / "made_up.json").exists()
    assert not (tmp_path / "out" / "peers.json").exists()
