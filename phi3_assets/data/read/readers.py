"""From a file to its rows, as they stand: no judgement of their content, but every row that cannot be read is named.

A reader yields `Row`s in the order of the file and never holds more than a few thousand of them. What makes the rest
of a file unreadable (a truncated parquet, broken gzip) ends it with `FileDamage`; the rows before it are kept.
"""

import gzip
import zlib
from collections.abc import Iterator

from phi3_assets.data.read.columns import read_arrow, read_parquet
from phi3_assets.data.read.csv_rows import read_csv
from phi3_assets.data.read.json_rows import read_json, read_jsonl
from phi3_assets.data.read.rows import FileDamage, FileFacts, Rank, Row, any_object
from phi3_assets.data.read.sheets import read_sheets
from phi3_assets.data.read.sources import SourceFile

_READERS = {
    "csv": read_csv,
    "json": read_json,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
    "arrow": read_arrow,
    **dict.fromkeys(("xlsx", "xls", "xlsb", "ods"), read_sheets),
}


def read_rows(file: SourceFile, rank: Rank = any_object) -> tuple[FileFacts, Iterator[Row]]:
    """Open a file by its format; `Row.value` is a dict, or whatever else stands in a JSON file.

    `rank` says of a value how much it looks like a row, where a file holds other things too.

    The iterator raises `FileDamage` where the rest of the file cannot be read.
    """
    facts = FileFacts(file.format, compression="gzip" if file.gzip else None)
    return facts, _translate(file, facts, rank)


def _translate(file: SourceFile, facts: FileFacts, rank: Rank) -> Iterator[Row]:
    """Errors of decompression and of the operating system can come up at any row, and before the first."""
    try:
        yield from _READERS[file.format](file, facts, rank)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FileDamage("broken_gzip", f"the gzip stream is damaged or cut short ({type(error).__name__})") from None
    except OSError as error:
        raise FileDamage("unreadable", f"{error.strerror or type(error).__name__}") from None
