"""Take the pictures of docs/images: `python -m phi3_assets_tests.browser.pictures HOME [NAME...]`.

HOME was filled with `phi3 run`. It is not touched: the pictures are of a copy, in which a training is begun too. With
names, only those pictures are taken.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from phi3_assets_tests.browser import dagster_pages as ui
from phi3_assets_tests.browser.chromium import open_chromium
from phi3_assets_tests.dev_server import DevServer

IMAGES = Path(__file__).parents[2] / "docs" / "images"
QUESTION = "A customer gets 404 in the browser. What should I tell them?"
# Another rate, so that the training is none that stands already.
TRAINING = {"learning_rate": 4e-4}
TRAINING_S = 600


def lineage(server: DevServer, page: ui.Page) -> None:
    """The whole graph."""
    ui.open_lineage(page, server.url)
    page.get_by_role("button", name="Hide navigation").click()
    page.mouse.dblclick(1500, 130)  # on the empty background: the graph is fitted into the window
    page.wait_for_timeout(2000)


def eval_report(server: DevServer, page: ui.Page) -> None:
    """The scores."""
    ui.open_asset(page, server.url, "eval_report", "overview")
    page.get_by_text("Comparison", exact=True).wait_for()


def progress(server: DevServer, page: ui.Page) -> None:
    """What the asset shows meanwhile."""
    run_id = server.launch({"resources": {"recipe": {"config": TRAINING}}})
    server.wait_for_observation(run_id, "lora_adapter", TRAINING_S)
    ui.open_asset(page, server.url, "lora_adapter", "events")
    page.get_by_text("Progress, %", exact=True).wait_for()


def chat(server: DevServer, page: ui.Page) -> None:
    """One question, four answers."""
    page.set_viewport_size({"width": 1200, "height": 640})
    page.goto(f"{server.pages_url}/chat/")
    ui.ask(page, QUESTION, "base", "adapter", "merged", "int4")


def pages(server: DevServer, page: ui.Page) -> None:
    """The page that the others start from: products, champion, releases."""
    page.goto(server.pages_url)
    page.get_by_text("Champion since").first.wait_for()


PICTURES: dict[str, Callable[[DevServer, ui.Page], None]] = {
    picture.__name__: picture for picture in (lineage, eval_report, pages, chat, progress)
}


def main(home: Path, names: list[str]) -> None:
    """Open each page in a server of its own home's copy, and keep a picture of it."""
    with tempfile.TemporaryDirectory() as folder, open_chromium() as browser:
        copy = Path(shutil.copytree(home, Path(folder) / "home", symlinks=True))
        server = DevServer(copy, pages=True)
        try:
            server.wait_until_up()
            for name in names or PICTURES:
                page = ui.open_page(browser)
                PICTURES[name](server, page)
                page.screenshot(path=IMAGES / f"{name}.png")
                page.context.close()
                server.terminate_all()
        finally:
            server.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
