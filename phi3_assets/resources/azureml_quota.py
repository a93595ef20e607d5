"""Whether the subscription's quota of cores lets a compute cluster have as many nodes as a training asks for."""

from typing import Any

from phi3_assets.azure.clients import Clients
from phi3_assets.azure.errors import WORKSPACE_ROLE, readable
from phi3_assets.core.errors import UserError


def check_quota(clients: Clients, compute: Any) -> str | None:
    """Cores in use and allowed, of the family of the compute's VM size; None where the service names none.

    Args:
        clients: The workspace.
        compute: An AmlCompute.

    Raises:
        UserError: It allows fewer than a training needs; says how to get more.
    """
    settings, location = clients.settings, clients.about.location
    with readable(f"Sizes and quota of {location}", WORKSPACE_ROLE):
        sizes = [vars(size) for size in clients.ml.compute.list_sizes(location=location)]
        usages = [vars(usage) for usage in clients.ml.compute.list_usage(location=location)]
    size = next((one for one in sizes if str(_of(one, "name")).lower() == str(compute.size).lower()), None)
    if size is None:
        return None
    low_priority = "low" in str(compute.tier).lower()
    for usage in usages:
        name = str(_of(_of(usage, "name"), "value"))
        if ("lowpriority" in name.lower()) if low_priority else (name.lower() == str(_of(size, "family")).lower()):
            break
    else:
        return None
    limit, used = _of(usage, "limit"), _of(usage, "current_value", "currentValue")
    cores = _of(size, "v_cp_us", "vCPUs") * settings.instance_count
    if limit < cores:
        raise UserError(
            f"{settings.instance_count} nodes of {compute.size} have {cores} cores, and the quota {name} of {location} "
            f"is {limit}. Ask for more in the portal (Azure Machine Learning, Quotas), or take a cluster of another "
            "size."
        )
    gpus = _of(size, "gpus") or 0
    return f"{used} of {limit} cores of {name} in use; a training takes {cores} (a node has {gpus} GPUs)"


def _of(entity: Any, *names: str) -> Any:
    """A field of an entity of azure-ai-ml 1.35, whose fields are called as in its documentation or as on the wire."""
    fields = entity if isinstance(entity, dict) else vars(entity)
    return next((fields[name] for name in names if fields.get(name) is not None), None)
