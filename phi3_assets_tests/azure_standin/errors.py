"""Errors as the workspace's front end words them; shapes as in microsoft/recorded."""

import datetime
from typing import Any

from phi3_assets_tests.azure_standin.names import REGION
from phi3_assets_tests.azure_standin.wire import Response


def user_error(status: int, message: str, inner: list[str], details: list[dict[str, Any]] | None = None) -> Response:
    """The front end's error: nearly always 'UserError', what it is about stands in InnerError.

    Args:
        status: HTTP status.
        message: For people.
        inner: Codes of InnerError, from the outside to the inside.
        details: More messages.
    """
    nested: dict[str, Any] | None = None
    for code in reversed(inner):
        nested = {"code": code, "innerError": nested}
    additional = {
        "ComponentName": "managementfrontend",
        "Correlation": {"operation": "0" * 32, "request": "0" * 16},
        "Environment": REGION,
        "Location": REGION,
        "Time": datetime.datetime.now(datetime.UTC).isoformat(),
        "InnerError": nested,
        "MessageFormat": message,
    }
    error = {
        "code": "UserError",
        "message": message,
        "details": details or [],
        "additionalInfo": [{"type": name, "info": {"value": value}} for name, value in additional.items()],
    }
    return Response.of(status, {"error": error}, {"x-ms-response-type": "error"})


def request_invalid(messages: list[str]) -> Response:
    """The body does not have the shape that it must have."""
    details = [{"code": "RequestInvalid", "message": text, "details": [], "additionalInfo": []} for text in messages]
    return user_error(400, "Request is invalid and/or missing fields.", ["RequestInvalid"], details)


def not_found(what: str, name: str) -> Response:
    """There is no such thing in the workspace."""
    return user_error(404, f"{what} {name} not found.", ["NotFound", f"{what}NotFound"])


def resource_not_found(resource: str, group: str) -> Response:
    """There is no such workspace; said by Azure Resource Manager itself."""
    message = f"The Resource '{resource}' under resource group '{group}' was not found. For more details please go to \
https://aka.ms/ARMResourceNotFoundFix"
    return Response.of(404, {"error": {"code": "ResourceNotFound", "message": message}})
