"""What an identity is made of."""

from phi3_assets.core.manifest import ArtefactRef
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.ops.planning import make_call
from phi3_assets.steps import EVAL_REPORT, MERGED_MODEL


def identity(step, made_by):
    inputs = {name: ArtefactRef(name, made_by * 64, "d" * 64) for name in step.inputs}
    return make_call(step, load_recipe("tiny-test"), inputs).identity


def test_a_step_that_names_what_it_is_about_is_made_anew_when_that_is_another_artefact():
    """A report names identity and recipe of what it scored: of equal content made otherwise it would be wrong."""
    assert identity(EVAL_REPORT, "a") != identity(EVAL_REPORT, "b")
    assert identity(MERGED_MODEL, "a") == identity(MERGED_MODEL, "b")
