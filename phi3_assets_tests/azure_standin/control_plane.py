"""management.azure.com: the routes below a workspace, each judged on its way in and out."""

import re
from collections.abc import Callable

from phi3_assets_tests.azure_standin import (
    assets,
    computes,
    datastores,
    errors,
    job_routes,
    judge,
    tokens,
    workspace_routes,
)
from phi3_assets_tests.azure_standin.names import GROUP, MANAGEMENT_HOST
from phi3_assets_tests.azure_standin.wire import Request, Response
from phi3_assets_tests.azure_standin.world import World

AUDIENCES = (f"https://{MANAGEMENT_HOST}",)
LOCATION = r"/subscriptions/[^/]+/providers/Microsoft\.MachineLearningServices/locations/[^/]+"
REGIONAL = {
    re.compile(f"{LOCATION}/usages", re.I): computes.usages,
    re.compile(f"{LOCATION}/vmSizes", re.I): computes.sizes,
}
NAME = r"([^/]+)"
KINDS = r"(environments|data|models|codes)"
# Method, address below the workspace, who answers.
ROUTES: list[tuple[str, str, Callable[..., Response]]] = [
    ("GET", "", workspace_routes.get),
    ("GET", "/computes", computes.list_all),
    ("GET", f"/computes/{NAME}", computes.get),
    ("GET", "/datastores", datastores.list_all),
    ("GET", f"/datastores/{NAME}", datastores.get),
    ("POST", f"/datastores/{NAME}/listSecrets", datastores.list_secrets),
    ("POST", f"/codes/{NAME}/versions/{NAME}/startPendingUpload", assets.start_pending_upload),
    ("GET", f"/{KINDS}/{NAME}/versions", assets.list_versions),
    ("GET", f"/{KINDS}/{NAME}/versions/{NAME}", assets.get),
    ("PUT", f"/{KINDS}/{NAME}/versions/{NAME}", assets.put),
    ("GET", "/jobs", job_routes.list_all),
    ("GET", f"/jobs/{NAME}", job_routes.get),
    ("PUT", f"/jobs/{NAME}", job_routes.put),
    ("POST", f"/jobs/{NAME}/cancel", job_routes.cancel),
    ("GET", f"/mfeOperationResults/jc:{NAME}", job_routes.cancel_result),
]


def answer(world: World, request: Request) -> Response:
    """Route one request; Microsoft's schemas have the last word on what we take and on what we say.

    Raises:
        AssertionError: They would not have our answer; noted as a fault of the stand-in, which fails the tests.
    """
    if refused := tokens.refusal(request, AUDIENCES):
        return refused
    for address, regional in REGIONAL.items():
        if address.fullmatch(request.path):
            return regional(world.workspace, request)
    match = judge.WORKSPACE.fullmatch(request.path)
    if match is None or match["scope"].lower() != world.workspace.scope.lower():
        wanted = match["name"] if match else request.path
        return errors.resource_not_found(f"Microsoft.MachineLearningServices/workspaces/{wanted}", GROUP)
    for method, pattern, handler in ROUTES:
        if request.method == method and (found := re.fullmatch(pattern, match["rest"] or "")):
            version = request.query["api-version"]
            resource, name = judge.resource_of(request.path) or ("", "")
            judged = resource and method != "GET"
            if judged and (problems := judge.request_problems(resource, version, request.json(), name)):
                return errors.request_invalid(problems)
            response = handler(world.workspace, request, *found.groups())
            if resource and response.status in (200, 201):
                bodies = judge.items(response.json())
                problems = [text for body in bodies for text in judge.response_problems(resource, version, body)]
                assert not problems, f"Our answer about {resource} {version} is none of the real service's: {problems}"
            return response
    raise LookupError(f"The stand-in has no {request.method} {match['rest']}.")
