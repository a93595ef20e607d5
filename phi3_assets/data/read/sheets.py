"""Reads spreadsheets (.xlsx): every sheet, the values that formulas had when it was saved."""

import datetime
import zipfile
from collections.abc import Iterator
from typing import Any

from phi3_assets.data.read.limits import MAX_SHEET_TEXT_BYTES, MAX_UNPACKED_BYTES
from phi3_assets.data.read.rows import FileDamage, FileFacts, Rank, Row, Section, open_bytes
from phi3_assets.data.read.sources import SourceFile
from phi3_assets.data.read.table import LOOKED_AT, column_names, find_header, row_of

_ERRORS = {"#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NULL!", "#NUM!", "#SPILL!", "#CALC!"}


def read_sheets(file: SourceFile, facts: FileFacts, rank: Rank) -> Iterator[Row]:
    """Rows of every sheet that has the columns of the dataset, as dicts by the names in its header.

    If no sheet has them, those of the first are read, so that its columns can be named. Row numbers go on from sheet to
    sheet, and within one as the sheet's own do; blank rows are none.
    """
    from openpyxl import load_workbook  # type: ignore[import-untyped]
    from openpyxl.utils.exceptions import InvalidFileException  # type: ignore[import-untyped]

    with open_bytes(file) as content:
        try:
            _refuse_too_large(content)
            book = load_workbook(content, read_only=True, data_only=True)
            found = [(sheet, *_header(sheet, rank)) for sheet in book.worksheets]
            wanted = [each for each in found if each[2]] or [each for each in found if each[3]][:1]
            if not wanted:
                raise FileDamage("no_rows", "it holds no sheet with rows")
            for sheet, _, _, names in found:
                if all(sheet is not each[0] for each in wanted) and names:
                    facts.left_out[sheet.title] = [str(name) for name in names if name is not None][:8]
            end = 0
            for sheet, line, _, header in wanted:
                facts.sections.append(Section(sheet.title, "sheet", end + 1, line + 2))
                for row in _rows(sheet, line, column_names(header), end):
                    end = row.number
                    yield row
        except (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, SyntaxError, EOFError) as error:
            raise FileDamage("broken_xlsx", f"it is no whole spreadsheet ({type(error).__name__})") from None


def _refuse_too_large(content: Any) -> None:
    with zipfile.ZipFile(content) as packed:
        entries = packed.infolist()
        texts = sum(entry.file_size for entry in entries if entry.filename.endswith("sharedStrings.xml"))
        if texts > MAX_SHEET_TEXT_BYTES or sum(entry.file_size for entry in entries) > MAX_UNPACKED_BYTES:
            raise FileDamage("too_large", "unpacked it is larger than a spreadsheet may be; save it as csv")
    content.seek(0)


def _header(sheet: Any, rank: Rank) -> tuple[int, int, list[Any]]:
    """Line of the header from 0, its rank, and its fields; no fields for an empty sheet."""
    sheet.reset_dimensions()  # what some programs write there is wrong, and rows beyond would be lost
    lines = [list(fields) for fields in sheet.iter_rows(max_row=LOOKED_AT, values_only=True)]
    place = find_header(lines, rank)
    while place < len(lines) and not any(field is not None for field in lines[place]):
        place += 1
    if place >= len(lines):
        return 0, 0, []
    header = lines[place]
    return place, rank({str(name).strip(): "x" for name in header if name is not None}), header


def _rows(sheet: Any, line: int, names: list[str], before: int) -> Iterator[Row]:
    for number, fields in enumerate(sheet.iter_rows(min_row=line + 2, values_only=True), before + 1):
        if not any(field is not None and field != "" for field in fields):
            continue
        if any(field in _ERRORS for field in fields if isinstance(field, str)):
            yield Row(number, None, "spreadsheet_error")
            continue
        values = [_plain(field) for field in fields]
        values += [None] * (len(names) - len(values))  # cells behind the last filled one are not written
        yield row_of(number, names, values)


def _plain(value: Any) -> Any:
    """Dates as ISO 8601, without a time where there is none."""
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ") if value.time() != datetime.time() else value.date().isoformat()
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else value
