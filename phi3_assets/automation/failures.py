"""Telling somebody that a run failed: a message to the address in PHI3_WEBHOOK_URL, as chat services take it."""

import json
import os
import time

import dagster as dg

from phi3_assets.core.errors import TransientError, UserError
from phi3_assets.ops.run_tags import DATA_VERSION_TAG, PRODUCT_TAG, RECIPE_TAG

WEBHOOK = "PHI3_WEBHOOK_URL"
_TIMEOUT_S = 10
_PAUSES_S = (1.0, 5.0)


@dg.run_failure_sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=f"Posts each failed run, with its reason, to the address in {WEBHOOK}; without one it does nothing.",
)
def failed_runs(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
    """Tell of one run."""
    address = os.environ.get(WEBHOOK, "")
    if not address:
        return dg.SkipReason(f"{WEBHOOK} is not set, so nobody is told.")
    post(address, message(context.dagster_run, [_reason(event) for event in context.get_step_failure_events()]))
    return None


def message(run: dg.DagsterRun, reasons: list[str]) -> dict[str, str]:
    """What is posted: "text", which Slack, Teams and Mattermost show, and the same in parts for programs."""
    product, recipe, version = (run.tags.get(name, "") for name in (PRODUCT_TAG, RECIPE_TAG, DATA_VERSION_TAG))
    why = " ".join(reasons) or "Its log says why."
    of = f" of {product}" if product else ""
    return {
        "text": f"Run {run.run_id[:8]}{of} failed: {why}",
        "run": run.run_id,
        "job": run.job_name,
        "product": product,
        "recipe": recipe,
        "data_version": version,
        "reason": why,
    }


def post(address: str, content: dict[str, str]) -> None:
    """Post a JSON object; three times where the other side is away.

    Raises:
        UserError: It is no address, or the other side does not take it.
        TransientError: It is away.
    """
    import urllib.error
    import urllib.request

    if not address.startswith(("https://", "http://")):
        raise UserError(f"{WEBHOOK} must begin with https:// or http://.")  # and is not shown: it may be a secret
    request = urllib.request.Request(  # noqa: S310 - the scheme was looked at
        address, json.dumps(content).encode(), {"Content-Type": "application/json"}
    )
    for pause_s in (*_PAUSES_S, None):
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S):  # noqa: S310
                return
        except urllib.error.HTTPError as error:
            problem = f"{WEBHOOK} answered {error.code}"
            if error.code < 500:
                raise UserError(f"{problem}: the address or what it expects is another.") from None
        except OSError as error:
            problem = f"{WEBHOOK} cannot be reached ({type(error).__name__})"
        if pause_s is not None:
            time.sleep(pause_s)
    raise TransientError(f"{problem}; tried {len(_PAUSES_S) + 1} times.")


def _reason(event: dg.DagsterEvent) -> str:
    failure = event.step_failure_data
    if failure.user_failure_data is not None:
        return f"{event.step_key}: {failure.user_failure_data.description}"
    return f"{event.step_key}: {failure.error_display_string.splitlines()[0]}"
