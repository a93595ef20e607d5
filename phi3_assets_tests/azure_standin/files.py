"""A job's inputs and outputs as folders of its nodes."""

from dataclasses import dataclass, field
from pathlib import Path

from phi3_assets_tests.azure_standin.job import Job
from phi3_assets_tests.azure_standin.mounts import Mount, NotFound, download, locate, make_read_only
from phi3_assets_tests.azure_standin.workspace import Workspace


@dataclass
class Files:
    """What was laid out.

    Attributes:
        code: The job's code; None: it has none.
        values: What takes the place of each ${{inputs.x}} and ${{outputs.y}} in the command.
        mounts: Outputs whose blobs follow while the job runs.
        uploads: Outputs whose blobs are written when it has ended well.
        default: The folder that a job sees as ./outputs.
    """

    code: Path | None
    default: Path
    values: dict[str, str] = field(default_factory=dict)
    mounts: list[Mount] = field(default_factory=list)
    uploads: list[Mount] = field(default_factory=list)


def lay_out(workspace: Workspace, job: Job, folder: Path) -> Files:
    """Download code and inputs, and what is in mounted outputs already, from an attempt before.

    Raises:
        NotFound: An address stands for nothing.
    """
    files = Files(_code(workspace, job, folder), folder / "outputs" / "default")
    for name, given in job.properties["inputs"].items():
        literal = given["jobInputType"] == "literal"
        value = str(given["value"]) if literal else _input(workspace, given, folder / "inputs" / name)
        files.values[f"${{{{inputs.{name}}}}}"] = value
    for name, given in job.properties["outputs"].items():
        container, path = locate(workspace, given["uri"])
        here = folder / "outputs" / name
        mount = Mount(container, f"{path}/outputs" if name == "default" else path, here)
        if given["mode"] == "Upload":
            files.uploads.append(mount)
        else:
            mount.lay_out()
            files.mounts.append(mount)
        files.values[f"${{{{outputs.{name}}}}}"] = str(here)
    return files


def _code(workspace: Workspace, job: Job, folder: Path) -> Path | None:
    if not job.properties["codeId"]:
        return None
    name, version = job.properties["codeId"].split("/")[-3::2]
    download(*locate(workspace, workspace.assets["codes", name, version]["properties"]["codeUri"]), folder / "code")
    return folder / "code"


def _input(workspace: Workspace, given: dict[str, str], here: Path) -> str:
    if given.get("mode") == "Direct":
        return given["uri"]
    container, path = locate(workspace, given["uri"])
    if given["jobInputType"] == "uri_file":
        here.mkdir(parents=True)
        file = here / path.rpartition("/")[2]
        file.write_bytes(container.download_blob(path).readall())
        make_read_only(here)
        return str(file)
    if not download(container, path, here):
        raise NotFound(f"ScriptExecution.StreamAccess.NotFound: {given['uri']} was not found.")
    make_read_only(here)
    return str(here)
