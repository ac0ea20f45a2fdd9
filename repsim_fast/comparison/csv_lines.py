"""Lines of comma-separated values that spreadsheets read as what they are."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from repsim_fast._core.files import replacing


def write_lines(path: str | os.PathLike[str], columns: Sequence[str], lines: Iterable[str]) -> Path:
    """Write a table, whole or not at all, and return its path.

    Raises:
        OSError: The file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        file.write(",".join(columns) + "\n")
        file.writelines(f"{line}\n" for line in lines)
    return Path(path)


def of_names(*names: str) -> str:
    """Cells: quoted where they must be, and no name for a formula."""
    formulas = ("=", "+", "-", "@", "\t", "\r", "\n")
    line, end = io.StringIO(), "\r\n"  # before Python 3.13 only what ends lines is quoted
    csv.writer(line, lineterminator=end).writerow(
        [f"'{name}" if name.startswith(formulas) else name for name in names]
    )
    return line.getvalue().removesuffix(end)


def of_numbers(numbers: Iterable[float]) -> str:
    """Cells: as many digits as it takes, nothing for NaN."""
    return ",".join([repr(float(number)) if number == number else "" for number in numbers])
