"""The recipe's fields about how a model is made: fine-tuning and quantising."""

from typing import Literal

import pydantic

from phi3_assets.core.budget import parse_budget
from phi3_assets.core.fields import field
from phi3_assets.core.machine import multiplies_bfloat16
from phi3_assets.core.recipe_data import DataFields


class ModelFields(DataFields):
    """See `phi3_assets.core.recipe.Recipe`."""

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
        "nf4",
        "lora_adapter",
        description="4-bit type of the base model in training (qlora).",
    )
    double_quant: bool = field(
        True,
        "lora_adapter",
        description="Quantise the scales of the 4-bit base model too (qlora).",
    )
    merge_onto: Literal["trained", "full"] = field(
        "trained",
        "merged_model",
        description="What the adapter goes into: trained, what its training saw of the base model, which with qlora is "
        "rounded to 4 bits and back; full, the base model as it is.",
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
    attn_implementation: Literal["auto", "sdpa", "flash_attention_2"] = field(
        "auto",
        setting_of="lora_adapter",
        description="Attention in training. auto: on a CPU in bfloat16 our own, in blocks of queries, else sdpa, "
        "torch's; flash_attention_2: the package flash-attn, on a GPU in bfloat16, which packs rows without a mask.",
    )
    group_by_length: bool = field(True, "lora_adapter", description="Batch rows of like length together: less padding.")
    weight_decay: float = field(0.0, "lora_adapter", ge=0, description="Decoupled weight decay of AdamW.")
    adam_beta2: float = field(0.999, "lora_adapter", gt=0, lt=1, description="Second-moment decay of AdamW.")
    max_grad_norm: float = field(0.3, "lora_adapter", gt=0, description="Gradients are clipped to this norm.")
    torch_dtype: Literal["float32", "bfloat16", "auto"] = field(
        "float32",
        "lora_adapter",
        "onnx_int4_model",
        description="Base model and arithmetic in training, and arithmetic of the recovery; what is learnt is float32 "
        "always. bfloat16 is slow on CPUs that only emulate it; auto: bfloat16 where the processor of the machine that "
        "reads the recipe multiplies it (AVX512-BF16, AMX), else float32; the identity says which.",
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

    @property
    def train_batch_rows(self) -> int:
        """Rows of one optimiser step: the effective batch size, however it is cut into batches and processes."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * self.processes

    @pydantic.model_validator(mode="after")
    def _quantisable(self) -> "ModelFields":
        # onnxruntime-genai 0.14.1 builds it without complaint, and the model babbles: NLL 2.9 where 1.3 is usual.
        if self.int4_algorithm.startswith("k_quant") and self.int4_symmetric:
            raise ValueError(f"int4_symmetric: must be false with int4_algorithm {self.int4_algorithm}")
        return self

    @pydantic.model_validator(mode="after")
    def _recoverable(self) -> "ModelFields":
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

    @pydantic.field_validator("torch_dtype")
    @classmethod
    def _of_this_machine(cls, given: str) -> str:
        # Decided here, so that an identity names what computed.
        return given if given != "auto" else "bfloat16" if multiplies_bfloat16() else "float32"

    @pydantic.field_validator("int4_budget", mode="before")
    @classmethod
    def _budget(cls, given: object) -> object:
        # 0.4 is a number in YAML.
        text = str(given) if isinstance(given, float | int) and not isinstance(given, bool) else given
        if isinstance(text, str) and text:
            parse_budget(text)
        return text

    @pydantic.model_validator(mode="after")
    def _watched(self) -> "ModelFields":
        if self.early_stopping_patience and not self.eval_share:
            raise ValueError("early_stopping_patience: needs held-out rows, so set eval_share too, such as 0.1")
        return self
