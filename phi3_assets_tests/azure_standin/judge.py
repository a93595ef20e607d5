"""Whether a body is one that the real service would take or send, by Microsoft's published types.

`microsoft/schema/<api-version>.<request|response>.json.gz`: ARM templates' and Bicep's types, closed (no unknown
members, no unknown enum values). Nobody here wrote them, so they can contradict us.
"""

import gzip
import json
import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

SCHEMAS = Path(__file__).parent / "microsoft" / "schema"
# azure-ai-ml before 1.35 asked for this one; the types of the two are equal.
ALIASES = {"2024-07-01-preview": "2024-10-01-preview"}
# The real client sends a number where the types want text, and the real service takes it.
TOLERATED = {("workspaces/codes/versions", "properties/properties/hash_version")}
Side = Literal["request", "response"]
# How jsonschema words what was not there when the types were published.
_NEW = re.compile(r"Additional properties are not allowed|is not one of \[")


WORKSPACE = re.compile(
    r"(?P<scope>/subscriptions/[^/]+/resourceGroups/[^/]+"
    r"/providers/Microsoft\.MachineLearningServices/workspaces/(?P<name>[^/]+))(?P<rest>/.*)?",
    re.IGNORECASE,
)
# Addresses below a workspace, and what they are in the schemas.
RESOURCES = [
    ("", "workspaces"),
    ("/(computes|datastores|jobs)(?:/([^/]+))?", "workspaces/{}"),
    ("/(datastores)/[^/]+/listSecrets", "workspaces/{}:listSecrets"),
    ("/(codes|environments|data|models)/[^/]+/versions(?:/([^/]+))?", "workspaces/{}/versions"),
    ("/(codes)/[^/]+/versions/[^/]+/startPendingUpload", "workspaces/{}/versions:startPendingUpload"),
]


class Unjudged(Exception):
    """There is no schema for this; what the client speaks has changed, and more schemas are needed."""


def resource_of(path: str) -> tuple[str, str] | None:
    """What an address is in the schemas, and the name in it; None: nothing that they know, such as a cancel."""
    match = WORKSPACE.fullmatch(path)
    for pattern, resource in RESOURCES if match else []:
        if found := re.fullmatch(pattern, match["rest"] or ""):
            groups = found.groups()
            return resource.format(*groups), (groups[1] or "") if len(groups) > 1 else ""
    return None


def exchange_problems(exchange: dict[str, Any]) -> list[str]:
    """What is wrong with a recorded exchange of the control plane (see `traffic`), request and answer; empty: nothing.

    An exchange that the service refused is not judged, nor is one that no schema is about.
    """
    known = resource_of(exchange["path"])
    if known is None or exchange["status"] not in (200, 201):
        return []
    resource, name = known
    version = exchange["query"]["api-version"]
    problems = []
    if exchange["method"] in ("PUT", "POST"):
        problems += request_problems(resource, version, exchange["request"], name)
    for item in items(exchange["response"]):
        problems += response_problems(resource, version, item)
    return problems


def items(body: Any) -> list[Any]:
    """What an answer is about: what it lists, or itself."""
    return body["value"] if isinstance(body, dict) and list(body) == ["value"] else [body]


def request_problems(resource: str, version: str, body: Any, name: str = "") -> list[str]:
    """What is wrong with the body of a PUT (`name`: the address's last part) or a POST; empty: nothing."""
    if name and isinstance(body, dict):
        body = {"name": name, **body}
    return _problems("request", resource, version, body)


def response_problems(resource: str, version: str, body: Any) -> list[str]:
    """What is wrong with the body of an answer of 200 or 201; empty: nothing."""
    return _problems("response", resource, version, body)


def surprises(resource: str, version: str, body: Any) -> tuple[list[str], list[str]]:
    """What is wrong with an answer of the real service, and what is merely new: members and enum values.

    The service is ahead of its published types here and there: recorded answers have members that no schema knows.
    """
    found = _problems("response", resource, version, body)
    new = [problem for problem in found if _NEW.search(problem)]
    return [problem for problem in found if problem not in new], new


def _problems(side: Side, resource: str, version: str, body: Any) -> list[str]:
    validator = _validators(side, ALIASES.get(version, version)).get(resource)
    if validator is None:
        raise Unjudged(f"No {side} schema of {resource} in api-version {version!r}.")
    found = set()
    for error in validator.iter_errors(body):
        for leaf in _leaves(error):
            place = "/".join(map(str, leaf.absolute_path))
            if (resource, place) not in TOLERATED:
                found.add(f"{leaf.message[:200]} Path '{place}'.")
    return sorted(found)


@cache
def _validators(side: Side, version: str) -> dict[str, Any]:
    from jsonschema import Draft202012Validator

    file = SCHEMAS / f"{version}.{side}.json.gz"
    if not file.exists():
        return {}
    schema = json.loads(gzip.decompress(file.read_bytes()))
    definitions = {"$defs": schema["$defs"]}
    return {resource: Draft202012Validator({**definitions, **root}) for resource, root in schema["roots"].items()}


def _leaves(error: Any) -> list[Any]:
    """The errors at the bottom: of 'this or null', those of 'this'."""
    if not error.context:
        return [error]
    real = [inner for inner in error.context if inner.schema_path[0] == 0] or error.context
    return [leaf for inner in real for leaf in _leaves(inner)]
