"""The UI as a person uses it: a real browser, a real `phi3 ui`, and what stands on the screen.

`pytest -m browser` runs it; `python -m phi3_assets_tests.browser.pictures HOME` takes the pictures of docs/images with
the same functions.
"""
