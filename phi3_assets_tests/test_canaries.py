"""The search for secrets looks into what is packed: a search that finds nothing anywhere would always be content."""

import gzip
import sqlite3
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq

from phi3_assets_tests.canaries import IN_A_ROW, found_in


def test_a_secret_is_found_wherever_it_hides(tmp_path):
    own, left = tmp_path / "own", tmp_path / "left"
    own.mkdir()
    left.mkdir()
    for folder in (own, left):
        (folder / "run.log").write_text(f"token {IN_A_ROW}\n")
    pq.write_table(pa.table({"text": [IN_A_ROW]}), left / "rows.parquet", compression="zstd")
    (left / "log.gz").write_bytes(gzip.compress(IN_A_ROW.encode()))
    with zipfile.ZipFile(left / "model.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", IN_A_ROW * 2)
    with sqlite3.connect(left / "runs.db") as connection:
        connection.execute("create table runs (body text)")
        connection.execute("insert into runs values (?)", [IN_A_ROW])
    found = {line.removeprefix(f"{IN_A_ROW} in {left}/") for line in found_in(tmp_path, (IN_A_ROW,), own=own)}
    assert found >= {"run.log", "rows.parquet, opened", "log.gz, opened", "model.npz, a", "runs.db, opened"}
    assert not any(line.startswith(str(own)) for line in found)


def test_only_copies_of_the_users_files_may_hold_them_and_only_in_their_place(tmp_path):
    own, copies, elsewhere = (tmp_path / name for name in ("own", "copies", "elsewhere"))
    for folder in (own, copies, elsewhere):
        folder.mkdir()
        (folder / "codes.csv").write_text(f"q,{IN_A_ROW}\n")
    # A note beside the copy, and a copy that is none any more.
    (copies / "fetched.json").write_text(IN_A_ROW)
    (copies / "other.csv").write_text(f"q,{IN_A_ROW}\nq,a\n")
    (tmp_path / "the-last-of-all").write_text(IN_A_ROW)
    found = found_in(tmp_path, (IN_A_ROW,), own, copies)
    places = ("copies/fetched.json", "copies/other.csv", "elsewhere/codes.csv", "the-last-of-all")
    assert found == [f"{IN_A_ROW} in {tmp_path / place}" for place in places]
