"""plotly.js, which draws the page's figures, as a page holds it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.resources
from functools import cache
from typing import NamedTuple

__all__ = ["Script", "packed", "plotly_js", "script_hash"]


class Script(NamedTuple):
    """A script that a page unpacks and runs.

    Attributes:
        packed: The text, see :func:`packed`.
        hash: Of the text, by which the page's policy lets it run.
    """

    packed: str
    hash: str


@cache
def plotly_js() -> Script:
    """The bundle that comes with plotly: 4.8 MB, of which a page holds 2.0.

    Raises:
        ImportError: plotly is missing.
    """
    try:
        folder = importlib.resources.files("plotly")
    except ModuleNotFoundError as error:
        raise ImportError("a report needs plotly: pip install plotly") from error
    text = (folder / "package_data" / "plotly.min.js").read_bytes()
    return Script(packed(text), script_hash(text))


def packed(content: bytes) -> str:
    """Content as base64 of gzip, which no parser of HTML can take for anything."""
    # 6 of 9: the rest of the levels takes twice the time for one hundredth of the size.
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode("ascii")


def script_hash(text: bytes) -> str:
    """The script in a Content-Security-Policy, which lets this one run and no other."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text).digest()).decode("ascii") + "'"
