"""A real browser for tests of pages, driven by Playwright: Debian's Chromium, or what else of its kind is installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

DEADLINE = 40.0
"""Seconds that a page may take for what is expected of it."""

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

expect.set_options(timeout=DEADLINE * 1000)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """One without a window, until the end of the block; the test is skipped where none is installed. Playwright runs
    a loop on this thread meanwhile: no other can."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"there is no browser to open the page in: none of {', '.join(NAMES)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=[*OPTIONS])
        try:
            yield browser
        finally:
            browser.close()
