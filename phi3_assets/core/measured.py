"""What a step measured, typed: JSON in the manifest, which checks and the UI read back as it was written.

Each step's own dataclass stands with the science that fills it; units are in the names of its fields.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What a step measured; a field that is None was not measured."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form, without what was not measured."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, metrics: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; keys of other dataclasses are passed over.

        Raises:
            TypeError: A field is missing, so this is no such step's.
        """
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in metrics.items() if name in names})
