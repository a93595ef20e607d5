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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from phi3_assets.core.files import hash_file, hash_files
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
    files = blocks(ctx.inputs["raw_dataset"] / RECORDS)
    folders = _make_all(ctx, cache, [(hashed.result()[block.name].sha256, block) for block in files])
    made = list(islice(folders, len(files)))
    pieces = [piece for piece, _ in made]
    with ThreadPoolExecutor(1) as aside:
        written = aside.submit(_write_train, pieces, ctx)
        tests = [items for items, _ in folders]
    joined = written.result()
    DirectoryCache(ctx.cache / "formatted_corpus").prune()
    cache.prune()
    stats, tokenised = Stats(), 0
    for piece, is_new in made:
        of_piece = Stats.load((piece / "stats.json").read_text(encoding="utf-8"))
        stats.add(of_piece)
        tokenised += of_piece.rows_tokenised if is_new else 0
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


def _make_all(ctx: StepContext, cache: DirectoryCache, files: list[tuple[str, Path]]) -> Iterator[tuple[Path, bool]]:
    """The piece of each block, of which hash and path are given, and then the items of each part of the test set.

    All by the same processes: for either alone they and the tokenizer would be started once more.

    Yields:
        A folder in the cache, and whether it is new there.
    """
    _known_rows.cache_clear()  # of an earlier run in this process
    parts = list(test_parts(ctx.inputs["raw_dataset"] / TEST_SET))
    known = cache.get_all([*(key for key, _ in files), *(part.key for part in parts)])
    made_of = (cache.root, ctx.inputs["base_model"], canonical_json(dict(ctx.params)))
    calls: list[tuple[object, ...]] = [(_make, *file, *made_of) for file in files]
    calls += [(_make_test_part, part, *made_of) for part in parts]
    sizes = [*(block.stat().st_size for _, block in files), *(len(part.content) for part in parts)]
    missing = [which for which, folder in enumerate(known) if folder is None]
    new = side_by_side(_call, [calls[which] for which in missing], sum(sizes[which] for which in missing))
    for done, folder in enumerate(known):
        yield folder or next(new), folder is None
        ctx.progress(fraction=(done + 1) / (len(calls) + 1))


def _call(make: Callable[..., Path], *arguments: object) -> Path:
    return make(*arguments)


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
