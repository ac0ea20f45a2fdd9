"""Whether a page runs a script, asked of a browser, where one is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

SCRIPT = "document.title=/ran/"
"""What a hostile text would run: it can be read off the page afterwards."""
_KNOWN = (
    f"<script>{SCRIPT}</script>", f"<img src=x onerror={SCRIPT}>", f"<svg/onload={SCRIPT}>",
    f"<iframe srcdoc='<script>parent.{SCRIPT}</script>'>",
)  # fmt: skip


def find(folder: Path) -> str | None:
    """The browser's command, None without one; ``folder`` is for pages on which scripts run.

    Raises:
        RuntimeError: It does not see scripts that do run, or some that do not.
    """
    found = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), None)
    if found is None:
        return None
    for number, text in enumerate(("<p>harmless", *_KNOWN)):
        page = folder / f"known{number}.html"
        page.write_text(f"<!doctype html><title>page</title>{text}")
        if runs_script(found, page) != (text in _KNOWN):
            raise RuntimeError(f"{found} misjudges a page with {text}")
    return found


def runs_script(browser: str, page: Path) -> bool:
    """Whether a script of the page has run once it is loaded.

    Raises:
        RuntimeError: The browser shows no page.
    """
    # Root has no sandbox; nothing but our own scripts could run.
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=1000"]
    command = [browser, *options, "--dump-dom", page.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    if done.returncode != 0 or title is None:
        raise RuntimeError(f"{browser} shows no page: {done.stderr[-500:]}")
    return title[1] == "/ran/"
