"""Data steps do not wait for pandas."""

import subprocess
import sys

CODE = """
import sys
from phi3_assets.data.arrow import leave_pandas_out
leave_pandas_out()
import pyarrow as pa
import pyarrow.parquet as pq
table = pa.table({"a": pa.array(["x", "y"]), "b": pa.array([1, 2])})
pq.write_table(table, sys.argv[1])
pq.read_table(sys.argv[1], filters=[("a", "=", "x")])
assert "pandas" not in sys.modules, "pyarrow imported pandas"
import pandas
assert list(table.to_pandas()["b"]) == [1, 2]
assert isinstance(pandas.DataFrame({"c": [1]}), pandas.DataFrame)
leave_pandas_out()
assert sys.modules["pandas"] is pandas
"""


def test_pyarrow_imports_pandas_only_when_asked_to(tmp_path):
    done = subprocess.run([sys.executable, "-c", CODE, str(tmp_path / "t.parquet")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
