"""What is measured of the int4 model."""

from dataclasses import dataclass

from phi3_assets.core.measured import Metrics


@dataclass(frozen=True, kw_only=True)
class Int4Metrics(Metrics):
    """Of the int4 model.

    Attributes:
        bytes: All its files.
        model_bytes: Graph and weights.
        files: Number of files.
        build_seconds: Time that quantising took.
        block_size: Weights that share a scale.
        algorithm: Recipe field int4_algorithm.
        symmetric: Whether the 4-bit grid is centred on zero.
        accuracy_level: Recipe field int4_accuracy_level.
        provider: Where it will run.
        eos_token_ids: Tokens that end an answer.
        max_length: Longest sequence, prompt and answer, in tokens.
        generated_tokens: Generated as a proof that it runs; 0 where the provider cannot run here.
    """

    bytes: int
    model_bytes: int
    files: int
    build_seconds: float
    block_size: int
    algorithm: str
    symmetric: bool
    accuracy_level: int
    provider: str
    eos_token_ids: list[int]
    max_length: int
    generated_tokens: int
