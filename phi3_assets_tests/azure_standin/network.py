"""How a process is told to go through a door of the stand-in, and whom to trust there."""

from pathlib import Path

AUTHORITIES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


def network_variables(port: int, authority: Path) -> dict[str, str]:
    """Proxy and certificates; both spellings, because a machine may have set either."""
    address = f"http://127.0.0.1:{port}"
    proxies = {"HTTPS_PROXY": address, "HTTP_PROXY": address, "NO_PROXY": "127.0.0.1,localhost"}
    lower = {name.lower(): value for name, value in proxies.items()}
    return {**proxies, **lower, **dict.fromkeys(AUTHORITIES, str(authority))}
