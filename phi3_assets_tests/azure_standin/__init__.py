"""A test bed for everything that talks to Azure: the real clients, real storage, and a stand-in for the rest.

A process of its own (`python -m phi3_assets_tests.azure_standin`) is one HTTP proxy. Clients that are told to use it
reach, by CONNECT and TLS, `management.azure.com`, `login.microsoftonline.com`, a key vault, the workspace's history
service and a storage account (Azurite); anything else is refused and noted as a leak. Nothing in the application
knows. Jobs run as real processes; control-plane bodies are judged by Microsoft's own schemas (`microsoft/`).

Tests use the fixture `azure` (`fixtures.py`): a `bed.Bed`, which says how a client gets in, what can be ordered
(faults, preemption, queues that never move, secrets, short-lived tokens) and what happened. PHI3_AZURE_TRAFFIC names a
file for every exchange, one JSON object a line.

    fixtures, bed, admin     what a test sees; the interface between its process and this one
    __main__, world, warden  the process, what there is in it, the end of everything it started
    gateway, wire, network   the proxy, HTTP on a connection, what a client's environment says about it
    faults, traffic, judge   what goes wrong on order, what was said, what Microsoft's schemas have to say about it
    azurite, storage         Azurite, and the way there
    tokens, vault, metadata  identities, secrets, the metadata service of a node
    control_plane            routes, to workspace_routes, datastores, computes, assets, job_routes (with job_rules)
    history                  what the workspace's other service says about runs
    job, runner, files, mounts, container    a job, what moves it along, its files, its processes
"""
