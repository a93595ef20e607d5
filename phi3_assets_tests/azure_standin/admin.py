"""What the stand-in itself can be told and asked, over plain HTTP on its port: GET or POST /standin/..."""

from phi3_assets_tests.azure_standin.faults import Fault
from phi3_assets_tests.azure_standin.wire import Request, Response
from phi3_assets_tests.azure_standin.world import World


def answer(world: World, request: Request) -> Response:
    """Route one request."""
    match request.method, request.path.removeprefix("/standin/"):
        case "GET", "traffic":
            return Response.of(200, world.traffic.listing())
        case "GET", "problems":
            return Response.of(200, {"leaks": world.traffic.leaks, "own_faults": world.traffic.own_faults})
        case "POST", "problems/forgive":
            leaks, world.traffic.leaks = world.traffic.leaks, []
            return Response.of(200, {"leaks": leaks})
        case "POST", "traffic/clear":
            world.traffic.clear()
        case "GET", "faults":
            return Response.of(200, world.faults.listing())
        case "POST", "faults":
            world.faults.add(Fault(**request.json()))
        case "POST", "faults/clear":
            world.faults.clear()
        case "POST", "tokens":
            world.tokens.lifetime_s = request.json()["lifetime_s"]
        case "POST", "reset":
            return Response.of(200, {"workspace": world.reset()})
        case _:
            return Response.of(404, {"error": f"{request.method} {request.path} is nothing the stand-in knows."})
    return Response.of(200, {})
