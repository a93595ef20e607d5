"""What a step measured, on its way from the step through the manifest to checks and UI, under one set of names.

Each step's record is a dataclass in the room of its science: `data.judge.measured`, `data.tokens.measured`,
`evaluation.measured`. Its fields are the keys of the manifest's `metrics`.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Self

from phi3_assets.core.errors import UserError


@dataclass(frozen=True)
class Measured:
    """A dataclass whose fields are JSON values."""

    def to_dict(self) -> dict[str, Any]:
        """The manifest's `metrics`; `from_dict` is its inverse."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @classmethod
    def from_dict(cls, metrics: Mapping[str, Any]) -> Self:
        """Read a manifest's `metrics`; what a newer version measured beside is left out.

        Raises:
            UserError: An older version did not measure all of it.
        """
        known = {one.name: metrics[one.name] for one in fields(cls) if one.name in metrics}
        missing = [one.name for one in fields(cls) if one.default is MISSING and one.name not in known]
        if missing:
            raise UserError(
                f"The artefact's manifest has no {', '.join(missing)}: another version of this package made it. "
                "Materialise the asset again."
            )
        return cls(**known)
