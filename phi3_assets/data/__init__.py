"""Pure functions from files to records and from records to tokens. No Dagster, no torch, no transformers.

Here stands what the rooms below share: records, fingerprints, caches and processes side by side.
"""

Message = tuple[str, str]
"""Role (system, user, assistant, `NOT_LEARNT`; or text, for a passage that nobody asked for) and content."""

NOT_LEARNT = "assistant, not learnt"
"""Role of an answer that stands in a conversation and is not to be learnt, as its `weight` of 0 says."""


def spoken_role(role: str) -> str:
    """The role that a chat template knows."""
    return "assistant" if role == NOT_LEARNT else role
