"""What is measured of a release bundle."""

from dataclasses import dataclass

from phi3_assets.core.measured import Metrics


@dataclass(frozen=True, kw_only=True)
class BundleMetrics(Metrics):
    """The bundle, and how it did in its own smoke test where it was made.

    Attributes:
        bytes: All its files but release.json.
        files: Number of files.
        digest: Content digest of what release.json names.
        licence: The base model's, as the Hugging Face Hub names it.
        base_model: Where the base model came from.
        smoke_questions: Questions that were asked; 0: it is for a GPU, and the machine had none.
        smoke_faults: What was wrong with the answers, each fault once.
        smoke_same_answers: Answers that are, token for token, those of the evaluation.
        smoke_tokens_per_s: Decoding speed; None: nothing was asked.
    """

    bytes: int
    files: int
    digest: str
    licence: str
    base_model: str
    smoke_questions: int
    smoke_faults: list[str]
    smoke_same_answers: int
    smoke_tokens_per_s: float | None = None
