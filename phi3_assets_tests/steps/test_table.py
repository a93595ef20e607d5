"""The table of steps: what every worker reads first."""

import subprocess
import sys

import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.steps import step_of
from phi3_assets_tests.conftest import clean_env


def test_a_data_steps_worker_imports_no_pydantic():
    """It is handed its parameters; the recipe's model would cost it as long as a small file."""
    code = "import sys, phi3_assets.steps.ingest, phi3_assets.worker.__main__; print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean_env())
    assert done.stdout.strip() == "False"


def test_an_artefact_of_no_step_is_named():
    with pytest.raises(UserError, match="No step makes a 'lora_adaptor'. Did you mean 'lora_adapter'?"):
        step_of("lora_adaptor")
