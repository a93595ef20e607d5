"""What ops hand to one another: small JSON records, kept by the store."""

from typing import Any

import dagster as dg

from phi3_assets.core.errors import UserError
from phi3_assets.resources.store import ArtifactStore


class PointerIOManager(dg.ConfigurableIOManager):
    """Hands small JSON records from op to op through the store; never a model.

    A pointer is kept under the run that wrote it, so that two runs side by side do not see each other's; an asset
    materialised alone reads what its upstream pointed to last.
    """

    store: dg.ResourceDependency[ArtifactStore]

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Keep an op's output under its run, and an asset's also as the latest."""
        self.store.save_pointer("/".join(["runs", *context.get_identifier()]), obj)
        if context.has_asset_key:
            self.store.save_pointer(f"latest/{context.asset_key.to_user_string()}", obj)

    def load_input(self, context: dg.InputContext) -> Any:
        """Read what this run's upstream wrote, else the asset's latest.

        Raises:
            UserError: The upstream asset was never materialised.
        """
        upstream = context.upstream_output
        assert upstream is not None
        value = self.store.load_pointer("/".join(["runs", *upstream.get_identifier()]))
        if value is None and context.has_asset_key:
            value = self.store.load_pointer(f"latest/{context.asset_key.to_user_string()}")
        if value is None:
            name = context.asset_key.to_user_string() if context.has_asset_key else "/".join(upstream.get_identifier())
            raise UserError(f"{name} has not been materialised in this home. Materialise it first, or select it too.")
        return value
