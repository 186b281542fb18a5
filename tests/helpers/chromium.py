"""A page in Chromium, with what its console says and what it asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, sync_playwright


@contextmanager
def opened(
    browser: str, address: str, width: int, height: int, timeout: int = 30_000
) -> Iterator[tuple[Page, list[str], list[str]]]:
    """Open an address; yield the page, its errors and messages so far, and the addresses that it asked for."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(timeout)
        errors: list[str] = []
        requests: list[str] = []
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        yield page, errors, requests
        chromium.close()
