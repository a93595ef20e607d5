"""What the stand-in itself can be told and asked, over plain HTTP on its port: GET or POST /standin/..."""

from typing import Any

from phi3_assets_tests.azure_standin.faults import Fault
from phi3_assets_tests.azure_standin.job import Job
from phi3_assets_tests.azure_standin.wire import Request, Response
from phi3_assets_tests.azure_standin.world import World


def answer(world: World, request: Request) -> Response:
    """Route one request that came to a door itself: from the test, or from a job that asks who it is."""
    if request.path == "/MSI/auth":
        job = world.workspace.jobs.get(request.job)
        return world.tokens.answer_managed_identity(request, job.secret if job else "")
    if request.job or not request.path.startswith("/standin/"):
        return Response.of(404, {"error": f"{request.path} is nothing that may be asked here."})
    path = request.path.removeprefix("/standin/")
    if path.startswith("jobs/") and request.method == "POST":
        _, name, order = path.split("/")
        return _order_job(world.workspace.jobs.get(name), order, request.json())
    if request.method == "GET":
        return _asked(world, path)
    return _told(world, path, request.json())


def _asked(world: World, path: str) -> Response:
    match path:
        case "traffic":
            return Response.of(200, world.traffic.listing())
        case "problems":
            return Response.of(200, {"leaks": world.traffic.leaks, "own_faults": world.traffic.own_faults})
        case "faults":
            return Response.of(200, world.faults.listing())
        case "jobs":
            return Response.of(200, [_job(job) for job in list(world.workspace.jobs.values())])
    return Response.of(404, {"error": f"{path} is nothing that may be asked."})


def _told(world: World, path: str, body: Any) -> Response:
    answer: Any = {}
    match path:
        case "traffic/clear":
            world.traffic.clear()
        case "problems/forgive":
            answer = {"leaks": world.traffic.leaks, "own_faults": world.traffic.own_faults}
            world.traffic.leaks, world.traffic.own_faults = [], []
        case "faults":
            world.faults.add(Fault(**body))
        case "faults/clear":
            world.faults.clear()
        case "tokens":
            world.tokens.lifetime_s = body["lifetime_s"]
        case "secrets":
            world.secrets[body["name"]] = body["value"]
        case "hold":
            world.workspace.nodes.hold(body["compute"], body["held"])
        case "core-limit":
            world.workspace.core_limit = body["cores"]
        case "hang-cancels":
            world.workspace.hang_cancels = body["hang"]
        case "reset":
            answer = {"workspace": world.reset()}
        case _:
            return Response.of(404, {"error": f"{path} is nothing that may be told."})
    return Response.of(200, answer)


def _order_job(job: Job | None, order: str, body: Any) -> Response:
    if job is None:
        return Response.of(404, {"error": "There is no such job."})
    match order:
        case "announce":
            job.announce(body["seconds"])
        case "withdraw":
            job.withdraw()
        case "evict":
            job.evict.set()
        case "doom":
            job.doom = (body["code"], body["message"])
        case "warn":
            job.warnings.append(body["message"])
        case "show":
            job.shown = body["status"]
        case _:
            return Response.of(404, {"error": f"Nothing named {order} can be done to a job."})
    return Response.of(200, _job(job))


def _job(job: Job) -> dict[str, Any]:
    return {
        "name": job.name,
        "status": job.status,
        "history": job.history,
        "attempt": job.attempt,
        "error": job.error,
        "compute": job.compute,
        "closed": job.closed.is_set(),
        "properties": job.properties,
    }
