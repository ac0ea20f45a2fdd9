"""Chromium without a window, driven by its devtools protocol through a pair of pipes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TIMEOUT = 120.0  # seconds, on a machine that does much else
# The browser has the protocol on descriptors 3 and 4.
_START = """
import os, sys
ours = [os.dup(int(number)) for number in sys.argv[1:3]]
for number, one in zip((3, 4), [os.dup2(one, 100 + k) for k, one in enumerate(ours)]):
    os.dup2(one, number)
os.execvp(sys.argv[3], sys.argv[3:])
"""


def command() -> str | None:
    """The browser's command, None without one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(shutil.which, names), None)


class Tab:
    """One page, and what it did since it was opened.

    Attributes:
        requests: Addresses that it asked for, its own file left out.
        complaints: What it wrote to the console, and exceptions.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._read = b""
        self._number = 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, path: Path, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Load a file and wait until it is drawn."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        self.requests.clear()
        self.complaints.clear()
        self.address = path.resolve().as_uri()
        self.call("Page.navigate", url=self.address)
        self.wait_for(
            f"location.href === {json.dumps(self.address)}"
            " && document.documentElement?.dataset.ready === 'yes'"
        )

    def __call__(self, expression: str) -> Any:
        """The value of an expression of JavaScript, of a promise what it gives."""
        done = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in done:
            raise RuntimeError(f"{expression}: {done['exceptionDetails']}")
        return done["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Until the expression is true."""
        until = time.monotonic() + TIMEOUT
        while not self(condition):
            if time.monotonic() > until:
                raise TimeoutError(f"{condition} is not true; {self.complaints}")
            time.sleep(0.05)

    def move_to(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        for kind, (x, y) in (
            ("mouseMoved", start), ("mousePressed", start), ("mouseMoved", end),
            ("mouseReleased", end),
        ):  # fmt: skip
            button = {"button": "left", "buttons": 1} if kind != "mouseReleased" else {}
            self.call(
                "Input.dispatchMouseEvent",
                type=kind, x=x, y=y, clickCount=1, **{"button": "left", **button},
            )  # fmt: skip

    def key(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if len(key) == 1 and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **text)

    def choose(self, element: str, value: str) -> None:
        """Set a select or an input as a person does."""
        self(
            f"(() => {{ const e = document.getElementById({json.dumps(element)});"
            f" e.value = {json.dumps(value)};"
            " e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change')); })()"
        )

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What a method of the protocol returns."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                found: dict[str, Any] = answer["result"]
                return found
            self._note(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            if not select.select([self._from], [], [], TIMEOUT)[0]:
                raise TimeoutError("the browser does not answer")
            part = os.read(self._from, 1 << 16)
            if not part:
                raise RuntimeError("the browser has ended")
            self._read += part
        message, _, self._read = self._read.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                address = parameters["request"]["url"]
                if address != getattr(self, "address", None):
                    self.requests.append(address)
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded":
                self.complaints.append(json.dumps(parameters)[:500])


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """A tab of a browser of its own, whose profile is in ``folder``.

    Raises:
        RuntimeError: The browser does not start.
    """
    program = command()
    if program is None:
        raise RuntimeError("there is no Chromium")
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    # Root has no sandbox; nothing but our own pages is opened.
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", _START, str(to_read), str(from_write)),
            *(program, *options, f"--user-data-dir={folder}", "--remote-debugging-pipe"),
        ],
        pass_fds=(to_read, from_write), stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    os.close(to_read)
    os.close(from_write)
    try:
        yield Tab(to_write, from_read)
    finally:
        os.close(to_write)
        os.close(from_read)
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
