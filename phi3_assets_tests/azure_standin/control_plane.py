"""management.azure.com: the routes below a workspace."""

import re
from collections.abc import Callable

from phi3_assets_tests.azure_standin import datastores, errors, tokens
from phi3_assets_tests.azure_standin.names import GROUP, MANAGEMENT_HOST
from phi3_assets_tests.azure_standin.wire import Request, Response
from phi3_assets_tests.azure_standin.world import World

AUDIENCES = (f"https://{MANAGEMENT_HOST}",)
WORKSPACE = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<group>[^/]+)"
    r"/providers/Microsoft\.MachineLearningServices/workspaces/(?P<workspace>[^/]+)(?P<rest>/.*)?",
    re.IGNORECASE,
)
NAME = r"([^/]+)"
ROUTES: list[tuple[str, str, Callable[..., Response]]] = [
    ("GET", "/datastores", datastores.list_all),
    ("GET", f"/datastores/{NAME}", datastores.get),
    ("POST", f"/datastores/{NAME}/listSecrets", datastores.list_secrets),
]


def answer(world: World, request: Request) -> Response:
    """Route one request."""
    if refused := tokens.refusal(request, AUDIENCES):
        return refused
    match = WORKSPACE.fullmatch(request.path)
    if match is None or match[0].removesuffix(match["rest"] or "").lower() != world.workspace.scope.lower():
        wanted = match["workspace"] if match else request.path
        return errors.resource_not_found(f"Microsoft.MachineLearningServices/workspaces/{wanted}", GROUP)
    for method, pattern, handler in ROUTES:
        if request.method == method and (found := re.fullmatch(pattern, match["rest"] or "")):
            return handler(world.workspace, request, *found.groups())
    raise LookupError(f"The stand-in has no {request.method} {match['rest']}.")
