"""The stand-in as a process: `python -m phi3_assets_tests.azure_standin FOLDER`, until its input closes.

Prints one line of JSON when it is ready: port, authority (path of the certificate), workspace.
"""

import json
import os
import ssl
import sys
from pathlib import Path

from phi3_assets_tests.azure_standin import admin, control_plane, history, metadata, vault, warden
from phi3_assets_tests.azure_standin.azurite import Azurite
from phi3_assets_tests.azure_standin.certificates import make_certificates
from phi3_assets_tests.azure_standin.gateway import Gateway
from phi3_assets_tests.azure_standin.names import API_HOST, LOGIN_HOST, MANAGEMENT_HOST, METADATA_HOST, VAULT_HOST
from phi3_assets_tests.azure_standin.storage import StorageConnection
from phi3_assets_tests.azure_standin.world import World


def main(folder: Path) -> None:
    """Serve until standard input closes, then kill everything that was started."""
    # What this process itself asks Azurite must not go through anybody's proxy.
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy", "ALL_PROXY", "all_proxy"):
        os.environ.pop(name, None)
    world = World(folder)
    guard = warden.start(world.marker)
    authority, certificate, key = make_certificates(folder)
    azurite = Azurite(world.key, certificate, key, folder / "azurite.log", f"{world.marker}azurite")
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_tls.load_cert_chain(certificate, key)
    client_tls = ssl.create_default_context(cafile=str(authority))
    gateway = Gateway(
        {
            LOGIN_HOST: world.tokens.answer_login,
            MANAGEMENT_HOST: lambda request: control_plane.answer(world, request),
            API_HOST: lambda request: history.answer(world, request),
            VAULT_HOST: lambda request: vault.answer(world, request),
            METADATA_HOST: lambda request: metadata.answer(world, request),
        },
        lambda request: admin.answer(world, request),
        world.faults,
        world.traffic,
        server_tls,
        lambda: StorageConnection(azurite.port, client_tls),
    )
    world.open(azurite.port, authority, gateway.listen)
    workspace = world.reset()
    door = gateway.listen()
    print(json.dumps({"port": door.getsockname()[1], "authority": str(authority), "workspace": workspace}), flush=True)
    sys.stdin.read()
    guard.communicate()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
