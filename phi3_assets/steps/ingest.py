"""Step raw_dataset: from a folder of files to canonical records, with every row accounted for.

Leaves, equal bytes for equal input (no time, no absolute path):
- `records.parquet`: the kept records (see `data.records`)
- `test_set.parquet`: the frozen test set, or the one proposed if none is frozen yet (see `data.testset`)
- `quarantine.jsonl`: file, row number and reason code of every row that was not kept
- `conflicts.jsonl`: for each question with several answers, the file and row of each
- `near_duplicates.jsonl`: file and row of each near duplicate, and of what it resembles

None of the JSON files holds text of the user's.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from phi3_assets.core.errors import UserError
from phi3_assets.core.files import hash_file, hash_files
from phi3_assets.core.step import StepContext, installed_versions, sha256_of
from phi3_assets.data.cache import DirectoryCache, copy_out
from phi3_assets.data.fingerprints import among
from phi3_assets.data.judge.frozen_rows import FrozenRows, frozen_rows
from phi3_assets.data.judge.merge import KEPT, REASONS, TEST, MergeSettings, Verdict, judge
from phi3_assets.data.judge.part_arrays import Parts
from phi3_assets.data.judge.part_store import LAYOUT, PartSettings
from phi3_assets.data.judge.parts import make_part
from phi3_assets.data.judge.report import dataset_metrics, refuse_if_useless
from phi3_assets.data.read.sources import SourceFile, list_files
from phi3_assets.data.records import RECORDS, SPLITS, block_path, open_block
from phi3_assets.data.side_by_side import side_by_side
from phi3_assets.data.testset import TEST_SET
from phi3_assets.data.testset.frozen import (
    TEST_SCHEMA,
    check,
    load_test_sets,
    settings_metadata,
    write_test_set,
)
from phi3_assets.steps import RAW_DATASET


@dataclass(frozen=True)
class PartOf:
    """A file, the SHA-256 of its content, its part and what the part says of it."""

    file: SourceFile
    sha256: str
    folder: Path
    facts: dict[str, Any]
    reused: bool


def ingest(ctx: StepContext) -> dict[str, Any]:
    """Read the folder `datasets` and judge its rows; see the module for what is left in the output.

    `test_sets`, an input that may be missing, is the folder of frozen test sets.

    Raises:
        UserError: No folder, no data file, no usable row, no row on one side of the split, or personal data or secrets
            where the recipe says "block".
    """
    files, others = list_files(ctx.inputs["datasets"])
    test_sets = load_test_sets(ctx.inputs.get("test_sets"))
    with ThreadPoolExecutor(2) as aside:
        thawed = aside.submit(frozen_rows, test_sets, _part_settings(ctx))
        checked = aside.submit(check, test_sets)
        parts = _read(files, ctx)
    frozen = thawed.result()
    checked.result()
    parts, notes = _without_notes(parts)
    _refuse_blocked(parts, ctx)
    if frozen.withheld:
        ctx.log(f"Test rows that the recipe's policies take out of the test set: {dict(frozen.withheld)}")
    arrays = Parts([part.folder for part in parts], [part.facts["rows_kept"] for part in parts])
    frozen.refuse_unknown_groups(arrays.load("asked"), _part_settings(ctx))
    settings = MergeSettings(**{name: ctx.params[name] for name in MergeSettings.__dataclass_fields__})
    verdict = judge(arrays, frozen, settings)
    test_set_rows = _write_records(parts, arrays, verdict, frozen, ctx)
    _write_lists(parts, arrays, verdict, ctx.output)
    metrics = dataset_metrics(
        [(part.facts | {"file": part.file.name, "sha256": part.sha256}) for part in parts],
        verdict,
        frozen,
        test_set_rows,
        reused=[part.reused for part in parts],
        others=sorted([*others, *notes]),
    )
    refuse_if_useless(metrics, ctx.params, ctx.inputs["datasets"])
    return metrics.to_dict()


def _read(files: list[SourceFile], ctx: StepContext) -> list[PartOf]:
    """The parts of all files, from the cache where a file was read before."""
    root = ctx.cache / "raw_dataset"
    cache = DirectoryCache(root, ctx.log)
    settings = _part_settings(ctx)
    made_by = [RAW_DATASET.code_version, LAYOUT, installed_versions(RAW_DATASET.libraries), asdict(settings)]
    hashed = hash_files(ctx.inputs["datasets"], [file.name for file in files])
    keys = [sha256_of([file.name, file.format, file.gzip, hashed[file.name].sha256, made_by]) for file in files]
    known = cache.get_all(keys)
    missing = [
        (root, key, file, hashed[file.name].sha256, settings)
        for key, file, part in zip(keys, files, known, strict=True)
        if part is None
    ]
    new = side_by_side(_make, missing, sum(file.path.stat().st_size for _, _, file, *_ in missing))
    parts: list[PartOf] = []
    for done, (file, part) in enumerate(zip(files, known, strict=True)):
        folder = part or next(new)
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        if facts["damage"]:
            ctx.log(f"{file.name}: {facts['damage'][1]}; the {facts['rows_kept']} rows before that are kept")
        parts.append(PartOf(file, hashed[file.name].sha256, folder, facts, part is not None))
        ctx.progress(fraction=(done + 1) / len(files), rows_read=sum(part.facts["rows_read"] for part in parts))
    cache.prune()
    return parts


def _without_notes(parts: list[PartOf]) -> tuple[list[PartOf], list[str]]:
    """What is read, and the names of JSON files that say something about it: objects without a row of any known shape.

    If nothing else has rows, they are data that is not understood.
    """
    if not any(part.facts["rows_kept"] for part in parts):
        return parts, []
    is_note = [part.facts["is_note"] and not part.facts["rows_kept"] for part in parts]
    return (
        [part for part, note in zip(parts, is_note, strict=True) if not note],
        [part.file.name for part, note in zip(parts, is_note, strict=True) if note],
    )


def _part_settings(ctx: StepContext) -> PartSettings:
    return PartSettings(**{name: ctx.params[name] for name in PartSettings.__dataclass_fields__})


def _make(root: Path, key: str, file: SourceFile, sha256: str, settings: PartSettings) -> Path:
    def make(folder: Path) -> None:
        make_part(file, settings, folder)
        # A part under the key of other content would be taken for it for ever.
        if hash_file(file.path).sha256 != sha256:
            raise UserError(f"{file.name} was changed while it was read. Run it again.")

    return DirectoryCache(root).put(key, make)


def _refuse_blocked(parts: list[PartOf], ctx: StepContext) -> None:
    for policy, key, what in (
        ("personal_data", "rows_with_personal_data", "personal data"),
        ("secrets", "rows_with_secrets", "secrets"),
    ):
        where = [f"{part.file.name} ({part.facts[key]} rows)" for part in parts if part.facts[key]]
        if ctx.params[policy] == "block" and where:
            kinds = sum((Counter(part.facts[policy]) for part in parts), Counter())
            found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
            raise UserError(
                f"The data holds {what}, and the recipe says {policy}: block. Found: {found}; in "
                f"{', '.join(where[:8])}. "
                f"Remove it from the files, or set {policy} to redact, quarantine or report."
            )


def _write_records(parts: list[PartOf], arrays: Parts, verdict: Verdict, frozen: FrozenRows, ctx: StepContext) -> int:
    """Write the kept records and the test set; blocks in which nothing was decided otherwise are copied as they are.

    Returns:
        Records of the test set.
    """
    output = ctx.output
    (output / RECORDS).mkdir()
    asked = arrays.load("asked")
    is_new_test = verdict.split == TEST
    if ctx.params["test_set"] == "grow" or not frozen.has_present:
        is_new_test &= ~among(arrays.load("id"), frozen.ids[: frozen.present_rows])
    else:
        is_new_test[:] = False
    proposed: list[pa.Table] = []
    copies: list[tuple[Path, Path]] = []
    number = 0
    for which, (part, start) in enumerate(zip(parts, arrays.starts.tolist(), strict=True)):
        sides = np.fromfile(part.folder / "side.bin", np.uint8)
        for at, (begin, end) in enumerate(zip(*map(np.ndarray.tolist, arrays.blocks(which)), strict=True)):
            span = slice(start + begin, start + end)
            block = block_path(part.folder, at)
            kept, split = verdict.reason[span] == KEPT, verdict.split[span]
            if not kept.any():
                continue
            target = block_path(output / RECORDS, number)
            number += 1
            unchanged = kept.all() and (split == sides[begin:end]).all()
            tests = kept & is_new_test[span]
            if unchanged:
                copies.append((block, target))
            if not unchanged or tests.any():
                table = pq.read_table(block)
                names = pa.array(np.array(SPLITS)[split].tolist())
                table = table.set_column(table.schema.get_field_index("split"), "split", names)
                if not unchanged:
                    with open_block(target) as writer:
                        writer.write_table(table.filter(pa.array(kept)))
                hashes = pa.array([f"{value:016x}{0:016x}" for value in asked[span][tests].tolist()], pa.string())
                proposed.append(table.filter(pa.array(tests)).append_column("asked", hashes))
    with ThreadPoolExecutor(1) as aside:
        copied = aside.submit(copy_out, copies)
        new = pa.concat_tables([*proposed, TEST_SCHEMA.empty_table()])
        rows = _write_test_set(frozen, new, settings_metadata(ctx.params), output / TEST_SET)
    copied.result()
    return rows


def _write_test_set(frozen: FrozenRows, new: pa.Table, metadata: dict[bytes, bytes], target: Path) -> int:
    """The frozen test set, whether or not its rows are still in the data, and what it grows by; returns its rows."""
    if frozen.has_present and frozen.changed is None and not new.num_rows:
        shutil.copyfile(frozen.files[0].path, target)
    else:
        write_test_set(target, pa.concat_tables([frozen.present_table(), new]), metadata)
    return frozen.present_rows + int(new.num_rows)


def _write_lists(parts: list[PartOf], arrays: Parts, verdict: Verdict, output: Path) -> None:
    numbers = arrays.load("row")

    def place(record: int) -> dict[str, Any]:
        if record < 0:
            return {"test_set_row": -1 - record}
        return _place(parts[arrays.part_of(record)], int(numbers[record]))

    _write_jsonl(output / "quarantine.jsonl", _quarantined(parts, arrays, verdict, numbers))
    _write_jsonl(output / "conflicts.jsonl", ({"rows": [place(record) for record in run]} for run in verdict.conflicts))
    _write_jsonl(
        output / "near_duplicates.jsonl",
        ({**place(record), "resembles": place(other)} for record, other in sorted(verdict.near.items())),
    )


def _place(part: PartOf, row: int) -> dict[str, Any]:
    """Where a row stands: file and row, and where a file has several arrays or sheets, which and the row there."""
    place: dict[str, Any] = {"file": part.file.name, "row": row}
    inside = [section for section in part.facts["sections"] if section[2] <= row]
    if inside:
        name, kind, first_row, first_line = inside[-1]
        place |= {kind: name, f"row_of_{kind}": row - first_row + first_line}
    return place


def _quarantined(parts: list[PartOf], arrays: Parts, verdict: Verdict, numbers: Any) -> Iterator[dict[str, Any]]:
    """What the parts refused and what the merge refused, in the order of the files and their rows."""
    for part, start, end in zip(parts, arrays.starts.tolist(), arrays.ends.tolist(), strict=True):
        with (part.folder / "quarantine.jsonl").open(encoding="utf-8") as lines:
            refused = [json.loads(line) for line in lines]
        for record in (start + np.flatnonzero(verdict.reason[start:end])).tolist():
            refused.append({"row": int(numbers[record]), "reason": REASONS[verdict.reason[record]]})
        if part.facts["damage"]:
            refused.append(
                {"row": part.facts["rows_read"] + 1, "reason": part.facts["damage"][0], "rest_of_file": True}
            )
        for entry in sorted(refused, key=lambda entry: entry["row"]):
            yield {**_place(part, entry.pop("row")), **entry}


def _write_jsonl(path: Path, entries: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as out:
        for entry in entries:
            out.write(json.dumps(entry, ensure_ascii=False) + "\n")
