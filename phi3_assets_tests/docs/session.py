"""A reader at work: a checkout with a home that was made on the tiny model, where a page's commands are typed in turn.

A page's own words are changed in two ways only, both listed here: what would take too long or needs what no test has is
not typed (`NOT_TYPED`, with the reason; it is still parsed), and what the reader is asked to fill in is filled in
(`FILLED_IN`).
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from phi3_assets_tests.conftest import clean_env, write_rows
from phi3_assets_tests.docs.pages import ROOT, Command

TIMEOUT_S = 880
_MARK = "@@@ "

NOT_TYPED = {
    r"az ": "needs a subscription of Azure",
    r"docker ": "needs a Docker engine",
    r"kubectl ": "needs a cluster of Kubernetes",
    r"\w+=\$\(az ": "needs a subscription of Azure",
    r"export .*(PHI3_EXECUTION|PHI3_AZURE)": "needs a subscription of Azure",
    r"PHI3_(EXECUTION|AZURE)\w*=": "needs a subscription of Azure",
    r"\.venv/bin/phi3 azure ": "needs a subscription of Azure; test_azure.py runs it",
    r"\.venv/bin/pytest -m azure_live": "needs a workspace, and costs money",
    r"make (ui|test|test-slow|faults|lock)\b": "serves for ever, or is the suite itself",
    r"\.venv/bin/phi3 (web|chat --web)": "serves for ever; chat/test_page.py and web/ open it in a browser",
    r"\.venv/bin/phi3 run .*--recipe (smol-cpu|my-recipe)": "trains for minutes; the recipe is read all the same",
    r"\.venv/bin/python -m (benchmarks|phi3_assets_tests\.faults)": "takes minutes, and is told in figures",
    r"\.venv/bin/pip install": "would change what is installed here",
    r"(HF_HUB_OFFLINE=1 )?\.venv/bin/lm_eval": "needs the extra lm-eval, 28 packages",
}
"""How a command begins that is parsed but not typed, and why."""

# Not all of it: a page writes .env, and would write through a link to the tester's own.
OF_THE_REPOSITORY = ("Makefile", "phi3_assets", "pyproject.toml", "requirements.lock", "setup.cfg", "workspace.yaml")
TINY_RECIPE = "{ cat phi3_assets/recipes/tiny-test.yaml; echo 'product: my-desk'; } > my-desk.yaml"
FILLED_IN = {
    r"cp phi3_assets/recipes/smol-cpu\.yaml my-desk\.yaml.*": TINY_RECIPE,
    r"/media/usb/": "usb/",
    r"5804763a": "$IDENTITY",
}
"""What the reader fills in: the product in a recipe of his, where his stick is, which release is meant."""


def why_not_typed(command: Command) -> str:
    """The reason of `NOT_TYPED`; "": it is typed."""
    return next((reason for start, reason in NOT_TYPED.items() if re.match(start, command.text)), "")


class Checkout:
    """The folder in which a reader types: the repository, its virtual environment, and a home."""

    def __init__(self, folder: Path, made_home: Path) -> None:
        """Lay it out.

        Args:
            folder: Must not exist.
            made_home: The tiny model's graph, which is copied: what a first `make run` would have left.
        """
        folder.mkdir()
        for name in OF_THE_REPOSITORY:
            (folder / name).symlink_to(ROOT / name)
        (folder / ".venv").mkdir()
        (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
        (folder / ".venv" / "installed").touch()
        shutil.copytree(made_home, folder / "home")
        (folder / "reader").mkdir()
        (folder / "usb").mkdir()
        write_rows(folder / "reader" / "questions.csv", 60)
        shutil.copy(ROOT / "phi3_assets_tests/olive/configs/cookbook-lora.json", folder / "olive-config.json")
        self.folder = folder
        champion = (folder / "home").glob("gen-model/release_bundle/*/")
        self._env = clean_env(
            HOME=str(folder / "reader"),
            PHI3_RECIPE="tiny-test",
            OMP_NUM_THREADS="1",
            PYTHONPATH=str(ROOT),
            IDENTITY=next(path.name for path in champion),
        )

    def type(self, commands: list[Command]) -> None:
        """Type them in one shell, which stops at the first that fails.

        Raises:
            AssertionError: One failed; names its page and line and what it said.
        """
        script = ["set -e"]
        for command in commands:
            text = command.text
            for wanted, filled in FILLED_IN.items():
                text = re.sub(wanted, filled.replace("\\", "\\\\"), text)
            script += [f"echo '{_MARK}{command}'", text]
        said = self.folder / "said.log"
        with said.open("w") as file:
            shell = subprocess.Popen(
                ["bash", "-c", "\n".join(script)],
                cwd=self.folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            code = shell.wait(TIMEOUT_S)
        finally:
            if shell.poll() is None:  # what the shell started would go on by itself
                os.killpg(shell.pid, signal.SIGKILL)
                shell.wait()
        text = said.read_text(encoding="utf-8")
        assert code == 0, text[text.rfind(_MARK) :]
