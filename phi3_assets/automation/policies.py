"""What holds for assets as such: when they are to be made anew without anybody asking, and when they are too old."""

import datetime as dt

import dagster as dg

from phi3_assets.ops.run_tags import DATASETS_ASSET

# `eager` alone goes on in a later tick with what a blocking check refused: a check holds back its own run only.
FOLLOWS_DATA = (dg.AutomationCondition.eager() & dg.AutomationCondition.all_deps_blocking_checks_passed()).with_label(
    "follows_data"
)

# Each night's run makes it anew or finds it standing; a week without either is a schedule that is off or fails.
FRESH = dg.FreshnessPolicy.time_window(fail_window=dt.timedelta(days=7), warn_window=dt.timedelta(days=2))
_WATCHED_FOR_AGE = dg.AssetKey("release_bundle")

follow_data = dg.AutomationConditionSensorDefinition(
    "follow_data",
    target=dg.AssetSelection.all() | dg.AssetSelection.assets(DATASETS_ASSET),
    description="The other way to retrain: asset by asset, whatever the data, a recipe's code or a person made out of "
    "date, and nothing behind a failed blocking check. Looks at the files every hour. Turn on either this or new_data, "
    "which knows retrain_min_new_rows, retrain_quiet_minutes and retrain_runs_a_day.",
)


def with_policies(spec: dg.AssetSpec) -> dg.AssetSpec:
    """The asset with the policies that it is under."""
    spec = spec.replace_attributes(automation_condition=FOLLOWS_DATA)
    return spec.replace_attributes(freshness_policy=FRESH) if spec.key == _WATCHED_FOR_AGE else spec
