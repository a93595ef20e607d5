"""`phi3 chat --web` over HTTP, on a home that was really made: answers, refusals, and who may ask."""

import json
import shutil
import socket
import subprocess
import threading
from urllib.parse import urlsplit

import httpx
import pytest

from phi3_assets.evaluation import VARIANTS
from phi3_assets_tests.chat.serving_page import running_page, text_of
from phi3_assets_tests.conftest import CANARY_QUESTION, clean_env
from phi3_assets_tests.tiny_graph import PHI3

# The recipe tiny-test answers with random text, which may end at once: short answers are enough.
QUESTION = "What does code 7 mean?"


@pytest.fixture(scope="module")
def page(made_home):
    with running_page(made_home, "--system", "be brief") as page:
        yield page


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_answers_as_in_the_terminal(page, made_home, variant):
    events = page.ask(variant, QUESTION, max_new_tokens=4)
    assert {"state": "answering", "forgotten": 0} in events
    assert events[-1]["stop"] in ("end", "limit")
    assert events[-1]["tokens"] <= 4
    assert events[-1]["first_token_s"] > 0
    command = [*PHI3, "chat", QUESTION, "--variant", variant, "--max-new-tokens", "4", "--home", str(made_home)]
    if variant == "int4":
        told = subprocess.run(command, env=clean_env(), capture_output=True, text=True, check=True)
        assert text_of(events) == told.stdout.removesuffix("\n")


def test_setup_names_the_variants_and_what_the_page_starts_with(page):
    setup = httpx.get(f"{page.url}/chat/setup").json()
    assert [(one["name"], one["problem"]) for one in setup["variants"]] == [(name, "") for name in VARIANTS]
    assert (setup["variant"], setup["system_prompt"], setup["max_new_tokens"]) == ("int4", "be brief", 256)


def test_two_at_once_get_the_same_answer(page):
    answers = []
    askers = [
        threading.Thread(target=lambda: answers.append(text_of(page.ask("int4", QUESTION, max_new_tokens=100))))
        for _ in range(4)
    ]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert len(answers) == 4
    assert len(set(answers)) == 1


def test_a_conversation_that_is_too_long_says_what_it_left_out(page):
    long = ["What does code 1 mean?", "Code 1 means ok."] * 60
    events = page.ask("int4", *long, QUESTION, max_new_tokens=4)
    assert next(event for event in events if "forgotten" in event)["forgotten"] > 0
    assert "stop" in events[-1]


def test_a_question_longer_than_the_context_is_refused_in_words(page):
    (problem,) = [event["error"] for event in page.ask("int4", "why " * 3000) if "error" in event]
    assert "no room for an answer" in problem


@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        ({"variant": "int8"}, 422, "choose base, adapter, merged, int4"),
        ({"turns": []}, 422, "turns: List should have at least 1 item"),
        ({"turns": [{"role": "assistant", "content": "a"}]}, 422, "the user first"),
        (
            {"turns": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            422,
            "must be the user's",
        ),
        ({"turns": [{"role": "system", "content": "a"}]}, 422, "turns.0.role"),
        ({"max_new_tokens": 0}, 422, "max_new_tokens: Input should be greater than or equal to 1"),
        ({"temperature": 1}, 422, "temperature: Extra inputs are not permitted"),
        ({"system_prompt": "x" * (1 << 20)}, 413, "Too Large"),
    ],
)
def test_what_is_no_question_is_refused_in_words(page, change, status, told):
    body = {"variant": "int4", "turns": [{"role": "user", "content": "a"}], **change}
    response = httpx.post(f"{page.url}/chat/answer", json=body)
    assert response.status_code == status
    assert told in response.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 422),
        ({"Origin": "{url}"}, 422),
        ({"Host": "localhost:{port}", "Origin": "http://localhost:{port}"}, 422),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        # Another program's page on this computer is another origin.
        ({"Origin": "http://127.0.0.1:3000"}, 403),
        # DNS rebinding: a foreign name that resolves to this computer.
        ({"Host": "evil.example:{port}", "Origin": "http://evil.example:{port}"}, 400),
        ({"Host": "evil.example"}, 400),
        # What a form of a foreign page can send without asking first.
        ({"Content-Type": "text/plain"}, 415),
    ],
)
def test_only_its_own_page_may_ask(page, headers, status):
    """422: it came through and was found to be no question."""
    given = {name: value.format(url=page.url, port=urlsplit(page.url).port) for name, value in headers.items()}
    response = httpx.post(
        f"{page.url}/chat/answer", content="{}", headers={"Content-Type": "application/json", **given}
    )
    assert response.status_code == status


NONE = ("/none", "/chat/../page.py", "/report/none", f"/lineage/{'0' * 64}", "/decision/desk/..%2f..%2findex.json")


@pytest.mark.parametrize("path", ["/", "/chat/", "/chat/chat.js", "/chat/setup", "/static/pages.css", *NONE])
def test_every_response_keeps_the_page_to_itself(page, path):
    response = httpx.get(page.url + path)
    assert response.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
    assert response.headers["cross-origin-resource-policy"] == "same-origin"
    assert response.headers["cache-control"] == "no-store"
    assert "server" not in response.headers
    assert (response.status_code == 200) == (path not in NONE)


def test_it_listens_on_this_computer_only(page):
    """Every address in 127.0.0.0/8 is this computer; a server bound to all addresses would answer on any of them."""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", urlsplit(page.url).port), timeout=5)


def test_a_home_without_a_model_says_so_and_the_rest_answers(copied_home):
    shutil.rmtree(copied_home / "gen-model" / "lora_adapter")
    shutil.rmtree(copied_home / "gen-model" / "merged_model")
    with running_page(copied_home) as page:
        problems = {one["name"]: one["problem"] for one in httpx.get(f"{page.url}/chat/setup").json()["variants"]}
        assert "needs lora_adapter: materialise it first" in problems["adapter"]
        assert "needs merged_model: materialise it first" in problems["merged"]
        assert page.ask("merged", QUESTION)[-1] == {"error": problems["merged"]}
        assert "stop" in page.ask("int4", QUESTION, max_new_tokens=2)[-1]


def test_nothing_asked_is_printed_and_ctrl_c_ends_it_in_the_midst_of_an_answer(copied_home):
    """The damaged file makes the runtime fail, which prints a stack."""
    with running_page(copied_home) as page:
        page.ask("int4", CANARY_QUESTION, max_new_tokens=4)
        httpx.post(f"{page.url}/chat/answer", json={"variant": CANARY_QUESTION, "turns": []})
        (damaged,) = copied_home.glob("gen-model/merged_model/*/config.json")
        damaged.write_text("#" * damaged.stat().st_size)
        assert "The terminal shows where" in page.ask("merged", CANARY_QUESTION)[-1]["error"]
        with page.asking("base", CANARY_QUESTION, max_new_tokens=10_000) as lines:
            assert any("text" in json.loads(line) for line in lines)
            assert page.end() == 0
    assert "answering with merged" in page.printed
    assert "kayak" not in page.printed
    assert "Traceback" not in page.printed


def test_wrong_ways_to_call_it(page, made_home):
    def refused(*arguments: str) -> str:
        command = [*PHI3, "chat", *arguments, "--web", "--home", str(made_home)]
        done = subprocess.run(command, env=clean_env(), capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        return done.stderr

    port = str(urlsplit(page.url).port)
    assert f"Cannot listen on 127.0.0.1:{port}: Address already in use. Choose another --port" in refused(
        "--port", port
    )
    assert "leave out the question" in refused("Hello?")
    assert "Did you mean 'merged'?" in refused("--variant", "merge")
