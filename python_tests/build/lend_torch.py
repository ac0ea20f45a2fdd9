"""Lends this environment's torch, and what torch depends on, to another one.

    python python_tests/build/lend_torch.py ENVIRONMENT

Nothing is fetched or copied: a folder of links stands on the other environment's path, for pip as
well. Installing torch anew takes minutes and 5.5 GB.
"""

from __future__ import annotations

import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement


def depended_on(name: str, extras: frozenset[str] = frozenset()) -> dict[str, Distribution]:
    """A distribution and all that it needs, by name."""
    found: dict[str, Distribution] = {}
    asked = [(name, extras)]
    while asked:
        name, extras = asked.pop()
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            sys.exit(f"lend_torch: {name} is not installed here")
        for text in found[name].requires or ():
            need = Requirement(text)
            markers = [{"extra": extra} for extra in ("", *extras)]
            wanted = need.marker is None or any(need.marker.evaluate(m) for m in markers)
            if wanted and (need.name not in found or need.extras):
                asked.append((need.name, frozenset(need.extras)))
    return found


def main(environment: Path) -> None:
    """Makes the folder of links."""
    (packages,) = environment.glob("lib/python*/site-packages")
    lent = environment / "lent"
    lent.mkdir()
    for held in depended_on("torch").values():
        tops = {Path(file).parts[0] for file in held.files or ()} - {"..", "__pycache__"}
        for top in tops:
            link = lent / top
            if not link.is_symlink():
                link.symlink_to(Path(str(held.locate_file(top))))
    (packages / "lent.pth").write_text(f"{lent.resolve()}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
