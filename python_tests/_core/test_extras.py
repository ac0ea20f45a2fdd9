from __future__ import annotations

import sys
from pathlib import Path

import pytest

from repsim_fast import data


def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "train-0.parquet"
    file.touch()
    for name in [n for n in sys.modules if n.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = r'parquet files needs pyarrow: pip install "repsim_fast\[parquet\]"'
    with pytest.raises(ImportError, match=message):
        data.load(str(file), "train")
