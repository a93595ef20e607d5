"""What was found, and the matrix it is printed as: a cell counts answers, and one wrong answer makes it red."""

import threading
from dataclasses import dataclass

from phi3_assets.steps import STEPS

STAGES = ("raw_dataset", "base_model", *(name for name in STEPS if name not in ("raw_dataset", "base_model")))
"""In the order in which a run comes to them."""
GRAPH = "graph"
"""The column of what concerns no stage in particular."""
_SHORT = {
    "raw_dataset": "raw",
    "formatted_corpus": "corpus",
    "base_model": "base",
    "lora_adapter": "adapter",
    "merged_model": "merged",
    "onnx_int4_model": "int4",
    "eval_report": "report",
    "release_bundle": "release",
}


@dataclass(frozen=True)
class Finding:
    """The answer to one question.

    Attributes:
        fault: Name of the fault that was seeded.
        stage: Where, or `GRAPH`.
        asked: What was asked, such as "no orphan".
        wrong: What is wrong, in a sentence; "": nothing is.
        skipped: Why it could not be asked here; "": it was.
    """

    fault: str
    stage: str
    asked: str
    wrong: str = ""
    skipped: str = ""


class Findings:
    """All that was found; several faults may write at once."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.all: list[Finding] = []
        self._lock = threading.Lock()

    def add(self, finding: Finding) -> None:
        """Keep it, and print what is wrong at once: a fault takes minutes."""
        with self._lock:
            self.all.append(finding)
            if finding.wrong:
                print(f"RED   {finding.fault}, {finding.stage}, {finding.asked}: {finding.wrong}", flush=True)

    @property
    def red(self) -> list[Finding]:
        """Those that are wrong."""
        return [one for one in self.all if one.wrong]

    def matrix(self) -> str:
        """The table and its sums: a number of right answers, RED with that of wrong ones, or skipped."""
        faults = list(dict.fromkeys(one.fault for one in self.all))
        columns = [*STAGES, GRAPH]
        width = max(len(fault) for fault in faults)
        head = " ".join(f"{_SHORT.get(column, column):>7}" for column in columns)
        lines = [f"{'':{width}} {head}", "-" * (width + 8 * len(columns))]
        for fault in faults:
            cells = " ".join(f"{self._cell(fault, column):>7}" for column in columns)
            lines.append(f"{fault:{width}} {cells}")
        asked = [one for one in self.all if not one.skipped]
        skipped = sorted({f"{one.fault}: {one.skipped}" for one in self.all if one.skipped})
        lines += ["", *(f"skipped  {one}" for one in skipped)]
        lines += [f"RED      {one.fault}, {one.stage}, {one.asked}: {one.wrong}" for one in self.red]
        lines.append(f"{len(asked)} answers, {len(asked) - len(self.red)} right, {len(self.red)} wrong.")
        return "\n".join(lines)

    def _cell(self, fault: str, stage: str) -> str:
        here = [one for one in self.all if (one.fault, one.stage) == (fault, stage)]
        wrong = sum(bool(one.wrong) for one in here)
        if wrong:
            return f"RED {wrong}"
        right = sum(not one.skipped for one in here)
        return str(right) if right else "skipped" if here else "."
