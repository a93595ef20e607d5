"""The one error a user is meant to read.

Everything raised on purpose in this package is a `UserError`: its text says what is wrong, where, why, and the way
out. It is shown without a traceback. Any other exception is a defect and keeps its traceback.
"""


class UserError(Exception):
    """Bad input, configuration or surroundings; retrying without a change would fail again."""


class TransientError(Exception):
    """The surroundings failed, and may not do so the next time: a neighbour held the memory, a service was away."""


class DamagedArtefact(UserError):
    """A published artefact no longer holds the bytes its manifest promises."""


def nearest(name: str, known: list[str]) -> str:
    """Return " Did you mean 'x'?" for the known name closest to `name`, or "" when none is close."""
    from difflib import get_close_matches

    match = get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {match[0]!r}?" if match else ""
