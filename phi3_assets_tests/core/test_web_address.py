"""The addresses of pages: a setting that is wrong is told, and 0 means that there are none."""

import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.core.web_address import REPORT, page_url, web_port
from phi3_assets.definitions import build_defs


def test_the_port_is_a_setting(monkeypatch):
    monkeypatch.delenv("PHI3_WEB_PORT", raising=False)
    assert page_url(REPORT, "ab") == "http://127.0.0.1:8000/report/ab"
    monkeypatch.setenv("PHI3_WEB_PORT", "8123")
    assert page_url(REPORT, "ab") == "http://127.0.0.1:8123/report/ab"
    monkeypatch.setenv("PHI3_WEB_PORT", "0")
    assert page_url(REPORT, "ab") is None


@pytest.mark.parametrize("given", ["http", "65536", "-1"])
def test_what_is_no_port_is_told_when_the_location_loads(monkeypatch, given):
    monkeypatch.setenv("PHI3_WEB_PORT", given)
    with pytest.raises(UserError, match=r"PHI3_WEB_PORT='.*' is no port. Give a number from 1 to 65535, or 0"):
        web_port()
    with pytest.raises(UserError, match="is no port"):
        build_defs()
