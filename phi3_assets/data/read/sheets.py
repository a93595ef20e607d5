"""Reads spreadsheets (.xlsx, .xls, .xlsb, .ods): every sheet, the values that formulas had when it was saved."""

import datetime
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from phi3_assets.data.read.limits import MAX_SHEET_TEXT_BYTES, MAX_UNPACKED_BYTES
from phi3_assets.data.read.rows import FileDamage, FileFacts, Rank, Row, Section, open_bytes
from phi3_assets.data.read.sources import SourceFile
from phi3_assets.data.read.table import LOOKED_AT, column_names, find_header, row_of

_TOO_LARGE = "unpacked it is larger than a spreadsheet may be; save it as csv"
_TEXTS = ("sharedStrings.xml", "sharedStrings.bin", "content.xml")
_LOOKED_AT_BYTES = 64
_ERRORS = {"#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NULL!", "#NUM!", "#SPILL!", "#CALC!"}


class _Sheet(NamedTuple):
    """A sheet: its title, and what yields its lines from one to another, counted from 1; None: to the last."""

    title: str
    lines: Callable[[int, int | None], Iterable[Sequence[Any]]]


def read_sheets(file: SourceFile, facts: FileFacts, rank: Rank) -> Iterator[Row]:
    """Rows of every sheet that has the columns of the dataset, as dicts by the names in its header.

    If no sheet has them, those of the first are read, so that its columns can be named. Row numbers go on from sheet to
    sheet, and within one as the sheet's own do; blank rows are none.
    """
    with open_bytes(file) as content:
        found = [(sheet, *_header(sheet, rank)) for sheet in _sheets(content, file.format)]
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


def _sheets(content: Any, kind: str) -> list[_Sheet]:
    """The sheets of a book, in their order."""
    if kind == "xlsx":
        _refuse_too_large(content, kind)
        return _of_today(content)
    if kind == "xls":
        if content.seek(0, io.SEEK_END) > MAX_SHEET_TEXT_BYTES:
            raise FileDamage("too_large", _TOO_LARGE)
        content.seek(0)
    else:
        _refuse_too_large(content, kind)
    return _of_others(content, kind)


def _of_today(content: Any) -> list[_Sheet]:
    """Sheets of .xlsx, read from the disk row by row."""
    from openpyxl import load_workbook  # type: ignore[import-untyped]
    from openpyxl.utils.exceptions import InvalidFileException  # type: ignore[import-untyped]

    errors = (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, SyntaxError, EOFError)
    try:
        book = load_workbook(content, read_only=True, data_only=True)
    except errors as error:
        raise _damage("xlsx", error) from None

    def lines(sheet: Any, first: int, last: int | None) -> Iterator[Sequence[Any]]:
        sheet.reset_dimensions()  # what some programs write there is wrong, and rows beyond would be lost
        try:
            yield from sheet.iter_rows(min_row=first, max_row=last, values_only=True)
        except errors as error:
            raise _damage("xlsx", error) from None

    return [_Sheet(sheet.title, partial(lines, sheet)) for sheet in book.worksheets]


def _of_others(content: Any, kind: str) -> list[_Sheet]:
    """Sheets of .xls, .xlsb and .ods; one at a time stands in memory as a whole."""
    from python_calamine import CalamineWorkbook, SheetTypeEnum

    def lines(name: str, first: int, last: int | None) -> Iterator[Sequence[Any]]:
        cells = _read(kind, lambda: book.get_sheet_by_name(name).to_python(skip_empty_area=False, nrows=last))
        for fields in cells[first - 1 :]:
            yield [None if field == "" else _whole(field) for field in fields]

    if content.read(_LOOKED_AT_BYTES).lstrip()[:1] == b"<":
        raise FileDamage(f"broken_{kind}", "it is HTML or XML: open it in a spreadsheet program and save it as .xlsx")
    content.seek(0)
    book = _read(kind, lambda: CalamineWorkbook.from_filelike(content))
    sheets = [sheet.name for sheet in book.sheets_metadata if sheet.typ == SheetTypeEnum.WorkSheet]
    return [_Sheet(name, partial(lines, name)) for name in sheets]


def _read(kind: str, read: Callable[[], Any]) -> Any:
    """What `read` returns.

    Raises:
        FileDamage: The book is damaged, or has a password.
    """
    from python_calamine import CalamineError, PasswordError

    try:
        return read()
    except PasswordError:
        raise FileDamage(f"broken_{kind}", "it has a password: save it without") from None
    except CalamineError as error:
        raise _damage(kind, error) from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # Rust's, for sectors beyond the end; it cannot be imported
            raise
        raise _damage(kind, error) from None


def _whole(field: Any) -> Any:
    """These formats keep every number with a fraction."""
    return int(field) if isinstance(field, float) and field.is_integer() else field


def _damage(kind: str, error: BaseException) -> FileDamage:
    return FileDamage(f"broken_{kind}", f"it is no whole spreadsheet ({type(error).__name__})")


def _refuse_too_large(content: Any, kind: str) -> None:
    try:
        with zipfile.ZipFile(content) as packed:
            entries = packed.infolist()
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise _damage(kind, error) from None
    texts = sum(entry.file_size for entry in entries if entry.filename.endswith(_TEXTS))
    if texts > MAX_SHEET_TEXT_BYTES or sum(entry.file_size for entry in entries) > MAX_UNPACKED_BYTES:
        raise FileDamage("too_large", _TOO_LARGE)
    content.seek(0)


def _header(sheet: _Sheet, rank: Rank) -> tuple[int, int, list[Any]]:
    """Line of the header from 0, its rank, and its fields; no fields for an empty sheet."""
    lines = [list(fields) for fields in sheet.lines(1, LOOKED_AT)]
    place = find_header(lines, rank)
    while place < len(lines) and not any(field is not None for field in lines[place]):
        place += 1
    if place >= len(lines):
        return 0, 0, []
    header = lines[place]
    return place, rank({str(name).strip(): "x" for name in header if name is not None}), header


def _rows(sheet: _Sheet, line: int, names: list[str], before: int) -> Iterator[Row]:
    for number, fields in enumerate(sheet.lines(line + 2, None), before + 1):
        if not any(field is not None and field != "" for field in fields):
            continue
        if any(field in _ERRORS for field in fields if isinstance(field, str)):
            yield Row(number, None, "spreadsheet_error")
            continue
        values = [_plain(field) for field in fields]
        values += [None] * (len(names) - len(values))  # cells behind the last filled one are not written
        yield row_of(number, names, values)


def _plain(value: Any) -> Any:
    """Dates as ISO 8601, without a time where there is none; durations in hours, minutes and seconds."""
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ") if value.time() != datetime.time() else value.date().isoformat()
    if isinstance(value, datetime.timedelta):
        return str(value)
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else value
