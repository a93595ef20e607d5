"""Each command of README.md, SECURITY.md and docs/ is typed in a checkout, or parsed where that cannot be.

An option that was renamed lived on in two pages. A command that is in no list of programs fails here.
"""

import pytest

from phi3_assets_tests.docs.pages import PAGES, PROMPT, ROOT, Command, mentioned, typed, untyped
from phi3_assets_tests.docs.parsed import refused
from phi3_assets_tests.docs.session import Checkout, why_not_typed

KNOWN = {
    "",
    "az",
    "cp",
    "docker",
    "echo",
    "export",
    "kubectl",
    "lm_eval",
    "make",
    "phi3",
    "pip",
    "pytest",
    "python",
    "rm",
}
"""Programs that pages call. Who adds one sees to it that it is typed, or says in `session.NOT_TYPED` why not."""


def name(page):
    return page.name


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_is_one_that_its_program_takes(page):
    wrong = {str(one): why for one in [*typed(page), *mentioned(page)] if (why := refused(one))}
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_command_goes_unseen(page):
    assert {one.program for one in typed(page)} <= KNOWN
    assert untyped(page) == [], "put them into a ```console block, each behind `$ `"


LONG = {"tutorial.md": pytest.mark.slow}  # it trains twice, as README.md does
TYPED = [page for page in PAGES if any(not why_not_typed(command) for command in typed(page))]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", [pytest.param(page, marks=LONG.get(page.name, ()), id=page.name) for page in TYPED])
def test_a_reader_types_the_page(page, made_home, tmp_path):
    Checkout(tmp_path / "checkout", made_home).type([one for one in typed(page) if not why_not_typed(one)])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("phi3 run --recpie smol-cpu", "No such option"),
        ("phi3 champion crown", "No such command"),
        ("phi3 run --set lora_rank=3", "no recipe field 'lora_rank'"),
        ("make everything", "No rule to make target"),
        ("python -m benchmarks speed", "no benchmark speed"),
        ("docker compose exec locations phi3 doctor", "compose.yaml has no locations"),
        ("docker compose exec location phi3 docter", "No such command"),
        ("docker compose --profile viewers up", "compose.yaml has no viewers"),
        ("echo 'open", "unexpected EOF"),
    ],
)
def test_a_wrong_command_is_seen(text, why):
    assert why in refused(Command("page.md", 1, text))


def test_a_command_that_fails_is_named(made_home, tmp_path):
    commands = [Command("page.md", 3, "echo well"), Command("page.md", 4, ".venv/bin/phi3 bundle verify nowhere")]
    with pytest.raises(AssertionError, match=r"(?s)page\.md:4.*nowhere"):
        Checkout(tmp_path / "checkout", made_home).type(commands)


def test_every_block_is_read(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a `make run`\n\n```console\n$ az x \\\n    --y\nsays\n$ cat <<'E'\nb\nE\n```\n\n    phi3 gc\n")
    assert [one.text for one in typed(page)] == ["az x \\\n    --y", "cat <<'E'\nb\nE"]
    assert [one.line for one in typed(page)] == [4, 7]
    assert [one.text for one in mentioned(page)] == ["make run"]
    assert untyped(page) == ["    phi3 gc"]
    everything = (ROOT / "README.md").read_text()
    assert everything.count(f"\n{PROMPT}") == len(typed(ROOT / "README.md"))
