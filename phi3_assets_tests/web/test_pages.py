"""`phi3 web` over HTTP, on a home that was really made: every page is there, by identity, and nothing else is."""

import re
from urllib.parse import urljoin, urlsplit

import dagster as dg
import httpx
import pytest

from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.resources.pointers import latest
from phi3_assets_tests.chat.serving_page import Page, running_page
from phi3_assets_tests.tiny_graph import TINY

WEB = ("web",)


@pytest.fixture(scope="module")
def web(made_home):
    with running_page(made_home, command=WEB) as web:
        yield web


@pytest.fixture(scope="module")
def made(made_home):
    """Identities of what was made, by asset."""
    ledger = LocalArtifactStore(home=str(made_home)).ledger
    return {
        name: latest(ledger, "operations-desk", name).identity
        for name in ("release_bundle", "eval_report", "onnx_int4_model")
    }


def get(web: Page, path: str) -> httpx.Response:
    return httpx.get(web.url + path, follow_redirects=True)


def links(page: httpx.Response) -> list[str]:
    return [link.replace("&amp;", "&") for link in re.findall(r'<a href="([^"#]+)"', page.text)]


def test_the_first_page_leads_to_all_others(web, made):
    first = get(web, "/")
    assert "operations-desk" in first.text
    assert f"<code>{made['release_bundle'][:16]}</code>" in first.text
    assert "recipe tiny-test" in first.text
    assert "Promoted: it is fit for release, and there is no champion yet." in first.text
    assert re.search(r"Test set: \d+ rows, frozen", first.text)
    assert {urlsplit(link).path.split("/")[1] for link in links(first)} == {"chat", "report", "decision", "lineage"}
    for link in links(first):
        page = get(web, link)
        assert page.status_code == 200, link
        for more in links(page):  # those of a decision page name files of the home
            assert httpx.get(urljoin(str(page.url), more), follow_redirects=True).status_code == 200, (link, more)


def test_a_report_is_what_the_step_wrote_and_may_do_nothing(web, made, made_home):
    page = get(web, f"/report/{made['eval_report']}")
    (file,) = made_home.glob("gen-model/eval_report/*/report.html")
    assert page.content == file.read_bytes()
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    assert policy.endswith("; sandbox")
    assert page.headers["cross-origin-resource-policy"] == "same-origin"


def test_the_links_in_the_ui_are_those_pages(web, made, made_home):
    """A path that had to be copied out of the UI was all there was."""
    with dg.DagsterInstance.from_config(str(made_home / ".dagster")) as instance:
        shown = {
            name: instance.get_latest_materialization_event(dg.AssetKey(name)).asset_materialization.metadata
            for name in ("eval_report", "release_bundle", "champion")
        }
        (check,) = instance.event_log_storage.get_latest_asset_check_execution_by_key(
            [key := dg.AssetCheckKey(dg.AssetKey("champion"), "newest_release_is_champion")]
        ).values()
    assert check.key == key
    assert check.event.dagster_event.event_specific_data.passed
    urls = {
        (asset, name): value.url
        for asset, metadata in shown.items()
        for name, value in metadata.items()
        if isinstance(value, dg.UrlMetadataValue)
    }
    assert urls.keys() == {
        ("eval_report", "report page"),
        ("release_bundle", "lineage page"),
        *(("champion", f"{page} page") for page in ("decision", "report", "lineage")),
    }
    for url in urls.values():
        assert url.startswith("http://127.0.0.1:8000/")
        assert get(web, urlsplit(url).path).status_code == 200
    assert shown["eval_report"]["path"].path.endswith(made["eval_report"][:16])


@pytest.mark.parametrize(
    "path",
    [
        "/report/{eval_report:.16}",
        "/report/{release_bundle}",  # of another kind
        "/report/..%2f..%2fetc%2fpasswd",
        "/gen-model/eval_report/../report.html",
        "/gen-model/eval_report/..%2f..%2fledger/report.html",
        "/gen-model/lora_adapter/{eval_report:.16}/report.html",
        "/gen-model/eval_report/{eval_report:.16}/items.jsonl",
        "/decision/operations-desk/champion.json",
        "/decision/..%2frunning/0123456789abcdef-first.html",
        "/decision/operations-desk%2f..%2fother/0123456789abcdef-first.html",
        "/decision/operations-desk/0123456789abcdef-first.html",
        "/lineage/{eval_report}",
        "/static/../app.py",
        "/ledger/products/operations-desk/champion.json",
        "/chat/setup?release=ffff",
    ],
)
def test_what_is_no_page_is_not_found(web, made, path):
    """Identities alone name pages: no path of the machine can be asked for."""
    page = httpx.get(web.url + path.format(**made))
    assert page.status_code == 404
    assert "root:" not in page.text
    assert "history" not in page.text


@pytest.mark.parametrize("query", ["release=../../etc", "release=/etc", "product=../x", "folder=/etc"])
def test_chat_is_asked_for_no_path(web, query):
    """On the command line a release may be named by the folder of a bundle; a page must not make anybody look there."""
    assert get(web, f"/chat/setup?{query}").status_code == 422


def test_chat_says_who_answers(web, made):
    """It talked to whatever was materialised last, and did not say what that was."""
    release = made["release_bundle"]
    champion = f"release {release[:16]} of operations-desk, the champion, recipe tiny-test"
    for query in ("", f"?release={release[:8]}", f"?product=operations-desk&release={release}"):
        assert get(web, f"/chat/setup{query}").json()["told"] == champion
    newest = f"onnx_int4_model {made['onnx_int4_model'][:16]} of operations-desk, made last, recipe tiny-test"
    assert get(web, "/chat/setup?release=latest").json()["told"] == newest
    assert "names no releases of this product" in get(web, "/chat/setup?release=ffff").json()["error"]
    events = web.ask("int4", "What does code 7 mean?", max_new_tokens=2, release=release)
    assert "stop" in events[-1]


def test_refused_and_retired_models_are_told_with_their_reasons(copied_home, phi3_here):
    """A reason is a person's text: no markup of theirs is markup here."""
    changed = [*TINY, "--set", "int4_block_size=64"]
    phi3_here("run", *changed, "--set", "gate_min_items=20", home=copied_home, fails=True)
    phi3_here("champion", "retire", "--reason", "<b>wrong</b> department", home=copied_home)
    with running_page(copied_home, command=WEB) as web:
        first = get(web, "/")
        assert "No champion" in first.text
        assert "The last one was retired: &lt;b&gt;wrong&lt;/b&gt; department" in first.text
        assert "an earlier champion" in first.text
        (unfit,) = [link for link in links(first) if link.endswith("-not-fit.html")]
        why = get(web, unfit)
        assert "Refused: not fit for release" in why.text
        assert re.search(r"Model of eval_report \w{16}, product operations-desk", why.text)
        (report,) = links(why)
        assert httpx.get(urljoin(str(why.url), report), follow_redirects=True).status_code == 200
        newest = [link for link in links(first) if link.startswith("/report/")]
        assert len(set(newest)) == 2  # of the release, and of the model that was refused
        assert "Nothing was made" not in first.text


def test_a_home_without_anything_says_what_to_do(home):
    with running_page(home, command=WEB) as web:
        assert "Nothing was made in this home yet" in get(web, "/").text
