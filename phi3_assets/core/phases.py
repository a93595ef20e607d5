"""How far a step is that does several things one after the other, each of which knows only how far it is itself."""

from collections.abc import Mapping

from phi3_assets.core.step import ProgressCallback


class Phases:
    """The parts of a step in their order, as shares of its time; the shares need only be about right."""

    def __init__(self, progress: ProgressCallback, seconds: Mapping[str, float]) -> None:
        """`seconds` is how long each takes relative to the others."""
        self._progress = progress
        total = sum(seconds.values())
        self._spans: dict[str, tuple[float, float]] = {}
        done = 0.0
        for name, one in seconds.items():
            self._spans[name] = (done / total, one / total)
            done += one

    def part(self, name: str) -> ProgressCallback:
        """What the part of this name reports to: its `fraction` becomes that of the step. It begins now."""
        start, share = self._spans[name]

        def progress(**numbers: float) -> None:
            if "fraction" in numbers:
                numbers["fraction"] = start + share * numbers["fraction"]
            self._progress(**numbers)

        progress(fraction=0.0)
        return progress
