"""Secrets of a key vault, read by whoever this process is."""

from typing import TYPE_CHECKING

from phi3_assets.azure.clients import TIMEOUTS
from phi3_assets.azure.errors import readable, retried

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential


def vault_url(name_or_url: str) -> str:
    """Address of a key vault, which may be given as its name, its host, or the address."""
    host = name_or_url.removeprefix("https://").rstrip("/")
    return f"https://{host}" if "." in host else f"https://{host}.vault.azure.net"


def read_secret(vault: str, name: str, credential: "TokenCredential") -> str:
    """The value of a secret.

    Raises:
        UserError: No such secret, or no right to read it.
        TransientError: The vault cannot be reached now.
    """
    from azure.keyvault.secrets import SecretClient

    mend = (
        f"Put it there with `az keyvault secret set --vault-name {vault.split('//')[-1].split('.')[0]} --name {name} "
        "--file token.txt`."
    )
    role = "'Key Vault Secrets User' on the key vault"
    with readable(f"Secret {name} of {vault}", role, mend), SecretClient(vault, credential, **TIMEOUTS) as client:
        value = retried(lambda: client.get_secret(name)).value
    return value or ""
