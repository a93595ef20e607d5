"""What a value of a table or of JSON is as text; one rule for all formats."""

import datetime
from decimal import Decimal
from typing import Any

from phi3_assets.data.read.meaning import BadRow, is_empty


def text_of(value: Any, empty_ok: bool = False) -> str:
    """The stripped text of a value: numbers, booleans and dates are text; null, NaN and infinities are empty.

    Raises:
        BadRow: not_text or empty_text.
    """
    if isinstance(value, bytes):  # parquet of older writers does not say that they are text
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        if isinstance(value, Decimal):
            value = float(value)
        if value is None or (isinstance(value, float) and is_empty(value)):
            value = ""
        elif isinstance(value, bool | int | float | datetime.date | datetime.time):
            value = str(value)
        else:
            raise BadRow("not_text")
    value = value.strip()
    if not value and not empty_ok:
        raise BadRow("empty_text")
    return value  # type: ignore[no-any-return]
