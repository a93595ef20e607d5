"""<name>.vault.azure.net: asks who is there, then hands out secrets."""

from phi3_assets_tests.azure_standin import tokens
from phi3_assets_tests.azure_standin.names import LOGIN_HOST, TENANT, VAULT_HOST
from phi3_assets_tests.azure_standin.wire import Request, Response
from phi3_assets_tests.azure_standin.world import World

AUDIENCE = "https://vault.azure.net"


def answer(world: World, request: Request) -> Response:
    """GET /secrets/NAME/[VERSION]."""
    if tokens.refusal(request, (AUDIENCE,)):
        challenge = f'Bearer authorization="https://{LOGIN_HOST}/{TENANT}", resource="{AUDIENCE}"'
        message = "AKV10000: Request is missing a Bearer or PoP token."
        return Response.of(
            401, {"error": {"code": "Unauthorized", "message": message}}, {"WWW-Authenticate": challenge}
        )
    name = request.path.strip("/").split("/")[1]
    if name not in world.secrets:
        message = f"A secret with (name/id) {name} was not found in this key vault."
        return Response.of(404, {"error": {"code": "SecretNotFound", "message": message}})
    identifier = f"https://{VAULT_HOST}/secrets/{name}/{'0' * 32}"
    return Response.of(
        200, {"value": world.secrets[name], "id": identifier, "attributes": {"enabled": True, "created": 0}}
    )
