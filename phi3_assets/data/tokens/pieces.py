"""A piece: the training rows of one block of records, tokenised. Made once per content and kept in the cache.

A piece holds `train.parquet`, `quarantine.jsonl`, `stats.json`, and for each of its rows the beginning of its id
(`id.bin`), hashes of its prompts (`prompt.bin`) and flags (`flags.bin`). Rows that some other piece holds already are
taken from there, so an edited file costs the tokenising of its new rows only.
"""

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from phi3_assets.data.cache import DirectoryCache
from phi3_assets.data.fingerprints import positions
from phi3_assets.data.testset.frozen import prefix_hashes, suffix_hashes
from phi3_assets.data.tokens.corpus_rows import CORPUS_SCHEMA, TOKENS_SCHEMA, CorpusRows, join_rows, open_corpus
from phi3_assets.data.tokens.formatting import Formatting, format_records

_ROW_GROUP = 16_384


class KnownRows:
    """Tokenised rows of all pieces in the cache, found by id; read when first asked."""

    def __init__(self, cache: DirectoryCache) -> None:
        self._cache = cache

    @cached_property
    def _pieces(self) -> list[Path]:
        folders = self._cache.get_all(list(self._cache), used=False)
        return [folder for folder in folders if folder and (folder / "id.bin").exists()]

    @cached_property
    def _index(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Ids of the rows, and where each piece's rows start among them."""
        ids = [np.fromfile(folder / "id.bin", np.uint64) for folder in self._pieces]
        return np.concatenate([*ids, np.zeros(0, np.uint64)]), np.cumsum([0, *map(len, ids)])

    def find(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Number of each row, -1 where there is none."""
        return positions(ids, self._index[0])

    def take(self, numbers: NDArray[np.int64]) -> CorpusRows:
        """The rows of these numbers, in this order."""
        _, starts = self._index
        parts = np.searchsorted(starts, numbers, side="right") - 1
        taken: list[CorpusRows] = []
        places = [np.zeros(0, np.int64)]
        for part in np.unique(parts):
            where = np.flatnonzero(parts == part)
            taken.append(read_piece(self._pieces[part]).take(numbers[where] - starts[part]))
            places.append(where)
        return join_rows(taken).take(np.argsort(np.concatenate(places)))


def read_piece(folder: Path) -> CorpusRows:
    """The rows of a piece."""
    return CorpusRows(
        pq.read_table(folder / "train.parquet", columns=TOKENS_SCHEMA.names),
        np.fromfile(folder / "prompt.bin", np.uint64).reshape(-1, 2),
        np.fromfile(folder / "flags.bin", np.uint8),
    )


def make_piece(block: Path, formatting: Formatting, known: KnownRows, folder: Path) -> None:
    """Tokenise the training rows of a block that are not known yet; leave the piece in `folder`.

    Raises:
        UserError: A row is too long and `over_long` is "fail", or the template refuses a conversation.
    """
    records = pq.read_table(block, filters=[("split", "=", "train")])
    numbers = known.find(prefix_hashes(records["id"]))
    new = np.flatnonzero(numbers < 0)
    fresh, kept, refused = format_records(records.take(pa.array(new)), formatting)
    old = np.flatnonzero(numbers >= 0)
    rows = join_rows([known.take(numbers[old]), fresh])
    places = np.concatenate([old, new[kept]])
    rows = rows.take(np.argsort(places, kind="stable"))
    # From the records and not from a known row: the same text may have come into another group since.
    groups = suffix_hashes(records["group"])[np.sort(places)]
    table = rows.table.append_column(CORPUS_SCHEMA.field("group"), pa.array(groups))
    stats = rows.stats(formatting.model.begin_id)
    stats.rows_tokenised = len(new)
    stats.quarantined.update(entry["reason"] for entry in refused)
    with open_corpus(folder / "train.parquet") as train:
        # In one chunk: the pages of a file must not tell which rows were known and which are new.
        train.write_table(table.combine_chunks(), row_group_size=_ROW_GROUP)
    prefix_hashes(rows.table["id"]).tofile(folder / "id.bin")
    rows.prompts.tofile(folder / "prompt.bin")
    rows.flags.tofile(folder / "flags.bin")
    (folder / "quarantine.jsonl").write_text(
        "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in refused), encoding="utf-8"
    )
    (folder / "stats.json").write_text(stats.dump(), encoding="utf-8")
