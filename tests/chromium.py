"""Pages in a real browser, Debian's Chromium or what else of its kind is installed, without a window."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from websockets.sync.client import ClientConnection, connect

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
DEADLINE = 40.0


def find_browser() -> str:
    """The program; a test that finds none is skipped."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"there is no browser to open the page in: none of {', '.join(BROWSERS)} is installed")
    return found


class Tab:
    """A page in a headless browser, looked at by the DevTools protocol.

    Args:
        socket: speaks that.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    def evaluate(self, expression: str) -> Any:
        """What an expression of JavaScript is in the page."""
        asked = {"id": 1, "method": "Runtime.evaluate", "params": {"expression": expression, "returnByValue": True}}
        self._socket.send(json.dumps(asked))
        while True:
            told = json.loads(self._socket.recv(DEADLINE))
            if told.get("id") == 1:
                return told.get("result", {}).get("result", {}).get("value")

    def shows(self, text: str) -> None:
        """Wait until the page shows a text."""
        shown = "document.body ? document.body.innerText : ''"  # it may be on its way
        until(lambda: text in (self.evaluate(shown) or ""), f"the page shows {text!r}")


def target_of(url: str, devtools: str) -> str:
    """Wait until a browser has opened a page; give the address to look at it by."""
    targets: list[Any] = []

    def find() -> bool:
        with urlopen(re.sub(r"ws://([^/]+)/.*", r"http://\1/json/list", devtools), timeout=DEADLINE) as answer:
            targets[:] = [target for target in json.load(answer) if target["url"] == url]
        return bool(targets)

    until(find, f"the browser opens {url}")
    address: str = targets[0]["webSocketDebuggerUrl"]
    return address


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"never came true: {what}"
        time.sleep(0.05)


@contextmanager
def opened(browser: str, url: str, folder: Path) -> Iterator[Tab]:
    """A page, open."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    options += ["--remote-debugging-port=0", f"--user-data-dir={folder}"]
    with subprocess.Popen([browser, *options, url], stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        try:
            listening = next(line for line in running.stderr if line.startswith("DevTools listening on "))
            with connect(target_of(url, listening.split()[-1]), max_size=None) as socket:
                tab = Tab(socket)
                until(lambda: tab.evaluate("document.readyState") == "complete", "its scripts have run")
                yield tab
        finally:
            running.terminate()
            running.stderr.close()
