"""Python programs in processes of their own that need not import torch and what else the package
imports, which takes longer than most of them: they are forked from a process that has imported
these and done nothing else. The package itself is imported by each of them anew."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess

_Environment = Mapping[str, str]
# What is not installed is left out.
_IMPORTED = ["numpy", "torch", "scipy.special", "matplotlib.figure", "typer", "rich.console"]


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    return context


class Forked:
    """A program that runs: text of Python, or the path of a script.

    Args:
        program: The text, or a path.
        arguments: What follows the program's name in ``sys.argv``.
        env: Variables beside those of this process.
        cwd: Folder to run in, that of this process without one.
    """

    def __init__(
        self,
        program: str | Path,
        *arguments: object,
        env: _Environment | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.arguments = [str(argument) for argument in arguments]
        self._said = tempfile.TemporaryDirectory()
        folder = Path(self._said.name)
        self._files = folder / "stdout", folder / "stderr"
        environment = {**os.environ, **(env or {})}
        place = str(cwd or Path.cwd())
        self.process: BaseProcess = _context().Process(
            target=_run, args=(program, self.arguments, environment, place, self._files)
        )
        self.process.start()

    def wait(self, timeout: float = 250.0) -> CompletedProcess[str]:
        """Its exit status, or minus the signal that ended it, and what it printed.

        Raises:
            TimeoutError: It still runs after so many seconds; it is killed then.
        """
        try:
            self.process.join(timeout)
            if (code := self.process.exitcode) is None:
                raise TimeoutError(f"a program still runs after {timeout} s")
            output, errors = (path.read_text(errors="replace") for path in self._files)
            return CompletedProcess(self.arguments, code, output, errors)
        finally:
            self.end()

    def end(self) -> None:
        """Kill it, if it still runs; what it printed is gone then."""
        self.process.kill()
        self.process.join()
        self._said.cleanup()


def run_python(
    program: str | Path,
    *arguments: object,
    env: _Environment | None = None,
    cwd: Path | None = None,
    timeout: float = 250.0,
) -> CompletedProcess[str]:
    """Run a program to its end, see `Forked`."""
    return Forked(program, *arguments, env=env, cwd=cwd).wait(timeout)


def _run(
    program: str | Path,
    arguments: Sequence[str],
    environment: _Environment,
    cwd: str,
    files: tuple[Path, Path],
) -> None:
    for number, path in enumerate(files, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    added = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [folder for folder in added if folder and folder not in sys.path]
    if isinstance(program, Path):
        sys.argv = [str(program), *arguments]
        sys.path.insert(0, str(program.parent))
        runpy.run_path(str(program), run_name="__main__")
    else:
        sys.argv = ["-c", *arguments]
        sys.path.insert(0, cwd)
        exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
