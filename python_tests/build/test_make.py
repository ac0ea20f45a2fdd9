"""The Makefile and tools/environment.sh, with stand-ins for Python: nothing is fetched or built."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()

# Makes environments, unless BROKEN; answers for pip, and logs what is installed.
PYTHON = """#!/bin/sh
case "$*" in
"-m venv --clear "*)
  mkdir -p "$4/bin" && touch "$4/pyvenv.cfg"
  [ -z "$BROKEN" ] || exit 1
  cp "$0" "$4/bin/python" ;;
"-m pip --version") ;;
"-m pip index versions torch") echo "Available versions: $VERSIONS" ;;
"-m pip install"*) echo "$REPSIM_BUILD_EXTENSIONS $*" >>"$LOG" ;;
-c*) exec python3 "$@" ;;
"setup.py -q build_ext --inplace") echo build >>"$LOG"; touch repsim_fast/_C.made-up.so ;;
*) echo "unexpected: $*" >&2; exit 1 ;;
esac
"""


class House:
    """A folder with the Makefile, in which a stand-in for Python logs what it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.python = folder / "python"
        self.python.write_text(PYTHON)
        self.python.chmod(0o755)
        for name in ("Makefile", "pyproject.toml", "setup.py", "tools/environment.sh"):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        for name in ("csrc", "repsim_fast"):
            (folder / name).mkdir()
        (folder / "csrc/ops.cpp").touch()

    def run(self, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        free = {"TORCH": "", "TORCH_INDEX": "", "TORCH_VERSION": "", "CXX": "sh", "MAKEFLAGS": ""}
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, **free, "LOG": str(self.log), "PYTHON": str(self.python),
                 "BROKEN": "", "VERSIONS": "2.15.0, 2.13.0+cpu, 2.12.0+cpu", "VENV": ".venv",
                 **environment},
            capture_output=True,
            text=True,
        )  # fmt: skip

    def make(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run(["make", *arguments], **environment)

    def environment(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run(["sh", "tools/environment.sh", ".venv"], **environment)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


class TestBuild:
    def test_once_and_again_after_a_change(self, house: House) -> None:
        assert house.make("build").returncode == 0
        assert house.log.read_text().endswith("build\n")
        house.make("build")
        assert house.log.read_text() == ""
        source = house.folder / "csrc/ops.cpp"
        later = source.stat().st_mtime + 100
        os.utime(source, (later, later))
        house.make("build")
        assert house.log.read_text() == "build\n"

    @pytest.mark.parametrize("clean", [["clean"], []])
    def test_again_where_the_extension_is_gone(self, house: House, clean: list[str]) -> None:
        house.make("build")
        if clean:
            assert house.make(*clean).returncode == 0
        else:
            next(house.folder.glob("repsim_fast/*.so")).unlink()
        house.make("build")
        assert house.log.read_text() == "build\n"
        assert house.make("clean", "build").returncode == 0
        assert house.log.read_text() == "build\n"


class TestEnvironment:
    def test_half_made_one_is_explained_and_repaired(self, house: House) -> None:
        broken = house.make("build", BROKEN="1")
        assert broken.returncode != 0
        assert "apt-get install python3-venv" in broken.stderr
        assert (house.folder / ".venv/pyvenv.cfg").exists()
        assert house.make("build").returncode == 0
        assert "-m pip install" in house.log.read_text()

    def test_another_folder_is_left_alone(self, house: House) -> None:
        kept = house.folder / ".venv/kept"
        kept.parent.mkdir()
        kept.touch()
        run = house.environment()
        assert run.returncode != 0
        assert "no Python environment" in run.stderr
        assert kept.exists()

    def test_missing_compiler_is_said_before_anything_is_fetched(self, house: House) -> None:
        run = house.environment(CXX="no-such-compiler")
        assert run.returncode != 0
        assert "no C++ compiler no-such-compiler" in run.stderr
        assert house.log.read_text() == ""

    def test_everything(self, house: House) -> None:
        assert house.environment().returncode == 0
        tools, package = house.log.read_text().splitlines()
        assert " torch>=2.11 torchvision setuptools>=77 wheel ninja" in tools
        assert package == "0 -m pip install -q --no-build-isolation -e .[all,test,lint]"

    def test_torch_without_cuda(self, house: House) -> None:
        assert house.environment(TORCH="cpu").returncode == 0
        tools, package = house.log.read_text().splitlines()
        assert " torch==2.13.0+cpu setuptools" in tools
        # All extras but that whose package would bring another torch.
        every = re.search(r'^all = \["repsim_fast\[(.*)\]"\]$', text("pyproject.toml"), re.M)
        assert every is not None
        extras = [name for name in every[1].split(",") if name != "vision"]
        assert package.endswith(f"-e .[{','.join(extras)},test,lint]")

    def test_torch_without_cuda_of_a_version(self, house: House) -> None:
        assert house.environment(TORCH="cpu", TORCH_VERSION="2.12.0").returncode == 0
        assert " torch==2.12.0+cpu setuptools" in house.log.read_text()

    def test_index_without_such_a_torch(self, house: House) -> None:
        run = house.environment(TORCH="cpu", VERSIONS="2.15.0, 2.14.1")
        assert run.returncode != 0
        assert "no torch without CUDA here; give one that has: make TORCH_INDEX=" in run.stderr
        assert house.log.read_text() == ""

    def test_index_of_its_own(self, house: House) -> None:
        run = house.environment(TORCH="cpu", TORCH_INDEX="file:///index", TORCH_VERSION="2.12.0")
        assert run.returncode == 0
        first = house.log.read_text().splitlines()[0]
        assert first.endswith("install -q --index-url file:///index torch==2.12.0 torchvision")

    def test_unknown_kind_of_torch(self, house: House) -> None:
        assert "TORCH must be cpu or nothing, got 'gpu'" in house.environment(TORCH="gpu").stderr


def text(name: str) -> str:
    return (ROOT / name).read_text()


def test_makefile_asks_for_nothing_newer_than_make_3_81() -> None:
    """The newest that comes with macOS."""
    newer = r"^\.(RECIPEPREFIX|ONESHELL)|^\w+\s*(!=|:::?=)|\$\(file |&:|^(undefine|private) "
    assert not re.findall(newer, MAKEFILE, re.M)
    assert "flock" not in MAKEFILE  # a command of Linux


def test_a_gpu_build_is_done_again_for_other_sources_alone(house: House) -> None:
    """Not for other dates: a machine that is lent finds all files copied anew."""

    def wants() -> str:
        """The stamp of the build that make would do; empty if it is done."""
        said = house.run(["make", "-n", "gpu-build"]).stdout
        assert ("pip install" in said) == ("touch build/" in said)
        return (re.findall("touch (build/.*)", said) or [""])[0]

    stamp = house.folder / wants()
    stamp.parent.mkdir()
    stamp.touch()
    os.utime(stamp, (0, 0))
    assert not wants()
    (house.folder / "csrc/ops.cpp").write_text("int other;\n")
    assert house.folder / wants() != stamp


def test_help_names_what_readers_are_told_to_run() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True).stdout
    named = {line.split()[0] for line in listed.splitlines()}
    for document in ("README.md", "CONTRIBUTING.md", ".ci/run"):
        said = re.sub("^make(?= [a-z]+ +#)", "`make", text(document), flags=re.M)
        for target in re.findall(r"(?:`|step |cpu )make (?:-k )?([a-z-]+)", said):
            assert target in named or f"{target}:" in MAKEFILE, f"{document}: make {target}"
    assert {"demo", "test", "lint", "clean", "help"} <= named


def test_workflows_call_targets_that_exist() -> None:
    files = sorted((ROOT / ".github/workflows").glob("*.yml"))
    called = {t for f in files for t in re.findall(r"run: make (?:-k )?([\w -]+)", f.read_text())}
    assert {"lint", "test", "demo", "sanitize", "wheel-check", "gpu"} <= called
    for target in called:
        assert re.search(rf"^{target}:", MAKEFILE, re.M), f"make {target}"


def test_small_suites_are_of_tests_that_exist() -> None:
    for script in ("torch_versions.py", "wheel_check.sh"):
        named = re.findall(r"(?:ops|similarity)/[\w/]+\.py", text(f"python_tests/build/{script}"))
        assert len(named) == 3
        for name in named:
            assert (ROOT / "python_tests" / name).is_file(), f"{script}: {name}"


def test_one_version_number() -> None:
    version = re.search(r'^version = "(.*)"$', text("pyproject.toml"), re.M)
    assert version is not None
    assert f"\nversion: {version[1]}\n" in text("CITATION.cff")
    assert f"## [{version[1]}]" in text("CHANGELOG.md")
