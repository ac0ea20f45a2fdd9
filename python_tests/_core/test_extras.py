from __future__ import annotations

import sys
from pathlib import Path

import pytest

from repsim_fast import data


@pytest.mark.parametrize(
    ("spec", "package", "message"),
    [
        (
            "digits",
            "sklearn",
            r'digits data set needs sklearn: pip install "repsim_fast\[digits\]"',
        ),
        ("FILE", "pyarrow", r'parquet files needs pyarrow: pip install "repsim_fast\[parquet\]"'),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    spec: str, package: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "train-0.parquet"
    file.touch()
    for name in [n for n in sys.modules if n.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=message):
        data.load(str(file) if spec == "FILE" else spec, "train")
