"""The pages that people follow: README.md, SECURITY.md and docs/. What they tell to type is typed here."""
