"""What counts as personal data or a secret, what does not, and that the quick look misses nothing of it."""

import socket
import time

import pyarrow as pa
import pytest

from phi3_assets.data.judge.sensitive import find_personal, find_secrets, maybe_personal, maybe_secret, redact

PERSONAL = [
    ("card 4111-1111-1111-1111.", "card <CREDIT_CARD>."),
    ("4111111111111111", "<CREDIT_CARD>"),
    ("mail bob.b+x@mail.example.com now", "mail <EMAIL_ADDRESS> now"),
    ("IBAN DE89 3704 0044 0532 0130 00 please", "IBAN <IBAN> please"),
    ("GB29NWBK60161331926819", "<IBAN>"),
    ("ssn 536-90-4399", "ssn <US_SSN>"),
    ("call +49 30 901820 or so", "call <PHONE_NUMBER> or so"),
    ("＋４９ ３０ ９０１８２０", "<PHONE_NUMBER>"),
    ("from 8.8.8.8 to 10.0.0.1", "from <IP_ADDRESS> to 10.0.0.1"),
]
SECRETS = [
    ("key AKIAIOSFODNN7EXAMPLE!", "key <AWS_ACCESS_KEY>!"),
    ("ghp_1234567890abcdefghijABCDEFGHIJ123456", "<GITHUB_TOKEN>"),
    ("https://bob:geheim@host/x", "https<BASIC_AUTH_CREDENTIALS>host/x"),
    ("xoxb-1-a", "<SLACK_TOKEN>"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----\nend", "-----<PRIVATE_KEY>\nend"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln bye", "<JSON_WEB_TOKEN> bye"),
    ("sk_live_" + "a1B2c3D4e5F6g7H8i9J0k1L2", "<STRIPE_ACCESS_KEY>"),
]
HARMLESS = [
    "404 Not Found: nothing lives at this address.",
    "order 4111111111111112 of 2024-01-02 12:33:44.123456",
    "version 1.2.3.4 of 10.20.30.40",
    "It costs 1,000,000.00 or 12345678 pieces.",
    "https://example.com/a/very/long/path/with-many_words?and=query",
    "set the password in the configuration",
    "555-0100",
    "E = mc^2 @ home",
]


@pytest.fixture(autouse=True)
def _offline(monkeypatch) -> None:
    """A library that was tried asked a public server for a list of domains."""

    def refuse(*_: object) -> None:
        raise AssertionError("this must work offline")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize(("text", "wanted"), PERSONAL)
def test_personal_data_is_found_and_redacted(text: str, wanted: str) -> None:
    assert redact(text, find_personal(text)) == wanted
    assert maybe_personal(pa.array([text])).all()


@pytest.mark.parametrize(("text", "wanted"), SECRETS)
def test_secrets_are_found_and_redacted_whole(text: str, wanted: str) -> None:
    assert redact(text, find_secrets(text)) == wanted
    assert maybe_secret(pa.array([text])).all()


@pytest.mark.parametrize("text", HARMLESS)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert find_secrets(text) == []
    assert [finding for finding in find_personal(text) if finding.kind != "IP_ADDRESS"] == []


@pytest.mark.parametrize("part", ["/", "://a:", "https://example.com/a ", "+1", "a", "A1b2-", "DE12 ", "aws key = "])
def test_a_line_of_a_hundred_kilobytes_is_looked_through_once(part: str) -> None:
    text = part * (100_000 // len(part)) + " a@b"
    start = time.process_time()
    find_secrets(text)
    find_personal(text)
    assert time.process_time() - start < 5  # a minute, where each slash of it was a beginning anew


def test_the_shortest_phone_number_has_six_digits() -> None:
    import phonenumbers

    metadata = phonenumbers.PhoneMetadata
    least = []
    for region in phonenumbers.SUPPORTED_REGIONS:
        known = metadata.metadata_for_region(region)
        least.append(len(str(known.country_code)) + min(known.general_desc.possible_length))
    for code in phonenumbers.COUNTRY_CODES_FOR_NON_GEO_REGIONS:
        least.append(len(str(code)) + min(metadata.metadata_for_nongeo_region(code).general_desc.possible_length))
    assert min(least) == 6
