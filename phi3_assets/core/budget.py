"""How large the int4 model may be, as recipe field int4_budget says it."""

import re
from dataclasses import dataclass

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class Budget:
    """Bytes, or a share of the bytes that Olive's default takes; one of the two.

    Attributes:
        size_bytes: Graph and weights together; 0: `share` says it.
        share: Of Olive's default; 0: `size_bytes` says it.
    """

    size_bytes: int = 0
    share: float = 0.0

    def limit(self, default_bytes: int) -> int:
        """Most bytes, where Olive's default takes so many."""
        return self.size_bytes or int(self.share * default_bytes)


def parse_budget(text: str) -> Budget:
    """Read "85 MB" (10**6 bytes), "1.9 GB", or a share such as "0.4".

    Raises:
        ValueError: It is neither, or nothing is left.
    """
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([KMG]B)?", text.strip(), re.IGNORECASE)
    number = float(found[1]) if found else 0.0
    if found is None or number <= 0 or (not found[2] and number > 1):
        raise ValueError(f"{text!r} must be a size such as 85 MB, or a share of Olive's default of at most 1, as 0.4")
    return Budget(size_bytes=int(number * _UNITS[found[2].upper()])) if found[2] else Budget(share=number)
