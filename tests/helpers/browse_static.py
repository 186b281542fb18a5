"""Open the live page that is files in Chromium, edit AlexNet, and print what is found, as JSON."""

from __future__ import annotations

import json
import sys

from playwright.sync_api import sync_playwright

FIRST = "#layers tbody tr:first-child"


def main(browser: str, address: str) -> None:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(120_000)
        errors: list[str] = []
        requests: list[str] = []
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
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
        chromium.close()
    print(json.dumps({**found, "errors": errors, "requests": requests}))


main(*sys.argv[1:])
