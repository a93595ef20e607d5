"""Chat templates are rendered as transformers renders them, and answers start where the prompt ends."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from phi3_assets.core.errors import UserError
from phi3_assets.data.tokens.chat_template import ChatTemplate, load_chat_template
from phi3_assets.data.tokens.rendering import TemplateMismatch, chat_renderer, template_renderer
from phi3_assets_tests.data.running import CHATML, CURIOUS, PHI3, write_model

TEMPLATES = {"chatml": CHATML, "phi3": PHI3, "curious": CURIOUS}
word = st.text(alphabet=st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=12).map(str.strip)
text = st.one_of(word.filter(bool), st.sampled_from(["user", "assistant\n", "{{ x }}", "!", "<|end|"])).map(str.strip)
conversations = st.tuples(
    st.lists(st.tuples(st.just("system"), text), max_size=1),
    st.lists(st.tuples(text, text), min_size=1, max_size=4),
).map(lambda parts: parts[0] + [turn for q, a in parts[1] for turn in (("user", q), ("assistant", a))])


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: write_model(folder / name, template) for name, template in TEMPLATES.items()}


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(messages=conversations)
def test_text_equals_transformers(models, name: str, messages: list[tuple[str, str]]) -> None:
    ours = load_chat_template(models[name])
    theirs = _theirs(models[name])
    turns = [{"role": role, "content": content} for role, content in messages]
    assert ours.text(messages) == theirs.apply_chat_template(turns, tokenize=False)
    prompt = theirs.apply_chat_template(turns[:-1], tokenize=False, add_generation_prompt=True)
    assert ours.text(messages[:-1], prompt=True) == prompt

    rendered = chat_renderer(ours, "<|end|>").render(messages)
    assert rendered.text == ours.text(messages)
    start, end = rendered.answers[-1]
    assert rendered.text[:start] == prompt
    assert rendered.text[start:end].endswith(messages[-1][1])
    assert len(rendered.answers) == sum(role == "assistant" for role, _ in messages)


_loaded: dict[Path, object] = {}


def _theirs(model: Path):
    if model not in _loaded:
        _loaded[model] = AutoTokenizer.from_pretrained(model)
    return _loaded[model]


@pytest.mark.parametrize(
    ("template", "copies"),
    [
        (CHATML, True),
        (PHI3, True),
        (CURIOUS, False),
        ("{% for m in messages %}{{ m.role ~ m.content | trim }}{% endfor %}", True),
        ("{% for m in messages[1:] %}{{ m['content'] }}{% endfor %}{{ messages | length }}", True),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", False),
        ("{% for m in messages %}{{ 'x' if m.content else m.content }}{% endfor %}", False),
        ("{% for m in messages %}{{ m.content.split('x')[-1] }}{% endfor %}", False),
        ("{% for m in messages %}{{ m }}{% endfor %}", False),
        ("{% for m in messages %}{{ m.content[:5] }}{% endfor %}", False),
        ("{% set first = messages[0] %}{{ first.content }}", False),
        ("{% for m in messages %}{% if m['content'] == 'x' %}y{% endif %}{{ m.content }}{% endfor %}", False),
        ("{% macro f(m) %}{{ m.content | length }}{% endmacro %}{% for m in messages %}{{ f(m) }}{% endfor %}", False),
        ("{% for m in messages %}{% for k in m %}{{ k }}{% endfor %}{% endfor %}", False),
        ("{% for m in messages if m.content %}{{ m.content }}{% endfor %}", False),
    ],
)
def test_what_is_proved_to_copy_contents(template: str, copies: bool) -> None:
    """A wrong yes would lay out other text than the template does."""
    assert ChatTemplate(template, {}).copies_contents is copies


def test_template_in_older_places_and_special_tokens_as_objects(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    (model / "chat_template.jinja").unlink()
    config = json.loads((model / "tokenizer_config.json").read_text())
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "{{ eos_token }}!"}]
    config |= {"chat_template": named, "eos_token": {"content": "<|end|>"}}
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    assert load_chat_template(model).text([("user", "x")]) == "<|end|>!"


def test_template_errors_say_what_to_do() -> None:
    refusing = ChatTemplate("{{ raise_exception('System role not supported') }}", {})
    with pytest.raises(
        UserError, match=r"refuses a conversation of system, user: System role not supported\. Leave out"
    ):
        refusing.text([("system", "x"), ("user", "y")])
    with pytest.raises(UserError, match="not valid"):
        ChatTemplate("{% for %}", {}).text([])


def test_text_template_has_the_columns_with_their_spaces() -> None:
    renderer = template_renderer("<|user|>\n{Question}<|end|>\n{Best Answer}<|end|>", "Question", "Best Answer", "")
    rendered = renderer.render([("user", "{Best Answer}?"), ("assistant", "yes")])
    assert rendered.text == "<|user|>\n{Best Answer}?<|end|>\nyes<|end|>"
    assert [rendered.text[slice(*answer)] for answer in rendered.answers] == ["yes"]
    with pytest.raises(TemplateMismatch):
        renderer.render([("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")])


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{Question} {Best Anwser}", "Did you mean 'Best Answer'?"),
        ("{Question}", "each once; it holds {Question}"),
        ("{Best Answer} {Question}", "must hold {Question} and then {Best Answer}"),
        ("none", "no placeholder"),
    ],
)
def test_bad_text_templates_are_refused(template: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        template_renderer(template, "Question", "Best Answer", "")
    assert said in str(caught.value)
