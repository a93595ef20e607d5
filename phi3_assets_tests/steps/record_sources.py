"""Records what source a step's code_version stands for, in reached_sources.json.

    python -m phi3_assets_tests.steps.record_sources STEP --new-version             its code_version was raised
    python -m phi3_assets_tests.steps.record_sources STEP --same-result "REASON"    what it leaves cannot have changed

STEP may be several steps, or "all": those that changed.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from phi3_assets.core.step import Step
from phi3_assets.steps import ALL_STEPS
from phi3_assets_tests.steps.sources import reached

RECORD = Path(__file__).with_name("reached_sources.json")
COMMAND = "python -m phi3_assets_tests.steps.record_sources"


def read() -> dict[str, Any]:
    """The record: for each step its code_version, the digests behind it, and why changes since kept the result."""
    return json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}


def complaint(step: Step, recorded: dict[str, Any], now: dict[str, str]) -> str:
    """What is to be done before this source may be trusted under this code_version; "": nothing."""
    before = recorded["reached"]
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if recorded["code_version"] != step.code_version:
        return (
            f"{step.name} has code_version {step.code_version}, and recorded is {recorded['code_version']}. "
            f"Run: {COMMAND} {step.name} --new-version"
        )
    if not changed:
        return ""
    return (
        f"The source that {step.name} reaches changed, and its code_version is {step.code_version} as before, so an "
        f"old artefact would pass for one of the new code. Changed: {', '.join(changed)}. If what the step leaves or "
        "measures can be another, raise code_version in phi3_assets/steps/__init__.py and run: "
        f"{COMMAND} {step.name} --new-version. If it cannot, say why: "
        f'{COMMAND} {step.name} --same-result "REASON"'
    )


def record(names: list[str], reason: str | None) -> None:
    """Take the present source of these steps as that of their code_version; `reason` None: it is a new one.

    Raises:
        SystemExit: The code_version is as before without a reason, or is another one with a reason.
    """
    kept = read()
    for name in names:
        step, now = ALL_STEPS[name], reached(ALL_STEPS[name])
        old = kept.get(name)
        raised = old is None or old["code_version"] != step.code_version
        if raised and reason is not None:
            raise SystemExit(f"{name}: code_version was raised, so the result is not the same: use --new-version.")
        if not raised and reason is None:
            raise SystemExit(f"{name}: code_version is {step.code_version} as before; raise it in phi3_assets/steps.")
        same = [] if raised else [*old["same_result"], reason]
        kept[name] = {"code_version": step.code_version, "same_result": same, "reached": now}
    ordered = {name: kept[name] for name in ALL_STEPS if name in kept}
    RECORD.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("steps", nargs="+", choices=[*ALL_STEPS, "all"], metavar="STEP")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--new-version", action="store_true")
    how.add_argument("--same-result", metavar="REASON")
    options = parser.parse_args()
    if options.same_result is not None and len(options.same_result.split()) < 3:
        parser.error("--same-result needs a reason that a reviewer can judge.")
    recorded = read()
    names = options.steps
    if "all" in names:
        names = [n for n, step in ALL_STEPS.items() if n not in recorded or complaint(step, recorded[n], reached(step))]
    record(names, options.same_result)
    print(f"Recorded: {', '.join(names) or 'nothing changed'}.")


if __name__ == "__main__":
    main()
