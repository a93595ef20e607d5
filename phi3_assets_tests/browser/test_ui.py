"""What a person does in the UI and then sees, on the tiny model: one `phi3 ui` for all, and a page for each.

A run is asked for its status afterwards, past the screen; a fault is a real one.
"""

import shutil
from pathlib import Path

import pytest

from phi3_assets_tests.browser import dagster_pages as ui
from phi3_assets_tests.browser.chromium import needs_chromium, open_chromium
from phi3_assets_tests.conftest import write_rows
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
    server.wait_for_status(run_id, "SUCCESS", timeout_s=RUN_S)
    ui.expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    assert "champion" in steps_run(server, run_id)


def test_launchpad_refuses_a_value_before_the_run(server, page):
    """`lora_dropout: 3` failed only in the run, and the recipe's file was blamed."""
    before = len(server.runs())
    ui.launch(page, server.url, {"lora_dropout": 3.0})
    message = page.get_by_role("dialog")
    ui.expect(message).to_contain_text("in the launchpad or with --set: lora_dropout: Input should be less than 1")
    assert len(server.runs()) == before


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


def test_a_failed_run_goes_on_from_its_failure(server, home, page):
    """What stood in the way is taken away; nothing before the training is run again."""
    work, aside = home / "work" / "lora_adapter", home / "work" / "aside"
    work.rename(aside)
    work.touch()
    try:
        ui.launch(page, server.url, {"learning_rate": 0.02})
        failed = ui.shown_run(page)
        server.wait_for_status(failed, "FAILURE", timeout_s=RUN_S)
        ui.expect(page.get_by_text("Failure", exact=True).first).to_be_visible()
    finally:
        work.unlink()
        aside.rename(work)
    again = ui.reexecute_from_failure(page)
    server.wait_for_status(again, "SUCCESS", timeout_s=RUN_S)
    assert "lora_adapter.run_lora_pass" in steps_run(server, again)
    assert not {"raw_dataset", "formatted_corpus"} & steps_run(server, again)


def test_a_model_that_is_not_fit_is_refused_with_the_reason(server, page):
    ui.launch(page, server.url, {"gate_min_items": 1000})
    run_id = ui.shown_run(page)
    server.wait_for_status(run_id, "FAILURE", timeout_s=RUN_S)
    ui.expect(page.get_by_text("is not fit for release").first).to_be_visible()
    assert "release_bundle" not in steps_run(server, run_id)
    ui.open_asset(page, server.url, "eval_report", "checks")
    page.get_by_text("test_set_is_large_enough").first.click()
    ui.expect(page.get_by_text("Failed", exact=True).first).to_be_visible()
    ui.expect(page.get_by_text("The test set has 5 items, a decision needs at least 1000; add data.")).to_be_visible()


def test_a_file_that_is_dropped_starts_a_retrain(server, home, page):
    before = len(server.runs())
    ui.turn_on(page, server.url, "new_data")
    write_rows(home / "datasets" / "more.csv", rows=60)
    page.goto(f"{server.url}/runs")
    ui.expect(page.get_by_role("link", name="new_data").first).to_be_visible(timeout=1000 * RUN_S)
    page.get_by_role("link", name=server.runs()[0]["runId"][:8]).first.click()
    run_id = ui.shown_run(page)
    server.wait_for_status(run_id, "SUCCESS", timeout_s=RUN_S)
    assert len(server.runs()) == before + 1
    ui.open_asset(page, server.url, "raw_dataset", "events")
    ui.expect(page.get_by_text("more.csv").first).to_be_visible()


def test_the_report_and_the_chat_are_one_click_away(server, page):
    server.wait_for_status(server.launch({}), "SUCCESS", timeout_s=RUN_S)
    ui.open_asset(page, server.url, "eval_report", "events")
    report = page.get_by_role("link", name=f"{server.pages_url}/report/").first
    page.goto(report.get_attribute("href"))
    ui.expect(page.get_by_role("heading", level=1)).to_contain_text("Base, adapter, merged and int4 on the same")
    page.goto(server.pages_url)
    ui.expect(page.get_by_text("Champion since")).to_be_visible()
    page.goto(f"{server.pages_url}/chat/")
    ui.ask(page, "What does code 7 mean?", "base", "int4")
    assert page.locator(".answer h3").all_text_contents() == ["base", "int4 (ONNX)"]
    assert all("first after" in shown for shown in page.locator(".answer .figures").all_text_contents())
