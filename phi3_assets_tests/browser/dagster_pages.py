"""What a person does in Dagster's UI, each thing as one function: for the tests, and for the pictures of the docs.

Every function waits for what it leads to, as long as the page's own time limit allows, and never just for a while.
"""

import re
from collections.abc import Mapping

import yaml

from phi3_assets.core.web_address import lineage_path
from phi3_assets_tests.browser.chromium import sync_api

Page = sync_api.Page
expect = sync_api.expect
GROUPS = {
    "inputs": ("datasets", "base_model", "raw_dataset", "formatted_corpus"),
    "model": ("lora_adapter", "merged_model", "onnx_int4_model"),
    "evaluation": ("eval_report", "release_bundle", "champion"),
}
WAIT_S = 120
"""How long a page may take to show something: a machine with other work needs half a minute for a page."""


def open_page(browser: "sync_api.Browser", width: int = 1500, height: int = 950) -> Page:
    """A page that waits for `WAIT_S`, in a profile of its own."""
    expect.set_options(timeout=1000 * WAIT_S)
    page = browser.new_context(viewport={"width": width, "height": height}).new_page()
    page.set_default_timeout(1000 * WAIT_S)
    return page


def open_lineage(page: Page, url: str) -> None:
    """The graph with all of its groups open, in a window in which Dagster draws the assets with their state."""
    page.set_viewport_size({"width": 3000, "height": 1250})
    page.goto(f"{url}{lineage_path()}")
    for group, assets in GROUPS.items():
        for asset in (group, *assets):
            page.locator("foreignObject", has_text=asset).first.wait_for()
    expect(page.get_by_text("Loading...")).to_have_count(0)


def materialize_all(page: Page) -> str:
    """Press the button of the lineage page, and follow the run that it launches; returns the run's id."""
    page.get_by_role("button", name="Materialize all").click()
    page.get_by_role("link", name="View", exact=True).click()
    return shown_run(page)


def shown_run(page: Page) -> str:
    """The id of the run whose page is shown, once it is."""
    page.wait_for_url(re.compile("/runs/[0-9a-f-]{36}"))
    return page.url.partition("/runs/")[2][:36]


def launch(page: Page, url: str, recipe: Mapping[str, object]) -> None:
    """Give the resource `recipe` these fields in the launchpad of the job `retrain`, and press Launch Run."""
    page.goto(f"{url}/locations/phi3_assets/jobs/retrain/playground")
    page.locator(".CodeMirror").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(
        yaml.safe_dump({"resources": {"recipe": {"config": dict(recipe)}}}, default_flow_style=True)
    )
    page.get_by_role("button", name="Launch Run").click()


def terminate(page: Page) -> None:
    """End the run whose page is shown, and confirm it."""
    page.get_by_role("button", name="Terminate").click()
    page.get_by_role("dialog").get_by_role("button", name="Terminate").click()


def reexecute_from_failure(page: Page) -> str:
    """Choose it on the page of a failed run, and follow the new run; returns its id."""
    failed = shown_run(page)
    page.get_by_role("button", name="Re-execute all").locator("xpath=following::button[1]").click()
    page.get_by_role("menuitem", name="From failure").click()
    page.wait_for_url(lambda address: "/runs/" in address and failed not in address)
    return shown_run(page)


def turn_on(page: Page, url: str, sensor: str) -> None:
    """Switch a sensor on, on its page."""
    page.goto(f"{url}/locations/phi3_assets/sensors/{sensor}")
    switch = page.get_by_role("checkbox")
    switch.locator("xpath=..").click()
    expect(switch).to_be_checked()


def open_asset(page: Page, url: str, asset: str, view: str) -> None:
    """A view of an asset: overview, events or checks."""
    page.goto(f"{url}/assets/{asset}?view={view}")
    page.get_by_role("tab", name=view.capitalize()).wait_for()


def ask(page: Page, question: str, *variants: str) -> None:
    """Put a question to these variants on the chat page, and wait for all answers."""
    page.wait_for_selector("#variants input")  # made by the page's script, all at once
    for box in page.locator("#variants input").all():
        box.set_checked(box.get_attribute("value") in variants)
    page.fill("#question", question)
    page.press("#question", "Enter")
    page.wait_for_selector(".answer")
    page.wait_for_selector("#stop", state="hidden")
