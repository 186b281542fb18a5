"""Open the live page that is files in Chromium, edit AlexNet, and print what is found, as JSON."""

from __future__ import annotations

import json
import sys

from chromium import opened

FIRST = "#layers tbody tr:first-child"


def main(browser: str, address: str) -> None:
    with opened(browser, address, 1400, 900, timeout=120_000) as (page, errors, requests):
        page.wait_for_selector(FIRST)
        page.click("[data-panel=torch]")
        page.wait_for_selector("#torch pre")
        page.click("[data-panel=layers]")
        found: dict[str, object] = {"first": page.inner_text(FIRST), "first_requests": list(requests)}
        page.locator(".cm-line").nth(18).click()
        page.keyboard.press("End")
        page.keyboard.press("ArrowLeft")
        page.keyboard.type(", pad")
        page.locator("#problems", has_text="unknown-key").wait_for()
        found["problems"] = page.locator("#problems li").all_inner_texts()
        page.keyboard.type("ding: 1")
        page.locator(FIRST, has_text="padding 1").wait_for()
        found["edited"] = page.inner_text(FIRST)
        page.locator("#layers td button").first.click()
        page.wait_for_selector(".arithmetic")
        found["arithmetic"] = page.locator(".arithmetic dd").nth(1).inner_text()
        page.click("[data-panel=torch]")
        page.locator("#torch pre", has_text="stride=4, padding=1").first.wait_for()
        found["torch"] = page.inner_text("#torch pre")
    print(json.dumps({**found, "errors": errors, "requests": requests}))


main(*sys.argv[1:])
