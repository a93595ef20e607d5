"""Personal data and secrets in texts: what is found, where, and its replacement.

Found are what has a form that can be proved or recognised: card numbers (Luhn), IBANs (check digits), US social
security numbers, e-mail addresses, phone numbers in international form, IP addresses, and the keys and tokens that
detect-secrets knows. Names and postal addresses are not found: that needs a language model of its own. (presidio was
tried: 400 MB with spaCy, and it asks a public server for a list of domains.)
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import groupby
from re import _constants as ops  # type: ignore[attr-defined]  # what the module itself parses with
from re import _parser as parser  # type: ignore[attr-defined]
from string import ascii_letters, digits
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import stdnum.iban
import stdnum.luhn
import stdnum.us.ssn
from numpy.typing import NDArray


class Finding(NamedTuple):
    """A place in a text: kind (such as CREDIT_CARD), and start and end in characters."""

    kind: str
    start: int
    end: int


# A cheap look at every text, in RE2: only what it marks is looked at closely. It must mark all that can be found.
_MAYBE_PERSONAL = (
    r"@|\d(?:[ .\-/()]{0,2}\d){8}|\d{1,3}\.\d{1,3}\.\d{1,3}\.\d|\d{3}-\d{2}-\d{4}|[A-Z]{2}\d\d[ ]?[A-Z0-9]{4}"
    r"|[+\x{ff0b}](?:[^\p{Nd}A-WYZa-wyz]{0,9}\p{Nd}){6}"
)
_MAYBE_SECRET = r"[A-Za-z0-9+/=_\-.:]{16,}|BEGIN|://|xox|AKC[A-Za-z0-9]{10}|AP[0-9A-F][A-Za-z0-9]{8}"  # noqa: S105 (a pattern)

# A name is at most 64 characters; an end to it, so that a long run of letters is not read anew from each of them.
_EMAIL = re.compile(r"[A-Za-z0-9._%+\-]{1,256}@[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)*\.[A-Za-z]{2,}")
_CARD = re.compile(r"(?<![\d.])\d(?:[ \-]?\d){12,18}(?![\d])")
_IBAN = re.compile(r"\b[A-Z]{2}\d\d(?:[ ]?[A-Z0-9]{4}){2,7}(?:[ ]?[A-Z0-9]{1,3})?\b")
_SSN = re.compile(r"(?<!\d)\d{3}-\d{2}-\d{4}(?!\d)")
_IP = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])")
# Runs up to this are not looked for, as most texts have some: detectors that need no longer one are always asked.
_SHORT_RUN = 15
_RUN = re.compile(rf"[A-Za-z0-9_\-]{{{_SHORT_RUN + 1},}}")
_OF_RUN = frozenset(map(ord, ascii_letters + digits + "_-"))
_TOKEN_REST = re.compile(r"[A-Za-z0-9_\-.+/=]*")
# A number in international form: the shortest that phonenumbers knows has six digits, country and all, and between two
# digits, or before the first, are few characters, of which "x" alone is a letter.
_MAYBE_PHONE = re.compile(r"[+\uff0b](?:[^\dA-WYZa-wyz]{0,9}\d){6}")


def maybe_personal(texts: pa.Array) -> NDArray[np.bool_]:
    """Which texts to ask `find_personal` about."""
    return _marked(texts, _MAYBE_PERSONAL)


def maybe_secret(texts: pa.Array) -> NDArray[np.bool_]:
    """Which texts to ask `find_secrets` about."""
    return _marked(texts, _MAYBE_SECRET)


def _marked(texts: pa.Array, pattern: str) -> NDArray[np.bool_]:
    return pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def find_personal(text: str) -> list[Finding]:
    """Personal data in a text, without overlaps, in order."""
    return _without_overlaps(_personal(text))


def find_secrets(text: str) -> list[Finding]:
    """Keys and tokens in a text, without overlaps, in order."""
    return _without_overlaps(_secrets(text))


def redact(text: str, findings: list[Finding]) -> str:
    """The text with each finding replaced by its kind, as in '<CREDIT_CARD>'."""
    for finding in reversed(_without_overlaps(findings)):
        text = f"{text[: finding.start]}<{finding.kind}>{text[finding.end :]}"
    return text


def _personal(text: str) -> Iterator[Finding]:
    if "@" in text:  # else each word would be tried for a beginning of one
        for match in _EMAIL.finditer(text):
            yield Finding("EMAIL_ADDRESS", *match.span())
    for match in _CARD.finditer(text):
        if stdnum.luhn.is_valid(re.sub(r"\D", "", match[0])):
            yield Finding("CREDIT_CARD", *match.span())
    for match in _IBAN.finditer(text):
        if stdnum.iban.is_valid(match[0]):
            yield Finding("IBAN", *match.span())
    for match in _SSN.finditer(text):
        if stdnum.us.ssn.is_valid(match[0]):
            yield Finding("US_SSN", *match.span())
    for match in _IP.finditer(text):
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:
            continue
        if address.is_global:  # 10.0.0.1 or 127.0.0.1 is nobody's
            yield Finding("IP_ADDRESS", *match.span())
    if _MAYBE_PHONE.search(text):
        import phonenumbers  # large, slow, and seldom needed

        for phone in phonenumbers.PhoneNumberMatcher(text, None):
            yield Finding("PHONE_NUMBER", phone.start, phone.end)


class Known(NamedTuple):
    """A form of a key that a detector of detect-secrets knows, and what a text must have in which it stands.

    Attributes:
        detector: The detector.
        pattern: One of its expressions; some take time that grows with the square of a line.
        run: Length of a run of ASCII letters, digits, "_" and "-".
        needed: A text; in small letters where the case does not count.
        caseless: Whether it does not.
    """

    detector: Any
    pattern: re.Pattern[str]
    run: int
    needed: str
    caseless: bool


@cache
def _known() -> list[Known]:
    """The known key formats: no detectors of entropy and keywords, which mark ordinary words."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    from detect_secrets.plugins.base import RegexBasedDetector
    from detect_secrets.plugins.ip_public import IPPublicDetector

    kinds: list[Any] = list(get_mapping_from_secret_type_to_class().values())
    detectors = [kind() for kind in kinds if issubclass(kind, RegexBasedDetector) and kind is not IPPublicDetector]
    return [
        Known(detector, one, least_run(one), needed_text(one), bool(one.flags & re.IGNORECASE))
        for detector in detectors
        for one in detector.denylist
    ]


def _secrets(text: str) -> Iterator[Finding]:
    runs = [len(run) for run in _RUN.findall(text) if run.strip("-_")]  # ruled lines are no keys
    longest = max(runs, default=_SHORT_RUN)
    small = text.lower()
    asked = [
        detector
        for detector, pattern, run, needed, caseless in _known()
        if run <= longest and needed in (small if caseless else text) and pattern.search(text)
    ]
    for detector in asked:
        values = [value for value in detector.analyze_string(text) if value]
        if not values:
            continue
        kind = re.sub(r"\W+", "_", detector.secret_type.upper())
        for pattern in detector.denylist:
            # What a detector returns may be a part ('ghp' of a GitHub token): the whole match is the secret.
            for match in pattern.finditer(text):
                if any(value in match[0] for value in values):
                    yield Finding(kind, match.start(), _end(text, match, kind))


def _end(text: str, match: re.Match[str], kind: str) -> int:
    """A private key is found by its first line, and goes on to its last; a web token by its first two parts."""
    if kind == "JSON_WEB_TOKEN":
        return _TOKEN_REST.match(text, match.end()).end()  # type: ignore[union-attr]  # it matches the empty text too
    if kind != "PRIVATE_KEY":
        return match.end()
    last = re.compile(r"-----END[A-Z ]*-----").search(text, match.end())
    return last.end() if last else len(text)


def _without_overlaps(findings: Iterable[Finding]) -> list[Finding]:
    """Of overlapping findings the first and longest."""
    kept: list[Finding] = []
    for finding in sorted(findings, key=lambda each: (each.start, -each.end)):
        if not kept or finding.start >= kept[-1].end:
            kept.append(finding)
    return kept


def needed_text(pattern: re.Pattern[str]) -> str:
    """The longest text that is in every text that matches, in small letters where the case does not count; "": none."""
    caseless = pattern.flags & re.IGNORECASE

    def stands(part: tuple[Any, Any]) -> bool:
        # Of these three, letters beyond ASCII are other cases.
        return part[0] is ops.LITERAL and not (caseless and chr(part[1]) in "iksIKS")

    runs = groupby(parser.parse(pattern.pattern, pattern.flags), stands)
    longest = max(("".join(chr(given) for _, given in run) for literal, run in runs if literal), key=len, default="")
    return longest.lower() if caseless else longest


def least_run(pattern: re.Pattern[str]) -> int:
    """Length of a run of ASCII letters, digits, "_" and "-" that is in every text that matches; 0: none is known."""
    return _longest(parser.parse(pattern.pattern, pattern.flags))


def _longest(tree: Iterable[tuple[Any, Any]]) -> int:
    """Of a sequence the longest run that one of its parts must be."""
    return max((_run(kind, given) for kind, given in tree), default=0)


def _run(kind: Any, given: Any) -> int:
    if kind in (ops.MAX_REPEAT, ops.MIN_REPEAT):
        least, _, part = given
        alone = len(part) == 1 and _is_of_run(*part[0])
        return least if alone else _longest(part) if least else 0
    if kind is ops.SUBPATTERN:
        return _longest(given[-1])
    if kind is ops.BRANCH:
        return min(map(_longest, given[1]))
    return 0


def _is_of_run(kind: Any, given: Any) -> bool:
    if kind is ops.LITERAL:
        return given in _OF_RUN
    return kind is ops.IN and all(
        part in _OF_RUN if one is ops.LITERAL else one is ops.RANGE and _OF_RUN.issuperset(range(part[0], part[1] + 1))
        for one, part in given
    )
