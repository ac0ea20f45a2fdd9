"""The fault suite: kills, full disks, changed files, command lines, threads, forks, leaks.

python -m python_tests.faults           # all of it, as in docs/reliability.md
python -m python_tests.faults --short   # the same kinds, few of each
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

import torch

from python_tests.faults import commands, disk, files, kills, many, reports, shared
from python_tests.faults.child import import_what_is_needed
from python_tests.faults.table import Row, markdown
from repsim_fast._core.versions import versions

# Of each kind, how many: in full and in short. From "files" on, backward passes run in this
# process, after which no child of it can have one.
KINDS: dict[str, tuple[Callable[..., Row | list[Row]], int, int]] = {
    "training": (kills.training, 95, 4),
    "comparing": (kills.comparing, 50, 3),
    "recording": (kills.recording, 60, 3),
    "zoo": (shared.zoo, 20, 1),
    "shared": (shared.comparison, 20, 1),
    "attacking": (kills.attacking, 30, 2),
    "experiment": (kills.experiment, 30, 2),
    "disk": (disk.full, 36, 3),
    "commands": (commands.fuzzed, 300, 10),
    "reports": (reports.hostile, 60, 2),
    "files": (files.changed, 50_000, 1_000),
    "threads": (many.threads, 40, 3),
    "forks": (many.forks, 200, 40),
    "leak": (many.leak, 2_000, 100),
}


def main(arguments: list[str] | None = None) -> int:
    """Run, print the table, write the results; 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m python_tests.faults", description=__doc__)
    parser.add_argument("--short", action="store_true", help="few of each kind")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), help="kinds")
    parser.add_argument("--formats", nargs="+", default=(), help="of changed files (default: all)")
    parser.add_argument("--seed", type=int, help="of all that is random (default: from the clock)")
    parser.add_argument("--out", type=Path, help="put the results into this JSON file")
    parser.add_argument("--keep", type=Path, help="folder for the files of losses")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # what is forked must have one thread
    warnings.simplefilter("ignore")
    seed = time.time_ns() % 10**9 if options.seed is None else options.seed
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        import_what_is_needed(Path(folder))
    for name in (kind for kind in KINDS if kind in options.only):
        function, many_, few = KINDS[name]
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            chosen = {"formats": options.formats} if name == "files" else {}
            tries = few if options.short else many_
            found = function(Path(folder), tries, random.Random(seed), **chosen)
            new = found if isinstance(found, list) else [found]
            if options.keep is not None and any(row.lost for row in new):
                shutil.copytree(folder, options.keep / name, dirs_exist_ok=True)
        for row in new:
            took = time.monotonic() - began
            print(f"{row.fault}: {row.tried:,} tried, {row.lost:,} lost ({took:.0f} s)", flush=True)
            for note in row.notes[:3]:
                print(f"  {note}", file=sys.stderr)
        rows += new
        if options.out is not None:  # after each kind: the suite may be stopped, too
            _write(options.out, name, new, seed)
    print(f"\n{markdown(rows)}\nseed {seed}")
    return int(any(row.lost for row in rows))


def _write(path: Path, kind: str, rows: list[Row], seed: int) -> None:
    """Put the rows of a kind into the file, beside those of others that were run before."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    new = {
        row.fault: {"tried": row.tried, **asdict(row), "seed": seed, "time": now} for row in rows
    }
    held = json.loads(path.read_text()) if path.exists() else {}
    before = held.get(kind, {"rows": []})["rows"]
    merged = {**{row["fault"]: row for row in before}, **new}
    held[kind] = {"versions": dict(versions()), "rows": list(merged.values())}
    ordered = {name: held[name] for name in KINDS if name in held}
    path.write_text(json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
