"""The sample dataset is what its script makes, and its facts are true on this machine."""

import errno
import http
import signal
import sys

import pytest

from phi3_assets.sample.make_sample import (
    COLUMNS,
    CSV_PATH,
    ERRNO,
    HARDER_COLUMNS,
    HARDER_PATH,
    HTTP,
    NO_CODES,
    NO_NAMES,
    csv_text,
    harder_rows,
    rows,
)
from phi3_assets.sample.new_subject import SIGNALS
from phi3_assets.sample.new_subject import rows as signal_rows

# Python 3.11 still has the names before RFC 9110.
RENAMED = {413, 414, 416, 422}


def test_csv_is_what_the_script_makes() -> None:
    assert CSV_PATH.read_text(encoding="utf-8") == csv_text(COLUMNS, rows())
    assert HARDER_PATH.read_text(encoding="utf-8") == csv_text(HARDER_COLUMNS, harder_rows())
    assert len(rows()) >= 450
    assert len({question for question, _ in rows()}) == len(rows())


def test_http_names_are_those_of_the_registry() -> None:
    assert {code: name for code, name, _ in HTTP if code not in RENAMED} == {
        code: http.HTTPStatus(code).phrase for code, _, _ in HTTP if code not in RENAMED
    }


@pytest.mark.skipif(sys.platform != "linux", reason="the numbers are Linux's")
def test_errno_numbers_are_linux_numbers() -> None:
    assert {name: number for name, number, _ in ERRNO} == {name: getattr(errno, name) for name, _, _ in ERRNO}


def test_harder_questions_are_none_of_the_sample_and_near_misses_do_not_exist() -> None:
    asked = [question for question, *_ in harder_rows()]
    assert len(set(asked)) == len(asked) >= 40
    assert not set(asked) & {question for question, _ in rows()}
    assert all(right != wrong for _, right, wrong, _, _ in harder_rows())
    # 306 and 418 are registered as unused; Python has the rest of the registry.
    assert not {code for code, _ in NO_CODES} & ({status.value for status in http.HTTPStatus} | {306})
    assert not any(hasattr(errno, name) for name, _ in NO_NAMES)


@pytest.mark.skipif(sys.platform != "linux", reason="the numbers are Linux's")
def test_signal_numbers_are_linux_numbers() -> None:
    assert {name: number for name, number, _ in SIGNALS} == {name: getattr(signal, name) for name, _, _ in SIGNALS}


def test_shuffled_answers_belong_to_other_questions() -> None:
    right, shuffled = dict(signal_rows()), dict(signal_rows(shuffled=True))
    assert len(right) == len(shuffled) == 84
    assert sorted(right.values()) == sorted(shuffled.values())
    assert sum(right[question] == shuffled[question] for question in right) < 84 / 5
    assert signal_rows(shuffled=True) == signal_rows(shuffled=True)
    # No exchange that could be learnt: the phrasings of one fact have several answers.
    assert all(len({shuffled[q] for q in right if name in q}) > 2 for name, _, _ in SIGNALS)
