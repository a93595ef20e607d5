"""Pure functions from files to records and from records to tokens. No Dagster, no torch, no transformers.

Here stands what the rooms below share: records, fingerprints, caches and processes side by side.
"""

Message = tuple[str, str]
"""Role (system, user, assistant; or text, for a passage that nobody asked for) and content."""
