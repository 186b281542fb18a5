"""Open the live page in Chromium, type, click and save, and print what is found, as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from chromium import opened
from playwright.sync_api import TimeoutError

if TYPE_CHECKING:
    from playwright.sync_api import Page


class Live:
    """The live page, as a user sees it."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def rows(self, panel: str = "layers") -> list[str]:
        """Return the rows of a panel's first table, but for those with arithmetic."""
        rows = self.page.locator(f"#{panel} tbody").first.locator("> tr:not(.arithmetic)").all_inner_texts()
        return [" | ".join(row.split("\t")) for row in rows]

    def has(self, selector: str, text: str) -> None:
        """Wait until an element has a text; an error says what the page has instead."""
        try:
            self.page.locator(selector, has_text=text).first.wait_for()
        except TimeoutError as error:
            parts = ("#state", "#problems", selector, ".cm-content")
            shown = "\n".join(f"{part}: {self.page.inner_text(part)}" for part in parts)
            raise AssertionError(f"no {text!r} in {selector}\n{shown}") from error

    def accept(self) -> None:
        """Take the first completion, as soon as the editor lets a key do so: 75 ms after it shows one."""
        self.page.wait_for_selector(".cm-tooltip-autocomplete:not(.cm-tooltip-autocomplete-disabled) [aria-selected]")
        self.page.wait_for_timeout(150)
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector(".cm-tooltip-autocomplete", state="detached")

    def end_of(self, line: int) -> None:
        """Put the cursor before the last character of a line."""
        self.page.locator(".cm-line").nth(line - 1).click()
        self.page.keyboard.press("End")
        self.page.keyboard.press("ArrowLeft")

    def problems(self) -> list[str]:
        """Return the diagnostics below the editor."""
        return self.page.locator("#problems li").all_inner_texts()


def scenario(live: Live, path: Path) -> dict[str, object]:
    """Use the page of a spec with a convolution in line 6, and return what it showed."""
    page, found = live.page, {}
    live.has("#layers", "conv1")
    found["first"], found["source"] = live.rows(), page.inner_text("#source")
    found["images"] = page.locator("img").count()

    live.end_of(6)
    page.keyboard.type(", pad")
    page.wait_for_selector(".cm-tooltip-autocomplete")
    found["completions"] = page.locator(".cm-tooltip-autocomplete li .cm-completionLabel").all_inner_texts()
    live.has("#problems", "unknown-key")
    found["problems"], found["marked"] = live.problems(), page.locator(".cm-lintRange-error").all_inner_texts()
    found["link"] = page.locator("#problems a").get_attribute("href")
    found["stale"] = page.locator("#network").get_attribute("class")
    live.accept()
    page.keyboard.type("1")
    live.has("#layers", "4 x 8 x 8")
    found["typed"], found["fixed"] = live.rows(), live.problems()
    page.locator(".cm-content").press("Control+s")
    live.has("#state", "saved")
    page.locator("#save:disabled").wait_for()
    found["saved"] = path.read_text().splitlines()[5]

    page.locator("#layers td button").first.click()
    page.wait_for_selector(".arithmetic")
    found["arithmetic"] = page.locator(".arithmetic dd").all_inner_texts()
    for panel in ("drawing", "torch", "keras", "claims", "counts"):
        page.click(f"[data-panel={panel}]")
        page.wait_for_selector(f"#{panel} > *")
    found["drawing"] = page.locator("#drawing svg .name").all_text_contents()
    found["torch"], found["keras"] = page.inner_text("#torch pre"), page.inner_text("#keras pre")
    found["claims"] = page.locator("#claims tr.true").count()
    page.click("[data-panel=layers]")

    path.write_text(path.read_text().replace("out_channels: 4", "out_channels: 7"))
    live.has("#layers", "7 x 8 x 8")
    found["followed"] = page.locator(".cm-line").nth(5).inner_text()
    live.end_of(6)
    page.keyboard.type(", groups: 1")
    path.write_text(path.read_text().replace("out_channels: 7", "out_channels: 9"))
    page.wait_for_selector("#conflict:not([hidden])")
    page.locator(".cm-content").press("Control+s")
    page.wait_for_timeout(200)
    found["unsaved"] = path.read_text().splitlines()[5]
    page.click("#load")
    live.has("#layers", "9 x 8 x 8")
    found["loaded"] = page.locator(".cm-line").nth(5).inner_text()

    ask = """async (texts) => {
        const { options } = await import("./completion.js");
        const schema = await (await fetch("schema.json")).json();
        return texts.map((text) => options(schema, text, ["input", "conv1"], ["stage"])?.options.map((o) => o.label) ?? null);
    }"""
    texts = json.loads(sys.stdin.read())
    found["options"] = page.evaluate(ask, texts)

    times = []
    for _ in range(12):
        page.evaluate("document.getElementById('time').textContent = ''")
        live.end_of(6)
        page.keyboard.type(" ")
        live.has("#time", "ms")
        times.append(int(page.inner_text("#time").split()[0]))
    found["ms"] = sorted(times)
    return found


def main(browser: str, address: str, spec: str) -> None:
    with opened(browser, address, 1400, 900) as (page, errors, requests):
        page.on("dialog", lambda dialog: errors.append(dialog.message))
        found = scenario(Live(page), Path(spec))
    print(json.dumps({**found, "errors": errors, "requests": sorted(set(requests))}))


main(*sys.argv[1:])
