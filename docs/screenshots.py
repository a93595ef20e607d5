"""Take the pictures of docs/images in a real browser: `python docs/screenshots.py URL` after `pip install playwright`.

URL is a running `make ui` whose home was filled with `make run`; it needs Debian's chromium. Further arguments name
pages, or give paths such as /runs/RUN_ID. The names `chat` and `pages` take a running `phi3 web` as URL.
"""

import re
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
PAGES = {
    "lineage": "/asset-groups",
    "lora_adapter": "/assets/lora_adapter?view=overview",
    "eval_report": "/assets/eval_report?view=overview",
    "checks": "/assets/formatted_corpus?view=checks",
    "chat": "/chat/",
    "pages": "/",
}
CHAT, WEB = "chat", ("chat", "pages")


def open_groups(page: Page) -> None:
    """Open the groups of the graph, which starts with them closed, and fit it into the window."""
    page.set_viewport_size({"width": 2400, "height": 1000})
    for group in ("inputs", "evaluation", "model"):
        page.mouse.dblclick(1500, 130)  # on the empty background: fit
        page.wait_for_timeout(2000)
        box = page.locator("foreignObject", has_text=re.compile(rf"^{group}")).last.bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2)
        page.wait_for_timeout(2000)
    page.mouse.dblclick(1500, 130)
    page.wait_for_timeout(2000)


def ask_all(page: Page) -> None:
    """Put a question to all four variants and wait for their answers."""
    page.set_viewport_size({"width": 1200, "height": 640})
    for variant in ("base", "adapter", "merged"):
        page.check(f"#variants input[value={variant}]")
    page.fill("#question", "A customer gets 404 in the browser. What should I tell them?")
    page.press("#question", "Enter")
    page.wait_for_selector("#stop", state="hidden", timeout=300_000)


def main(url: str, names: list[str]) -> None:
    """Open each page, wait until it has settled, and keep a picture of it."""
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-background-networking"]
        )
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        for name in names or [name for name in PAGES if name not in WEB]:
            page.goto(url + PAGES.get(name, name))
            page.wait_for_timeout(5000)
            if name == "lineage":
                open_groups(page)
            if name == CHAT:
                ask_all(page)
            page.screenshot(path=IMAGES / f"{Path(name).name}.png")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
