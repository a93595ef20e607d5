"""docs/azureml.md: its table is that of the settings, its examples are read by what they are for.

`python -m phi3_assets_tests.azure.test_docs` writes the table anew.
"""

import re
from pathlib import Path
from typing import Literal, get_args, get_origin

import yaml
from dagster_azure.blob.compute_log_manager import AzureBlobComputeLogManager

from phi3_assets.azure.settings import AzureSettings, load_settings
from phi3_assets.core.recipe import Recipe
from phi3_assets.resources.azureml_execution import AzureMLExecution
from phi3_assets.resources.chosen_execution import ChosenExecution, chosen
from phi3_assets.steps import STEPS

PAGE = Path(__file__).parents[2] / "docs" / "azureml.md"
BEGIN, END = "<!-- settings -->\n", "<!-- end of settings -->\n"


def table() -> str:
    """All settings, from where they are defined."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in AzureSettings.model_fields.items():
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        told = f" One of {', '.join(f'`{choice}`' for choice in choices if choice)}." if choices else ""
        default = f"`{field.default}`" if field.default != "" else ""
        rows.append(f"| `{name}` | {default} | {field.description}{told} |")
    return "\n".join(rows) + "\n"


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def between(text: str) -> str:
    return text.partition(BEGIN)[2].partition(END)[0]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page(), re.DOTALL)


def test_the_table_is_that_of_the_settings():
    assert between(page()) == table(), "python -m phi3_assets_tests.azure.test_docs writes it anew"


def test_the_settings_file_is_read(tmp_path):
    (example,) = [block for block in blocks("yaml") if block.startswith("subscription_id")]
    (tmp_path / "azure.yaml").write_text(example)
    settings = load_settings({"PHI3_AZURE_CONFIG": str(tmp_path / "azure.yaml")}).require()
    assert (settings.workspace, settings.run_timeout_minutes) == ("desk", 480)


def test_the_launchpad_s_configuration_has_fields_that_there_are():
    (example,) = [yaml.safe_load(block)["resources"] for block in blocks("yaml") if block.startswith("resources")]
    assert example["execution"]["config"].keys() <= ChosenExecution.model_fields.keys()
    assert example["azureml"]["config"].keys() <= AzureMLExecution.model_fields.keys()
    assert chosen({}, **example["execution"]["config"])["eval_report"] == "local"


def test_the_log_manager_has_these_fields():
    (example,) = [yaml.safe_load(block)["compute_logs"] for block in blocks("yaml") if block.startswith("compute_logs")]
    assert example["class"] == AzureBlobComputeLogManager.__name__
    assert example["config"].keys() <= AzureBlobComputeLogManager.config_type().keys()


def test_every_variable_field_and_link_is_one_that_there_is():
    """A setting that was renamed must not live on in the page that people follow."""
    known = {f"PHI3_AZURE_{name.upper()}" for name in AzureSettings.model_fields} | {"PHI3_AZURE_CONFIG"}
    assert set(re.findall(r"PHI3_AZURE_\w*[A-Z]", page())) - {"PHI3_AZURE"} <= known
    executions = {f"PHI3_EXECUTION_{name.upper()}" for name in STEPS}
    assert set(re.findall(r"PHI3_EXECUTION_\w+", page())) <= executions
    assert "register_model" in Recipe.model_fields
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", page()):
        assert (PAGE.parent / target).exists(), target
    titles = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^#+ (.*)", page(), re.M)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", page())) <= titles


if __name__ == "__main__":
    text = page()
    PAGE.write_text(text.replace(f"{BEGIN}{between(text)}{END}", f"{BEGIN}{table()}{END}"), encoding="utf-8")
