"""The sample dataset is what its script makes, and its facts are true on this machine."""

import errno
import http
import sys

import pytest

from phi3_assets.sample.make_sample import CSV_PATH, ERRNO, HTTP, csv_text, rows

# Python 3.11 still has the names before RFC 9110.
RENAMED = {413, 414, 416, 422}


def test_csv_is_what_the_script_makes() -> None:
    assert CSV_PATH.read_text(encoding="utf-8") == csv_text()
    assert len(rows()) >= 450
    assert len({question for question, _ in rows()}) == len(rows())


def test_http_names_are_those_of_the_registry() -> None:
    assert {code: name for code, name, _ in HTTP if code not in RENAMED} == {
        code: http.HTTPStatus(code).phrase for code, _, _ in HTTP if code not in RENAMED
    }


@pytest.mark.skipif(sys.platform != "linux", reason="the numbers are Linux's")
def test_errno_numbers_are_linux_numbers() -> None:
    assert {name: number for name, number, _ in ERRNO} == {name: getattr(errno, name) for name, _, _ in ERRNO}
