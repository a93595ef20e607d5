"""The chat page of `phi3 web` in a real browser. Needs Debian's chromium and `pip install playwright`."""

import shutil
import threading
import time
from pathlib import Path

import pytest

from phi3_assets.chat import serving
from phi3_assets.chat.page import Settings
from phi3_assets.chat.serving import Models
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.web.app import make_app
from phi3_assets.web.server import Server, listen
from phi3_assets_tests.chat.serving_page import running_page, text_of

CHROMIUM = Path("/usr/bin/chromium")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not there: apt-get install chromium")
MARKUP = '<img src="/none" onerror="document.title=1"> & <b>bold</b>'


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Opens a page in a browser of its own, and fails if it complained or asked anyone else."""
    pages, complaints, requests = [], [], []

    def open_page(url, **options):
        page = browser.new_context(**options).new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(url)
        page.wait_for_selector("#variants input")
        pages.append((page, url))
        return page

    yield open_page
    for page, _ in pages:
        page.context.close()
    assert complaints == []
    assert all(any(request.startswith(url) for _, url in pages) for request in requests)


class SlowEngine:
    """Says its name, a token every 20 ms, without end unless told; knows how many tokens it has made."""

    context_tokens, ends = 100_000, {0}
    made = 0

    def __init__(self, variant, directories):
        self.variant = variant

    def encode(self, messages):
        return [1] * len(messages)

    def generate(self, prompt_ids, max_new_tokens):
        for _ in range(max_new_tokens):
            time.sleep(0.02)
            SlowEngine.made += 1
            yield 5

    def text_stream(self):
        return lambda token: f"{self.variant} "


@pytest.fixture
def slow_url(monkeypatch, tmp_path):
    """A server whose models are slow."""
    monkeypatch.setattr(serving, "open_engine", SlowEngine)
    kinds = ("base_model", "lora_adapter", "merged_model", "onnx_int4_model")
    models = Models(lambda which, variant: dict.fromkeys(kinds, tmp_path))
    listener = listen(0)
    store = LocalArtifactStore(home=str(tmp_path))
    app = make_app(store, models, lambda which: ("slow ones", ""), Settings("int4", "", 10_000))
    server = Server(app, models)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/chat/"
    server.should_exit = True
    thread.join(timeout=20)


def expect_text(page, variant):
    """Wait until a slow variant has begun to answer."""
    sync_api.expect(page.locator(f".answer.{variant} .text")).to_contain_text(f"{variant} {variant} {variant}")


def ask(page, text):
    page.fill("#question", text)
    page.press("#question", "Enter")


def test_chosen_variants_answer_side_by_side(made_home, open_page):
    with running_page(made_home, "--max-new-tokens", "6") as server:
        page = open_page(server.url + "/chat/")
        page.check("#variants input[value=base]")
        page.check("#variants input[value=merged]")
        ask(page, "What does code 7 mean?")
        page.wait_for_selector("#stop", state="hidden")
        assert page.locator(".answer h3").all_text_contents() == ["base", "merged", "int4 (ONNX)"]
        for card in page.locator(".answer").all():
            assert "first after" in card.locator(".figures").text_content()
            assert "cut off" in card.text_content() or "ended by itself" in card.text_content()
        shown = [text.text_content() for text in page.locator(".answer .text").all()]
        assert shown == [
            text_of(server.ask(variant, "What does code 7 mean?", max_new_tokens=6))
            for variant in ("base", "merged", "int4")
        ]
        ask(page, MARKUP)
        page.wait_for_selector("#stop", state="hidden")
        assert page.locator(".turn h2").last.text_content() == MARKUP
        assert page.locator("main img, main b").count() == 0
        assert page.title() == "phi3 chat"
        page.click("#clear")
        assert page.locator(".turn").count() == 0


def test_a_variant_that_was_not_made_cannot_be_chosen_and_says_why(copied_home, open_page):
    shutil.rmtree(copied_home / "gen-model" / "lora_adapter")
    shutil.rmtree(copied_home / "gen-model" / "merged_model")
    with running_page(copied_home) as server:
        page = open_page(server.url + "/chat/")
        assert page.locator("#variants input:enabled").evaluate_all("all => all.map(one => one.value)") == [
            "base",
            "int4",
        ]
        assert (
            "needs lora_adapter: materialise it first, with `phi3 run`" in page.locator("#why-adapter").text_content()
        )
        assert "needs merged_model: materialise it first" in page.locator("#why-merged").text_content()


def test_every_page_is_shown_as_it_was_drawn(made_home, browser):
    """A policy that is too strict for a page shows as a complaint of the browser, and as a page without its style."""
    complaints, asked = [], []
    with running_page(made_home, command=("web",)) as server:
        page = browser.new_context(viewport={"width": 360, "height": 640}).new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server.url)
        links = page.locator("a").evaluate_all("all => all.map(one => one.href)")
        assert len(set(links)) >= 5
        for link in links:
            page.goto(link)
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, link
            assert "sans-serif" in page.evaluate("getComputedStyle(document.body).fontFamily"), link
        page.context.close()
    assert complaints == []
    assert all(request.startswith(server.url) for request in asked)


@pytest.mark.parametrize("way", ["button", "Escape", "close"])
def test_stop_really_stops_the_model(slow_url, open_page, way):
    page = open_page(slow_url)
    page.check("#variants input[value=base]")
    ask(page, "Go on for ever")
    expect_text(page, "int4")
    if way == "close":
        page.close()
    else:
        page.click("#stop") if way == "button" else page.press("#question", "Escape")
        page.wait_for_selector("#stop", state="hidden")
        assert "tokens/s" in page.locator(".answer.int4").text_content()
        assert "stopped by you" in page.locator(".answer.int4").text_content()
        assert "Not asked: you stopped." in page.locator(".answer.base").text_content()
        assert page.evaluate("document.activeElement.id") == "question"
    time.sleep(0.3)
    made = SlowEngine.made
    time.sleep(0.3)
    assert SlowEngine.made == made


def test_two_browsers_at_once(slow_url, open_page):
    """One model answers one after the other; another model need not wait."""
    first, second = open_page(slow_url), open_page(slow_url)
    ask(first, "one")
    expect_text(first, "int4")
    ask(second, "two")
    second.wait_for_selector("text=Waits until another answer of this model is done")
    second.click("#stop")
    second.wait_for_selector("#stop", state="hidden")
    second.uncheck("#variants input[value=int4]")
    second.check("#variants input[value=merged]")
    ask(second, "three")
    expect_text(second, "merged")
    before = first.locator(".int4 .text").text_content()
    first.wait_for_timeout(200)
    assert len(first.locator(".int4 .text").text_content()) > len(before)


def test_a_phone_shows_all_of_it_without_scrolling_sideways(slow_url, open_page):
    page = open_page(slow_url, viewport={"width": 360, "height": 640}, color_scheme="dark")
    for variant in ("base", "adapter", "merged"):
        page.check(f"#variants input[value={variant}]")
    ask(page, "wide" * 60)
    expect_text(page, "int4")
    page.press("#question", "Escape")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"


def test_everything_works_from_the_keyboard(slow_url, open_page):
    page = open_page(slow_url)
    reached = []
    page.locator("h1").click()
    for _ in range(9):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.value || document.activeElement.id"))
    assert [name for name in reached if name in ("base", "adapter", "merged", "int4")] == [
        "base",
        "adapter",
        "merged",
        "int4",
    ]
    assert {"question", "send", "clear"} <= set(reached)
    unnamed = "all => all.filter(one => !one.labels?.length && !one.textContent.trim()).length"
    assert page.locator("input, textarea, button").evaluate_all(unnamed) == 0
