"""The browser of the tests and of the pictures: Debian's chromium, driven by playwright."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

CHROMIUM = Path("/usr/bin/chromium")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[dev]'")
needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not there: apt-get install chromium")


@contextlib.contextmanager
def open_chromium(timeout_s: float = 60) -> Iterator["sync_api.Browser"]:
    """Start the browser, headless, which asks nobody but the pages it is sent to.

    Args:
        timeout_s: How long it may take to start.
    """
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-background-networking"],
            timeout=1000 * timeout_s,
        )
        try:
            yield browser
        finally:
            browser.close()
