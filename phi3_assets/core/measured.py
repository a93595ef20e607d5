"""What a step measured, typed: JSON in the manifest, which checks, rules and the UI read back as it was written.

Each step's own dataclass stands with the science that fills it, in a module `measured`; units are in the names of its
fields, which are the keys of the manifest's `metrics`.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Self

from phi3_assets.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """JSON values by name; a field that may be None was not measured where it is."""

    def to_dict(self) -> dict[str, Any]:
        """The manifest's `metrics`, without what was not measured; `from_dict` is its inverse."""
        values = {one.name: (one.default, getattr(self, one.name)) for one in fields(self)}
        return {name: value for name, (default, value) in values.items() if value is not None or default is not None}

    @classmethod
    def from_dict(cls, metrics: Mapping[str, Any]) -> Self:
        """Read a manifest's `metrics`; what is no field of this class is passed over.

        Raises:
            UserError: A field is missing: another version of this package made the artefact.
        """
        known = {one.name: metrics[one.name] for one in fields(cls) if one.name in metrics}
        missing = [one.name for one in fields(cls) if one.default is MISSING and one.name not in known]
        if missing:
            raise UserError(
                f"The artefact's manifest has no {', '.join(missing)}: another version of this package made it. "
                "Materialise the asset again."
            )
        return cls(**known)
