"""The strategy 'join': all training rows as one stream of tokens, cut into sequences of equal length."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from phi3_assets.core.errors import UserError
from phi3_assets.data.tokens.corpus_rows import CORPUS_SCHEMA, open_corpus
from phi3_assets.data.tokens.model_tokens import IGNORED

_SEQUENCES_PER_FILE = 8192
Stream = NDArray[np.int32]
"""Ids and labels, shape (2, tokens)."""


@dataclass(frozen=True)
class Joined:
    """What became of the stream.

    Attributes:
        sequences: Sequences written, each of max_seq_len tokens.
        tokens_dropped: Tokens at the end that did not fill another sequence.
        sequences_masked: Sequences left out because nothing is learnt in them.
    """

    sequences: int
    tokens_dropped: int
    sequences_masked: int


def join_corpus(pieces: list[Path], length: int, folder: Path) -> Joined:
    """Join the rows of all pieces and leave sequences of `length` tokens in `folder`.

    Raises:
        UserError: There are fewer tokens than one sequence needs.
    """
    rest = np.zeros((2, 0), np.int32)
    written = masked = total = 0
    for chunk in _chunks(pieces):
        total += chunk.shape[1]
        rest = np.concatenate([rest, chunk], axis=1)
        while rest.shape[1] >= length * _SEQUENCES_PER_FILE:
            done, skipped = _write(rest[:, : length * _SEQUENCES_PER_FILE], length, written, folder)
            written, masked = written + done, masked + skipped
            rest = rest[:, length * _SEQUENCES_PER_FILE :]
    whole = rest.shape[1] // length * length
    if whole:
        done, skipped = _write(rest[:, :whole], length, written, folder)
        written, masked = written + done, masked + skipped
    if not written:
        raise UserError(
            f"strategy join gives no sequence: all training rows together have {total} tokens, one sequence needs "
            f"max_seq_len ({length}). Lower max_seq_len, add data, or set strategy to line-by-line."
        )
    return Joined(written, rest.shape[1] - whole, masked)


def _chunks(pieces: list[Path]) -> Iterator[Stream]:
    for piece in pieces:
        for batch in pq.ParquetFile(piece / "train.parquet").iter_batches(columns=["input_ids", "labels"]):
            yield np.stack([pc.list_flatten(batch[name]).to_numpy() for name in ("input_ids", "labels")])


def _hash_of(sequence: int) -> int:
    return int.from_bytes(hashlib.sha256(b"%d" % sequence).digest()[:8], "big")


def _write(stream: Stream, length: int, first: int, folder: Path) -> tuple[int, int]:
    """Write a file of sequences; returns how many, and how many were left out as nothing is learnt in them."""
    sequences = stream.reshape(2, -1, length)
    learnt = (sequences[1] != IGNORED).any(axis=1)
    sequences = sequences[:, learnt]
    count = sequences.shape[1]
    if not count:
        return 0, len(learnt)
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * length)
    columns = [
        pa.array([f"joined-{first + i}" for i in range(count)]),
        pa.ListArray.from_arrays(offsets, pa.array(sequences[0].ravel())),
        pa.ListArray.from_arrays(offsets, pa.array(sequences[1].ravel())),
        pa.array(np.full(count, length, np.int32)),
        # A sequence has parts of several groups; it is one of its own.
        pa.array([_hash_of(first + i) for i in range(count)], pa.uint64()),
    ]
    with open_corpus(folder / f"{first:012d}.parquet") as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=CORPUS_SCHEMA))
    return count, len(learnt) - count
