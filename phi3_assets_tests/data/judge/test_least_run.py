"""What a regular expression needs of a text: never more than the expression itself asks for."""

import re

import pytest

from phi3_assets.data.judge.sensitive import _known, find_secrets, least_run, needed_text

HEX = "0123456789abcdef"
LONG = [
    (f"cl_key = {HEX * 4}", "CLOUDANT_CREDENTIALS"),
    (f"ibm_cloud_key: {'aB3_' * 11}", "IBM_CLOUD_IAM_KEY"),
    (f"cos_hmac_secret_key={HEX * 3}", "IBM_COS_HMAC_CREDENTIALS"),
    (f"softlayer_api_key = {HEX * 4}", "SOFTLAYER_CREDENTIALS"),
    (f"{HEX * 2}-us12", "MAILCHIMP_ACCESS_KEY"),
]


@pytest.mark.parametrize(
    ("pattern", "run"),
    [
        ("[a-f0-9]{48}", 48),
        ("key=[A-Za-z0-9_-]{20,}", 20),
        ("(?:[a-z]{24}|[0-9]{10})", 10),
        ("(?:[a-z]{24})?x", 0),
        ("[^a]{24}", 0),
        (r"\w{24}", 0),  # other letters than ASCII too
        ("[a-z.]{24}", 0),
        ("(ab){30}", 0),
    ],
)
def test_least_run(pattern: str, run: int) -> None:
    assert least_run(re.compile(pattern)) == run


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("//.+/:_authToken=(a|b)", "/:_authToken="),
        ("(?:one|two)[0-9A-Z]{16}", ""),
        ("(?i)AWS", "aw"),  # a long s is a small S too
        ("(?i)kiss", ""),
        ("ab?c", "a"),  # b may be left out, and then what stands around it is not one text
        ("[a]b", "ab"),  # a class of one is that one
        ("a|b", ""),
    ],
)
def test_needed_text(pattern: str, text: str) -> None:
    assert needed_text(re.compile(pattern)) == text


@pytest.mark.parametrize(("text", "kind"), LONG)
def test_what_needs_a_run_is_found_in_a_text_that_has_just_it(text: str, kind: str) -> None:
    assert [finding.kind for finding in find_secrets(text)] == [kind]


def test_costly_ones_need_something() -> None:
    needed = {type(each.detector).__name__: (each.run, each.needed) for each in _known()}
    assert needed["CloudantDetector"][0] == 24
    assert needed["IbmCloudIamDetector"][0] == 44
    assert needed["SlackDetector"] == (1, "://hoo")  # the last of its two
    assert needed["NpmDetector"] == (0, "/:_authToken=")
