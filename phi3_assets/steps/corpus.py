"""Step formatted_corpus: from canonical records to what is trained on and what is tested with.

Leaves:
- `train.parquet`: a directory of parquet files, in the order of their names, that `pyarrow.parquet.read_table` reads as
  one table: id, input_ids, labels (-100 where nothing is learnt), length, group (a hash)
- `test.jsonl`: id, messages of the prompt, question, answer, prompt_ids, answer_ids, group (a hash), source (its file);
  the two id lists together are the conversation up to and with its last end token
- `quarantine.jsonl`: file, row and reason of the records left out, never their text
"""

import json
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from phi3_assets.core.files import FileEntry, hash_file, hash_files
from phi3_assets.core.step import StepContext, canonical_json, installed_versions, sha256_of
from phi3_assets.data.cache import DirectoryCache, copy_out
from phi3_assets.data.fingerprints import among
from phi3_assets.data.records import RECORDS, blocks
from phi3_assets.data.side_by_side import side_by_side
from phi3_assets.data.testset import TEST_SET
from phi3_assets.data.tokens.chat_template import load_chat_template
from phi3_assets.data.tokens.corpus_report import corpus_metrics, refuse_if_empty
from phi3_assets.data.tokens.corpus_rows import Stats
from phi3_assets.data.tokens.formatting import Formatting
from phi3_assets.data.tokens.items import FACTS, TestPart, make_test_items, test_parts
from phi3_assets.data.tokens.join import Joined, join_corpus
from phi3_assets.data.tokens.model_tokens import load_model_tokens
from phi3_assets.data.tokens.pieces import KnownRows, make_piece
from phi3_assets.data.tokens.rendering import Renderer, chat_renderer, template_renderer
from phi3_assets.steps import FORMATTED_CORPUS

TRAIN = "train.parquet"
TESTS = "test.jsonl"
_COPIED_BYTES = 1 << 20


def format_corpus(ctx: StepContext) -> dict[str, Any]:
    """Render, tokenise and mask every record; see the module for what is left in the output.

    Raises:
        UserError: The base model's tokenizer or template cannot be used, a row is too long where the recipe says
            "fail", or no row is left on one side of the split.
    """
    with ThreadPoolExecutor(1) as aside:
        hashed = aside.submit(hash_files, ctx.inputs["raw_dataset"] / RECORDS)
        formatting = _formatting(ctx.inputs["base_model"], canonical_json(dict(ctx.params)))
    cache = DirectoryCache(ctx.cache / "formatted_corpus" / _cache_name(ctx), ctx.log)
    pieces, tokenised = _make_pieces(ctx, cache, hashed.result())
    with ThreadPoolExecutor(1) as aside:
        written = aside.submit(_write_train, pieces, ctx)
        tests = _make_tests(ctx, cache)
    joined = written.result()
    DirectoryCache(ctx.cache / "formatted_corpus").prune()
    cache.prune()
    stats = Stats()
    for piece in pieces:
        stats.add(Stats.load((piece / "stats.json").read_text(encoding="utf-8")))
    _concatenate([folder / TESTS for folder in tests], ctx.output / TESTS)
    _concatenate([folder / "quarantine.jsonl" for folder in (*pieces, *tests)], ctx.output / "quarantine.jsonl")
    test_facts = dict.fromkeys(FACTS, 0)
    for folder in tests:
        for name, count in json.loads((folder / "facts.json").read_text(encoding="utf-8")).items():
            test_facts[name] += count
    refuse_if_empty(stats, test_facts, ctx.params)
    overlap = _overlap(pieces, tests)
    first_row = _first_row(ctx.output / TRAIN)
    return corpus_metrics(stats, test_facts, formatting.model, overlap, joined, first_row, tokenised).to_dict()


@lru_cache(maxsize=1)
def _formatting(base_model: Path, params_json: str) -> Formatting:
    params = json.loads(params_json)
    model = load_model_tokens(base_model)
    end_text = next(iter(model.end_texts), "")
    renderer: Renderer
    if params["text_template"]:
        columns = params["question_column"], params["answer_column"]
        renderer = template_renderer(params["text_template"], *columns, end_text)
    else:
        renderer = chat_renderer(load_chat_template(base_model), end_text)
    return Formatting(
        model=model,
        renderer=renderer,
        system=params["system_prompt"],
        supervise=params["supervise"],
        over_long=params["over_long"],
        # Joined rows are cut into equal sequences, so none is too long.
        max_seq_len=None if params["strategy"] == "join" else params["max_seq_len"],
    )


def _cache_name(ctx: StepContext) -> str:
    """All that a row's tokens depend on beside the row."""
    model = ctx.inputs["base_model"]
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json", "config.json")
    files = {name: hash_file(model / name).sha256 for name in names if (model / name).is_file()}
    made_by = [FORMATTED_CORPUS.code_version, installed_versions(FORMATTED_CORPUS.libraries)]
    return sha256_of([files, dict(ctx.params), made_by])


def _make_pieces(ctx: StepContext, cache: DirectoryCache, hashed: Mapping[str, FileEntry]) -> tuple[list[Path], int]:
    """The pieces of all blocks, of which the hashes are given, and how many rows had to be tokenised for them."""
    _known_rows.cache_clear()  # of an earlier run in this process
    files = blocks(ctx.inputs["raw_dataset"] / RECORDS)
    keys = [hashed[block.name].sha256 for block in files]
    known = cache.get_all(keys)
    made_of = (cache.root, ctx.inputs["base_model"], canonical_json(dict(ctx.params)))
    missing = [(key, block, *made_of) for key, block, piece in zip(keys, files, known, strict=True) if piece is None]
    new = side_by_side(_make, missing, sum(block.stat().st_size for _, block, *_ in missing))
    pieces: list[Path] = []
    tokenised = 0
    for done, piece in enumerate(known):
        if piece is None:
            piece = next(new)
            tokenised += Stats.load((piece / "stats.json").read_text(encoding="utf-8")).rows_tokenised
        pieces.append(piece)
        ctx.progress(fraction=(done + 1) / (len(files) + 1))
    return pieces, tokenised


def _make(key: str, block: Path, root: Path, base_model: Path, params_json: str) -> Path:
    formatting = _formatting(base_model, params_json)
    return DirectoryCache(root).put(key, partial(make_piece, block, formatting, _known_rows(root)))


@lru_cache(maxsize=1)
def _known_rows(root: Path) -> KnownRows:
    return KnownRows(DirectoryCache(root))


def _write_train(pieces: list[Path], ctx: StepContext) -> Joined | None:
    """What is trained on: the pieces as they are, or joined."""
    train = ctx.output / TRAIN
    train.mkdir()
    if ctx.params["strategy"] == "join":
        return join_corpus(pieces, ctx.params["max_seq_len"], train)
    copy_out([(piece / "train.parquet", train / f"{number:06d}.parquet") for number, piece in enumerate(pieces)])
    return None


def _make_tests(ctx: StepContext, cache: DirectoryCache) -> list[Path]:
    """The items of the test set, a folder for each part of it."""
    parts = list(test_parts(ctx.inputs["raw_dataset"] / TEST_SET))
    known = cache.get_all([part.key for part in parts])
    made_of = (cache.root, ctx.inputs["base_model"], canonical_json(dict(ctx.params)))
    missing = [(part, *made_of) for part, items in zip(parts, known, strict=True) if items is None]
    new = side_by_side(_make_test_part, missing, sum(len(part.content) for part, *_ in missing))
    return [items or next(new) for items in known]


def _make_test_part(part: TestPart, root: Path, base_model: Path, params_json: str) -> Path:
    formatting = _formatting(base_model, params_json)
    return DirectoryCache(root).put(part.key, partial(make_test_items, part, formatting))


def _overlap(pieces: list[Path], tests: list[Path]) -> int:
    """Training rows of which a prompt is, token for token, what a test asks: proved on the result, not on the split."""
    asked = np.concatenate([np.fromfile(items / "prompt.bin", np.uint64) for items in tests])
    learnt = np.concatenate([np.fromfile(piece / "prompt.bin", np.uint64) for piece in pieces])
    first, last = np.ascontiguousarray(learnt.reshape(-1, 2).T)
    found = among(last, asked)
    other = first != last
    found[other] |= among(first[other], asked)
    return int(found.sum())


def _first_row(folder: Path) -> pa.Table | None:
    """One training row, for the preview of the mask."""
    for path in sorted(folder.glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1):
            return pa.Table.from_batches([batch])
    return None


def _concatenate(sources: list[Path], target: Path) -> None:
    with target.open("wb") as out:
        for source in sources:
            with source.open("rb") as content:
                shutil.copyfileobj(content, out, _COPIED_BYTES)
