"""What every ledger must do; subclasses give the fixture `ledger`."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from phi3_assets.core.errors import DamagedArtefact
from phi3_assets.core.ledger import LedgerConflict, product_key, read_json, run_key, update, update_json

KEY = product_key("desk", "champion.json")


class LedgerContract:
    """Read, and write if unchanged."""

    def test_what_was_written_is_read(self, ledger):
        assert ledger.read(KEY) is None
        version = ledger.write(KEY, b"one", None)
        assert (ledger.read(KEY).content, ledger.read(KEY).version) == (b"one", version)

    def test_a_value_that_changed_is_not_written_over(self, ledger):
        first = ledger.write(KEY, b"one", None)
        second = ledger.write(KEY, b"two", first)
        for stale in (first, None, "nonsense"):
            with pytest.raises(LedgerConflict):
                ledger.write(KEY, b"three", stale)
        assert ledger.read(KEY).content == b"two"
        ledger.write(KEY, b"three", second)

    def test_of_many_writers_at_once_none_is_lost(self, ledger):
        """Champion and pointers were files under locks of their own; what two runs wrote at once lost one of them."""

        def count(_):
            update_json(ledger, KEY, lambda present: (present or 0) + 1)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(count, range(40)))
        assert read_json(ledger, KEY) == 40

    def test_a_change_that_says_none_writes_nothing(self, ledger):
        assert update(ledger, KEY, lambda present: None) is None
        version = ledger.write(KEY, b"one", None)
        assert update(ledger, KEY, lambda present: None) == b"one"
        assert ledger.read(KEY).version == version

    def test_keys_are_listed_by_prefix(self, ledger):
        for key in (KEY, product_key("desk", "latest", "raw_dataset.json"), run_key("r1", "a.json")):
            ledger.write(key, b"{}", None)
        assert ledger.keys("products/desk/") == [KEY, "products/desk/latest/raw_dataset.json"]
        assert ledger.keys("runs/") == ["runs/r1/a.json"]
        assert ledger.keys("products/other/") == []

    def test_what_was_removed_is_gone_and_can_be_written_anew(self, ledger):
        ledger.write(KEY, b"one", None)
        ledger.remove(KEY)
        ledger.remove(KEY)
        assert ledger.read(KEY) is None
        ledger.write(KEY, b"two", None)

    def test_damage_is_a_sentence_that_says_where(self, ledger):
        for damage in (b"{", b"\xff", b"[" * 100_000):
            present = ledger.read(KEY)
            ledger.write(KEY, damage, present.version if present else None)
            with pytest.raises(DamagedArtefact, match=r"champion\.json is damaged"):
                read_json(ledger, KEY)

    def test_a_key_does_not_lead_out_of_the_ledger(self, ledger):
        for key in ("../x", "/etc/x", "a//b", "", "a/../../b"):
            with pytest.raises(ValueError, match="is no key"):
                ledger.read(key)

    def test_json_is_kept_readable(self, ledger):
        update_json(ledger, KEY, lambda present: {"ü": 1})
        assert json.loads(ledger.read(KEY).content.decode()) == {"ü": 1}
