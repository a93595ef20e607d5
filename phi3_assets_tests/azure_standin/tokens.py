"""Who is asking: the token service, the managed identity's endpoint, and whether a request carries a good token.

Tokens are JWTs without a signature. Azurite reads them (issuer, audience, times) as the real storage does, but for
the signature.
"""

import base64
import json
import time
from typing import Any
from urllib.parse import parse_qs

from phi3_assets_tests.azure_standin.names import CLIENT, LOGIN_HOST, TENANT
from phi3_assets_tests.azure_standin.wire import Request, Response

SECRET = "standin-client-secret"
HOUR_S = 3600


class Tokens:
    """The token service. `lifetime_s` may be changed at any time: clients renew what is about to expire."""

    def __init__(self) -> None:
        """Tokens live an hour until somebody says otherwise."""
        self.lifetime_s = HOUR_S

    def answer_login(self, request: Request) -> Response:
        """login.microsoftonline.com: where it is, and a token for whoever knows the client's secret."""
        tenant = request.path.split("/")[1]
        base = f"https://{LOGIN_HOST}/{tenant}"
        if request.path.endswith("/openid-configuration"):
            return Response.of(
                200,
                {
                    "issuer": f"{base}/v2.0",
                    "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                    "token_endpoint": f"{base}/oauth2/v2.0/token",
                    "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
                    "jwks_uri": f"{base}/discovery/v2.0/keys",
                },
            )
        if request.path == "/common/discovery/instance":
            return Response.of(
                200,
                {
                    "tenant_discovery_endpoint": f"https://{LOGIN_HOST}/{TENANT}/v2.0/.well-known/openid-configuration",
                    "api-version": "1.1",
                    "metadata": [
                        {"preferred_network": LOGIN_HOST, "preferred_cache": LOGIN_HOST, "aliases": [LOGIN_HOST]}
                    ],
                },
            )
        if request.path.endswith("/oauth2/v2.0/token"):
            form = {name: values[-1] for name, values in parse_qs(request.body.decode()).items()}
            if tenant != TENANT or form.get("client_id") != CLIENT or form.get("client_secret") != SECRET:
                return Response.of(
                    401,
                    {
                        "error": "invalid_client",
                        "error_description": "AADSTS7000215: Invalid client secret provided. Ensure the secret being "
                        "sent in the request is the client secret value, not the client secret ID.",
                        "error_codes": [7000215],
                    },
                )
            audience = form["scope"].split(" ")[0].removesuffix("/.default")
            lifetime = self.lifetime_s
            return Response.of(
                200,
                {
                    "token_type": "Bearer",
                    "expires_in": lifetime,
                    "ext_expires_in": lifetime,
                    "access_token": self.make(audience, "client"),
                },
            )
        return Response.of(404, {"error": "not_found", "error_description": request.path})

    def answer_managed_identity(self, request: Request, secret: str) -> Response:
        """The endpoint that MSI_ENDPOINT of a job names."""
        if request.headers.get("secret") != secret:
            return Response.of(401, {"error": {"code": "Unauthorized", "message": "The secret header is wrong."}})
        resource = request.query.get("resource", "")
        return Response.of(
            200,
            {
                "access_token": self.make(resource, "managed"),
                "expires_on": str(int(time.time()) + self.lifetime_s),
                "resource": resource,
                "token_type": "Bearer",
                "client_id": request.query.get("clientid", ""),
            },
        )

    def make(self, audience: str, who: str) -> str:
        """A token for `audience`."""
        now = int(time.time())
        claims = {
            "aud": audience,
            "iss": f"https://sts.windows.net/{TENANT}/",
            "iat": now - 5,
            "nbf": now - 5,
            "exp": now + self.lifetime_s,
            "tid": TENANT,
            "oid": CLIENT,
            "appid": CLIENT,
            "idtyp": "app",
            "sub": who,
        }
        return f"{_encode({'alg': 'none', 'typ': 'JWT'})}.{_encode(claims)}.{_encode({'signature': 'none'})}"


def refusal(request: Request, audiences: tuple[str, ...]) -> Response | None:
    """401 as Azure Resource Manager says it, or None where the request carries a token for one of `audiences`."""
    header = request.headers.get("Authorization") or ""
    if not header.startswith("Bearer "):
        return _unauthorized("AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.")
    part = header.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    if claims["exp"] <= time.time():
        return _unauthorized("ExpiredAuthenticationToken", "The access token expiry UTC time is earlier than now.")
    if claims["aud"].rstrip("/") not in audiences:
        return _unauthorized(
            "InvalidAuthenticationTokenAudience",
            f"The access token has been obtained for the wrong audience or resource '{claims['aud']}'.",
        )
    return None


def _unauthorized(code: str, message: str) -> Response:
    return Response.of(
        401,
        {"error": {"code": code, "message": message}},
        {"WWW-Authenticate": f'Bearer authorization_uri="https://{LOGIN_HOST}/{TENANT}", error="invalid_token"'},
    )


def _encode(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
