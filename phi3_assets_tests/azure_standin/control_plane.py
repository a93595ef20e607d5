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
WORKSPACE = re.compile(
    r"(?P<scope>/subscriptions/[^/]+/resourceGroups/[^/]+"
    r"/providers/Microsoft\.MachineLearningServices/workspaces/(?P<workspace>[^/]+))(?P<rest>/.*)?",
    re.IGNORECASE,
)
LOCATION = r"/subscriptions/[^/]+/providers/Microsoft\.MachineLearningServices/locations/[^/]+"
REGIONAL = {
    re.compile(f"{LOCATION}/usages", re.I): computes.usages,
    re.compile(f"{LOCATION}/vmSizes", re.I): computes.sizes,
}
NAME = r"([^/]+)"
KINDS = r"(environments|data|models|codes)"
# Method, address below the workspace, resource in the schemas ('' where there is none), who answers.
ROUTES: list[tuple[str, str, str, Callable[..., Response]]] = [
    ("GET", "", "workspaces", workspace_routes.get),
    ("GET", "/computes", "workspaces/computes", computes.list_all),
    ("GET", f"/computes/{NAME}", "workspaces/computes", computes.get),
    ("GET", "/datastores", "workspaces/datastores", datastores.list_all),
    ("GET", f"/datastores/{NAME}", "workspaces/datastores", datastores.get),
    ("POST", f"/datastores/{NAME}/listSecrets", "workspaces/datastores:listSecrets", datastores.list_secrets),
    (
        "POST",
        f"/codes/{NAME}/versions/{NAME}/startPendingUpload",
        "workspaces/codes/versions:startPendingUpload",
        assets.start_pending_upload,
    ),
    ("GET", f"/{KINDS}/{NAME}/versions", "workspaces/{}/versions", assets.list_versions),
    ("GET", f"/{KINDS}/{NAME}/versions/{NAME}", "workspaces/{}/versions", assets.get),
    ("PUT", f"/{KINDS}/{NAME}/versions/{NAME}", "workspaces/{}/versions", assets.put),
    ("GET", "/jobs", "workspaces/jobs", job_routes.list_all),
    ("GET", f"/jobs/{NAME}", "workspaces/jobs", job_routes.get),
    ("PUT", f"/jobs/{NAME}", "workspaces/jobs", job_routes.put),
    ("POST", f"/jobs/{NAME}/cancel", "", job_routes.cancel),
    ("GET", f"/mfeOperationResults/jc:{NAME}", "", job_routes.cancel_result),
]


def answer(world: World, request: Request) -> Response:
    """Route one request."""
    if refused := tokens.refusal(request, AUDIENCES):
        return refused
    for address, regional in REGIONAL.items():
        if address.fullmatch(request.path):
            return regional(world.workspace, request)
    match = WORKSPACE.fullmatch(request.path)
    if match is None or match["scope"].lower() != world.workspace.scope.lower():
        wanted = match["workspace"] if match else request.path
        return errors.resource_not_found(f"Microsoft.MachineLearningServices/workspaces/{wanted}", GROUP)
    for method, pattern, resource, handler in ROUTES:
        if request.method == method and (found := re.fullmatch(pattern, match["rest"] or "")):
            resource = resource.format(found[1]) if "{}" in resource else resource
            version = request.query["api-version"]
            if resource and method != "GET":
                name = found.groups()[-1] if method == "PUT" else ""
                if problems := judge.request_problems(resource, version, request.json(), name):
                    return errors.request_invalid(problems)
            response = handler(world.workspace, request, *found.groups())
            if resource:
                _judge_answer(resource, version, response)
            return response
    raise LookupError(f"The stand-in has no {request.method} {match['rest']}.")


def _judge_answer(resource: str, version: str, response: Response) -> None:
    """Microsoft's schema has the last word on what we say.

    Raises:
        AssertionError: It would not have this answer; noted as a fault of the stand-in, which fails the tests.
    """
    if response.status not in (200, 201) or not response.body:
        return
    body = response.json()
    items = body["value"] if list(body) == ["value"] else [body]
    problems = [problem for item in items for problem in judge.response_problems(resource, version, item)]
    if problems:
        raise AssertionError(f"Our answer about {resource} {version} is not one of the real service's: {problems}")
