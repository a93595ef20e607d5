"""docs/reference-recipe.md is what the types say today."""

from phi3_assets.core.recipe import Recipe
from phi3_assets_tests.docs.pages import ROOT


def test_the_reference_is_that_of_the_types(phi3_here):
    page = (ROOT / "docs" / "reference-recipe.md").read_text(encoding="utf-8")
    assert phi3_here("recipes", "--markdown") == page, "phi3 recipes --markdown > docs/reference-recipe.md"
    assert page.count("\n| `") == len(Recipe.model_fields)
