"""169.254.169.254: a node's metadata service, as far as a job asks it about being taken away."""

from phi3_assets_tests.azure_standin.wire import Request, Response
from phi3_assets_tests.azure_standin.world import World


def answer(world: World, request: Request) -> Response:
    """Scheduled events of the job whose door the question came through."""
    job = world.workspace.jobs.get(request.job)
    if job is None or request.path != "/metadata/scheduledevents":
        # As a machine says that is no virtual machine of Azure: no identity to be had here, and quickly.
        return Response(403, b"A socket operation was attempted to an unreachable network.")
    if (request.headers.get("Metadata") or "").lower() != "true":
        return Response.of(400, {"error": "Bad request. Required metadata header not specified"})
    return Response.of(200, {"DocumentIncarnation": job.incarnation, "Events": job.events})
