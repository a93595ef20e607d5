"""What a rule finds: the answer of every check and of every gate, in one form."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """One rule, applied.

    Attributes:
        rule: Its name, which is the name of the check that shows it.
        passed: Whether what was judged complies.
        sentence: Why, in one sentence with the numbers.
        numbers: The same numbers, for plots over time; finite.
    """

    rule: str
    passed: bool
    sentence: str
    numbers: dict[str, float] = field(default_factory=dict)
