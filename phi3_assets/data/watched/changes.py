"""What is different between two data versions, in words and in rows."""

from collections.abc import Mapping
from dataclasses import dataclass

from phi3_assets.data.watched.folder import File

_NAMED = 5
"""Files that are named; the others are counted."""


@dataclass(frozen=True)
class Changes:
    """From one data version to the next, file by file; a file under another name is neither new nor gone.

    Attributes:
        new: Files that were not there.
        changed: Files with other content.
        renamed: Names before and now.
        gone: Files that are not there any more.
        rows: Rows that came or went, at least one for each file with other content; None: some are not counted.
    """

    new: tuple[str, ...]
    changed: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    gone: tuple[str, ...]
    rows: int | None

    def __str__(self) -> str:
        """As in "new: b.csv; gone: a.csv"."""
        renamed = tuple(f"{before} to {now}" for before, now in self.renamed)
        kinds = {"new": self.new, "changed": self.changed, "renamed": renamed, "gone": self.gone}
        return "; ".join(f"{kind}: {_name(files)}" for kind, files in kinds.items() if files)


def find_changes(before: Mapping[str, File], now: Mapping[str, File]) -> Changes:
    """Compare the files of two data versions."""
    new = sorted(now.keys() - before.keys())
    gone = sorted(before.keys() - now.keys())
    changed = sorted(path for path in now.keys() & before.keys() if now[path].content != before[path].content)
    by_content = {before[path].content: path for path in gone}
    renamed = [(by_content.pop(now[path].content), path) for path in new if now[path].content in by_content]
    new = [path for path in new if path not in {now_ for _, now_ in renamed}]
    gone = [path for path in gone if path not in {before_ for before_, _ in renamed}]
    counts = [now[path].rows for path in new] + [before[path].rows for path in gone]
    counts += [_difference(before[path].rows, now[path].rows) for path in changed]
    rows = None if None in counts else sum(count for count in counts if count is not None)
    return Changes(tuple(new), tuple(changed), tuple(renamed), tuple(gone), rows)


def _difference(before: int | None, now: int | None) -> int | None:
    return None if before is None or now is None else max(1, abs(now - before))


def _name(files: tuple[str, ...]) -> str:
    more = len(files) - _NAMED
    return ", ".join(files[:_NAMED]) + (f" and {more} more" if more > 0 else "")
