"""Computes: two clusters that start from zero nodes, and an attached Kubernetes cluster.

A job waits until its nodes are free, as on the real thing, and for ever where the test holds the compute back.
"""

import threading
from typing import Any

from phi3_assets_tests.azure_standin.names import CLIENT, PROVIDERS, REGION, SUBSCRIPTION, TENANT
from phi3_assets_tests.azure_standin.resources import now, resource
from phi3_assets_tests.azure_standin.wire import Request, Response
from phi3_assets_tests.azure_standin.workspace import Workspace

SERVERLESS = "serverless"
# One whose maker gave it no identity, and one that the quota did not let come up.
BARE, BROKEN = "bare-cluster", "broken-cluster"
NODES = {"cpu-cluster": 4, "spot-cluster": 4, "arc-cluster": 4, BARE: 4, BROKEN: 4, SERVERLESS: 8}
PRIORITIES = {"cpu-cluster": "Dedicated", "spot-cluster": "LowPriority", BARE: "Dedicated", BROKEN: "Dedicated"}
FAMILY = "standardDSv2Family"
INSTANCE_TYPES = {
    "defaultinstancetype": {
        "nodeSelector": None,
        "resources": {"requests": {"cpu": "100m", "memory": "2Gi"}, "limits": {"cpu": "2", "memory": "2Gi"}},
    },
    "gpu-a100": {
        "nodeSelector": {"accelerator": "a100"},
        "resources": {
            "requests": {"cpu": "4", "memory": "32Gi"},
            "limits": {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "1"},
        },
    },
    "cpu-small": {
        "nodeSelector": None,
        "resources": {"requests": {"cpu": "1", "memory": "4Gi"}, "limits": {"cpu": "2", "memory": "8Gi"}},
    },
}


class Nodes:
    """How many nodes of each compute are free."""

    def __init__(self) -> None:
        """All are."""
        self._free = dict(NODES)
        self._held: set[str] = set()
        self._changed = threading.Condition()

    def hold(self, compute: str, held: bool) -> None:
        """Give out no nodes of it, or give them out again."""
        with self._changed:
            (self._held.add if held else self._held.discard)(compute)
            self._changed.notify_all()

    def take(self, compute: str, count: int, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds for `count` nodes; True where they are ours now."""
        with self._changed:
            ready = self._changed.wait_for(
                lambda: compute not in self._held and self._free[compute] >= count, timeout_s
            )
            if ready:
                self._free[compute] -= count
            return ready

    def give_back(self, compute: str, count: int) -> None:
        """They are free again."""
        with self._changed:
            self._free[compute] += count
            self._changed.notify_all()

    def used(self, compute: str) -> int:
        """How many are in use."""
        with self._changed:
            return NODES[compute] - self._free[compute]


def get(workspace: Workspace, request: Request, name: str) -> Response:
    """One compute; where there is none, 404 without a body, as recorded."""
    if name not in NODES or name == SERVERLESS:
        return Response(404)
    return Response.of(200, _resource(workspace, name))


def list_all(workspace: Workspace, request: Request) -> Response:
    """All of them."""
    return Response.of(200, {"value": [_resource(workspace, name) for name in NODES if name != SERVERLESS]})


def usages(workspace: Workspace, request: Request) -> Response:
    """The subscription's quota of cores in a region: used and allowed."""
    base = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.MachineLearningServices/locations/{REGION}"
    rows = [(FAMILY, "Standard DSv2 Family vCPUs", 8, 24), ("LowPriorityCores", "Total Low-priority vCPUs", 0, 100)]
    value = [
        {
            "id": f"{base}/usages/{name}",
            "type": "Microsoft.MachineLearningServices/usages",
            "unit": "Count",
            "currentValue": used,
            "limit": min(limit, workspace.core_limit),
            "name": {"value": name, "localizedValue": text},
        }
        for name, text, used, limit in rows
    ]
    return Response.of(200, {"value": value})


def sizes(workspace: Workspace, request: Request) -> Response:
    """The VM sizes of a region."""
    size = {
        "name": "Standard_DS2_v2",
        "family": FAMILY,
        "vCPUs": 2,
        "gpus": 0,
        "osVhdSizeMB": 1047552,
        "maxResourceVolumeMB": 14336,
        "memoryGB": 7,
        "lowPriorityCapable": True,
        "premiumIO": True,
        "supportedComputeTypes": ["AmlCompute"],
    }
    return Response.of(200, {"value": [size]})


def _resource(workspace: Workspace, name: str) -> dict[str, Any]:
    common = {
        "createdOn": now(),
        "modifiedOn": now(),
        "disableLocalAuth": False,
        "description": None,
        "computeLocation": REGION,
        "provisioningState": "Succeeded",
        "provisioningErrors": None,
    }
    if name == BROKEN:
        error = {
            "code": "ClusterMinNodesExceedCoreQuota",
            "message": "The specified number of nodes exceeds the quota.",
        }
        common |= {"provisioningState": "Failed", "provisioningErrors": [{"error": error}]}
    properties = _kubernetes() if name == "arc-cluster" else _cluster(workspace, name)
    made = {**resource(workspace, f"computes/{name}", {**common, **properties}), "location": REGION, "tags": {}}
    if name == BARE:
        return made
    return {**made, "identity": {"type": "SystemAssigned", "principalId": CLIENT, "tenantId": TENANT}}


def _kubernetes() -> dict[str, Any]:
    return {
        "computeType": "Kubernetes",
        "isAttachedCompute": True,
        "resourceId": f"{PROVIDERS}/Microsoft.Kubernetes/connectedClusters/edge",
        "properties": {
            "namespace": "azureml",
            "defaultInstanceType": "defaultinstancetype",
            "instanceTypes": INSTANCE_TYPES,
        },
    }


def _cluster(workspace: Workspace, name: str) -> dict[str, Any]:
    used = workspace.nodes.used(name)
    return {
        "computeType": "AmlCompute",
        "isAttachedCompute": False,
        "resourceId": None,
        "properties": {
            "vmSize": "STANDARD_DS2_V2",
            "vmPriority": PRIORITIES[name],
            "scaleSettings": {
                "maxNodeCount": NODES[name],
                "minNodeCount": 0,
                "nodeIdleTimeBeforeScaleDown": "PT2M",
            },
            "currentNodeCount": used,
            "targetNodeCount": used,
            "nodeStateCounts": {
                "preparingNodeCount": 0,
                "runningNodeCount": used,
                "idleNodeCount": 0,
                "unusableNodeCount": 0,
                "leavingNodeCount": 0,
                "preemptedNodeCount": 0,
            },
            "allocationState": "Steady",
            "allocationStateTransitionTime": now(),
            "errors": None,
            "remoteLoginPortPublicAccess": "Enabled",
            "osType": "Linux",
            "isolatedNetwork": False,
            "propertyBag": {},
        },
    }
