"""A headless browser for the tests of the page."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--use-fake-device-for-media-stream",  # a generated picture in place of a camera
    "--use-fake-ui-for-media-stream",
]


@contextmanager
def open_chromium() -> Iterator[Any]:
    """Start an installed Chromium; skip the test if there is none. Nothing is downloaded."""
    reason = "the tests of the page need playwright: pip install 'mmaction-lite[dev]'"
    api = pytest.importorskip("playwright.sync_api", reason=reason)
    program = os.environ.get("MMACTION_LITE_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser found ({', '.join(NAMES)}); set MMACTION_LITE_BROWSER to a Chromium")
    with api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield started
        started.close()
