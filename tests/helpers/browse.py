"""Open a report page in Chromium, click and type, and print what is found, as JSON."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from chromium import opened

if TYPE_CHECKING:
    from playwright.sync_api import Page


def names(page: Page) -> list[str]:
    page.wait_for_timeout(100)
    return page.locator("#layers ~ .scroll tbody td:first-child").all_inner_texts()


def background(page: Page, scheme: str) -> str:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    return str(page.evaluate("getComputedStyle(document.querySelector('td:first-child')).color"))


def main(browser: str, address: str) -> None:
    with opened(browser, address, 390, 844) as (page, errors, requests):
        found: dict[str, object] = {"first": names(page)}
        page.locator("th", has_text="parameters").first.click()
        found["mouse"] = names(page)
        page.locator("th", has_text="MACs").first.focus()
        page.keyboard.press("Enter")
        found["keyboard"] = names(page)
        found["width"] = page.evaluate("document.documentElement.scrollWidth")
        found["light"], found["dark"] = background(page, "light"), background(page, "dark")
    print(json.dumps({**found, "errors": errors, "requests": requests}))


main(*sys.argv[1:])
