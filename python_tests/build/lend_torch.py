"""Lends this environment's torch, and what torch depends on, to another one.

    python python_tests/build/lend_torch.py ENVIRONMENT [WHEELS]

Nothing is fetched or copied: a folder of links stands on the other environment's path, for pip as
well. Installing torch anew takes minutes and 5.5 GB. In WHEELS, a folder for pip's --find-links, a
wheel lends it to the environments that pip makes by itself.
"""

from __future__ import annotations

import sys
import zipfile
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


def wheel(lent: Path, folder: Path) -> None:
    """A torch of this version that is a line of a path."""
    version = distribution("torch").version.partition("+")[0] + "+lent"
    about = f"torch-{version}.dist-info"
    files = {
        "lent_torch.pth": f"{lent.resolve()}\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{about}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{about}/RECORD"))
    folder.mkdir()
    with zipfile.ZipFile(folder / f"torch-{version}-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)


def main(environment: Path, wheels: Path | None = None) -> None:
    """Makes the folder of links, and the wheel."""
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
    if wheels is not None:
        wheel(lent, wheels)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
