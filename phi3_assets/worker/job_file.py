"""The job file: what a command job is handed beside its mounted inputs. No secret is in it, only where one is."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from phi3_assets.worker.step_file import StepFile

JOB_FILE = "job.json"


@dataclass(frozen=True)
class JobFile:
    """A step, and how the job reaches its orchestrator.

    Attributes:
        step: The step file; its paths are filled in where the job runs.
        account_url: Storage account of the messages.
        container: Container of the messages.
        client_id: The managed identity to be, where there are several; "": the only one.
        key_vault: URL of the key vault that holds the hub's token.
        hf_token_secret: Name of the token's secret; "": this step needs none.
    """

    step: StepFile
    account_url: str
    container: str
    client_id: str
    key_vault: str
    hf_token_secret: str

    def to_json(self) -> str:
        """The text of job.json."""
        return json.dumps({**asdict(self), "step": json.loads(self.step.to_json())}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "JobFile":
        """Inverse of `to_json`."""
        value: dict[str, Any] = json.loads(text)
        return cls(step=StepFile.from_json(json.dumps(value.pop("step"))), **value)
