"""What a person does in the UI and then sees, on the tiny model: one `phi3 ui` for all, and a page for each.

A run is asked for its status afterwards, past the screen; a fault is a real one.
"""

import shutil
from pathlib import Path

import pytest

from phi3_assets_tests.browser import dagster_pages as ui
from phi3_assets_tests.browser.chromium import needs_chromium, open_chromium
from phi3_assets_tests.dev_server import DevServer
from phi3_assets_tests.tiny_graph import gone, workers

# Minutes where the machine has other work.
pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900), needs_chromium]
RUN_S = 400


@pytest.fixture(scope="module")
def home(made_home, tmp_path_factory) -> Path:
    return Path(shutil.copytree(made_home, tmp_path_factory.mktemp("browser") / "home"))


@pytest.fixture(scope="module")
def server(home):
    server = DevServer(home, pages=True, PHI3_RECIPE="tiny-test")
    try:
        server.wait_until_up(timeout_s=240)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def browser():
    with open_chromium(timeout_s=240) as browser:
        yield browser


@pytest.fixture
def page(browser):
    page = ui.open_page(browser)
    yield page
    page.context.close()


def steps_run(server: DevServer, run_id: str) -> set[str]:
    """The ops that a run began."""
    answer = server.ask("query($r: ID!){runOrError(runId: $r){...on Run{stepStats{stepKey}}}}", r=run_id)
    return {stats["stepKey"] for stats in answer["runOrError"]["stepStats"]}


def test_lineage_shows_every_asset_and_its_state(server, page):
    ui.open_lineage(page, server.url)
    for assets in ui.GROUPS.values():
        for asset in set(assets) - {"datasets"}:
            node = page.locator("foreignObject", has_text=asset).last
            ui.expect(node).to_contain_text("Materialized")


def test_materialize_all_ends_in_success(server, page):
    ui.open_lineage(page, server.url)
    run_id = ui.materialize_all(page)
    server.wait_for_status(run_id, "SUCCESS", RUN_S)
    ui.expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    assert "champion" in steps_run(server, run_id)


def test_launchpad_refuses_a_value_before_the_run(server, page):
    """`lora_dropout: 3` failed only in the run, and the recipe's file was blamed."""
    before = server.number_of_runs()
    ui.launch(page, server.url, {"lora_dropout": 3.0})
    message = page.get_by_role("dialog")
    ui.expect(message).to_contain_text("in the launchpad or with --set: lora_dropout: Input should be less than 1")
    assert server.number_of_runs() == before


def test_a_training_shows_its_progress_and_is_terminated(server, home, page):
    """The override reaches the run: it would go on for hours."""
    ui.launch(page, server.url, {"num_train_epochs": 100000.0})
    run_id = ui.shown_run(page)
    server.wait_for_observation(run_id, "lora_adapter", RUN_S)
    ui.open_asset(page, server.url, "lora_adapter", "events")
    ui.expect(page.get_by_text(f"Observed in run {run_id[:8]}")).to_be_visible()
    ui.expect(page.get_by_text("Progress, %", exact=True)).to_be_visible()
    ui.expect(page.get_by_text("Loss, nats/token", exact=True)).to_be_visible()
    processes = workers(home)
    assert processes
    page.goto(f"{server.url}/runs/{run_id}")
    ui.terminate(page)
    ui.expect(page.get_by_text("Canceled", exact=True).first).to_be_visible()
    assert server.status(run_id) == "CANCELED"
    assert gone(processes)
