"""When, where, by which code and in what time each question was answered: run.json."""

from __future__ import annotations

import dataclasses
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from repsim_fast._core import headers
from repsim_fast._core.versions import versions

from .cards import Card
from .files import plain, write_json
from .presets import Preset

LAB = Path(__file__).resolve().parent
_SCHEMA = headers.record(
    {"questions": headers.named(headers.free), "networks": headers.named(headers.number(0))}
)
CHANGED = " with changes"


class Record:
    """The answers in a results folder that belong to a preset and to the code that runs.

    Runs of some questions add to it. Answers found at other settings or by other code do not count
    any more: they might not even be of the form that is judged now.

    Args:
        path: run.json.
        preset: Settings of all the questions.
        code: Folder of the experiment's code.
    """

    def __init__(self, path: Path, preset: Preset, code: Path) -> None:
        self.path = path
        self.preset = plain(dataclasses.asdict(preset))
        self.machine = machine(preset.half)
        # Of the code as it is loaded, not as it may be when the question is answered.
        self.commit = commit(code)
        self.questions: dict[str, Any] = {}
        self.networks: dict[str, float] = {}
        if path.exists():
            held = _held(path)
            if (held.get("preset"), held.get("commit")) == (self.preset, self.commit):
                self.questions, self.networks = held["questions"], held["networks"]

    def has(self, question: str) -> bool:
        """Whether the question is answered by this very code, which is then a commit."""
        return bool(self.commit) and CHANGED not in self.commit and question in self.questions

    def add(self, question: str, networks: Mapping[str, Card], **figures: float) -> None:
        """A question is answered.

        Args:
            networks: All used so far, trained now or in an earlier run, here or elsewhere.
            figures: What answering took, besides trainings that were there already.
        """
        time = datetime.now(timezone.utc).isoformat(timespec="seconds")
        here = {"time": time, "machine": self.machine, "versions": _versions()}
        trained_on = sorted({card.machine or "an unknown machine" for card in networks.values()})
        self.questions[question] = {**here, "trained_on": trained_on, **figures}
        self.questions = dict(sorted(self.questions.items()))
        seconds = {name: card.seconds for name, card in networks.items()}
        self.networks = dict(sorted({**self.networks, **seconds}.items()))
        held = {
            "preset": self.preset,
            "commit": self.commit,
            "questions": self.questions,
            "networks": self.networks,
        }
        write_json(self.path, held)


def _held(path: Path) -> Any:
    """What is in the file; nothing where it is damaged, so that the questions are asked again."""
    try:
        return headers.parsed(path.read_text(), _SCHEMA, str(path))
    except ValueError:
        return {}


def _versions() -> str:
    return ", ".join(f"{name} {version}" for name, version in versions().items())


def machine(half: torch.dtype | None) -> str:
    """Processor, cores, GPU and system, and the precision of products of networks."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{_cpu()}, {os.cpu_count()} cores ({torch.get_num_threads()} used), {gpu}, "
        f"{platform.system()} {platform.machine()}, "
        f"{str(half or torch.float32).removeprefix('torch.')}"
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((s.partition(":")[2].strip() for s in lines if s.startswith("model name")), "")


def commit(code: Path) -> str:
    """The last commit that changed the experiment's code, the lab's or the package."""
    paths = [":/repsim_fast", ":/csrc", f"{LAB}/*.py", f"{code}/*.py"]

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments, "--", *paths], cwd=LAB, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    last = git("log", "-1", "--format=%H")[:12]
    return last + (CHANGED if git("status", "--porcelain") else "")
