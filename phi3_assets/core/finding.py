"""What a rule finds: passed or not, and one sentence with the numbers. Checks, plans and the gate ask alike."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """One rule, applied.

    Attributes:
        rule: Its name.
        passed: Whether what was judged complies.
        sentence: Why, in one sentence or two with the numbers, and the way out where it does not.
        numbers: The same numbers, for plots over time; finite.
    """

    rule: str
    passed: bool
    sentence: str
    numbers: dict[str, float] = field(default_factory=dict)
