"""The ledger on a local disk."""

import subprocess
import sys
import time

import pytest

from phi3_assets.resources.local_ledger import LocalLedger
from phi3_assets_tests.resources.ledger_contract import KEY, LedgerContract

_WRITES_FOR_EVER = """
import sys
from pathlib import Path
from phi3_assets.core.ledger import update_json
from phi3_assets.resources.local_ledger import LocalLedger
ledger = LocalLedger(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    update_json(ledger, sys.argv[2], lambda present: [*(present or []), 0][-500:])
"""


@pytest.fixture
def ledger(tmp_path):
    return LocalLedger(tmp_path / "ledger")


class TestLocalLedger(LedgerContract):
    """The contract, and what a killed writer leaves."""

    def test_a_writer_killed_at_any_moment_leaves_a_whole_value_and_no_lock(self, ledger, tmp_path):
        from phi3_assets.core.ledger import read_json

        command = [sys.executable, "-c", _WRITES_FOR_EVER, str(tmp_path / "ledger"), KEY]
        for moment in (0.0, 0.013, 0.029, 0.051):
            with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
                writer.stdout.readline()
                time.sleep(moment)
                writer.kill()
            present = ledger.read(KEY)
            if present is not None:
                assert set(read_json(ledger, KEY)) == {0}
            started = time.monotonic()
            ledger.write(KEY, b"[0]", present.version if present else None)
            assert time.monotonic() - started < 5
