"""Whether a recipe takes a value: asked of the recipe itself, before anybody is told that it was kept."""

from functools import cache
from typing import Annotated, Any

import pydantic

from phi3_assets.core.recipe import Recipe
from phi3_assets.olive.rule import NotTaken

_SEARCH = ("SEARCHABLE_VALUES", "DEFAULT_VALUE", "DEFAULT_SEARCH")


def taken(field: str, value: Any) -> Any:
    """The value as the field has it: 50 for 50.0, 0.0001 for "1e-4", as Olive reads them.

    Raises:
        NotTaken: The field does not take it.
    """
    if isinstance(value, str) and value in _SEARCH:
        raise NotTaken("refused", f"nothing is searched; give recipe field {field} one value")
    if isinstance(value, bool) and Recipe.model_fields[field].annotation in (int, float):
        raise NotTaken("refused", f"recipe field {field} takes a number; got {value}")
    try:
        return _adapter(field).validate_python(value)
    except pydantic.ValidationError as error:
        why = "; ".join(one["msg"] for one in error.errors()[:3])
        shown = repr(value)
        shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
        raise NotTaken("refused", f"recipe field {field} does not take {shown}: {why}") from None


@cache
def _adapter(field: str) -> pydantic.TypeAdapter[Any]:
    info = Recipe.model_fields[field]
    kind: Any = info.annotation
    for rule in info.metadata:
        kind = Annotated[kind, rule]
    return pydantic.TypeAdapter(kind, config=pydantic.ConfigDict(allow_inf_nan=False))
