"""The sides of `benchmarks train`, each in a process of its own: ours, Olive's, TRL's and a bare loop."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks._rows import write_chats, write_sample

SHAPE_ROWS = {"sample": 240, "chat": 48, "documents": 10, "several turns": 36}
"""Rows of each shape, the sample's first ones among them; a folder of that name holds what is trained on."""
SHAPE_SEQ_LEN = 4096


def prepare(work: Path, epochs: float) -> dict[str, Any]:
    """Make base model and corpus with the steps themselves, unless they are there."""
    from phi3_assets import sample
    from phi3_assets.steps import BASE_MODEL, FORMATTED_CORPUS, RAW_DATASET

    datasets = Path(str(sample.__file__)).parent
    if work.name in SHAPE_ROWS:
        datasets = work / "datasets"
        if work.name == "sample":
            write_sample(datasets, SHAPE_ROWS[work.name])
        else:
            write_chats(datasets, work.name, SHAPE_ROWS[work.name])
    if not (work / "formatted_corpus" / "train.parquet").exists():
        step(RAW_DATASET, work, {"datasets": datasets})
        step(BASE_MODEL, work, {})
        inputs = {name: work / name for name in ("raw_dataset", "base_model")}
        step(FORMATTED_CORPUS, work, inputs, max_seq_len=SHAPE_SEQ_LEN)
    return {"epochs": epochs}


def batch_of(work: Path) -> dict[str, int]:
    """How the rows of an optimiser step are cut: documents go one by one, or their activations would not fit."""
    alone = work.name == "documents"
    rows = default_recipe().per_device_train_batch_size
    return {"per_device_train_batch_size": 1 if alone else rows, "gradient_accumulation_steps": rows if alone else 1}


def step(described: Any, work: Path, inputs: dict[str, Path], **overrides: Any) -> dict[str, Any]:
    """Run one step's function with the default recipe, into work/<name>."""
    import shutil

    from phi3_assets.core.recipe_file import load_recipe
    from phi3_assets.core.step import StepContext

    output, scratch = work / described.name, work / "scratch" / described.name
    for directory in (output, scratch):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    (work / "cache").mkdir(exist_ok=True)
    recipe = load_recipe("smol-cpu", overrides)
    ctx = StepContext(
        params=described.params(recipe),
        inputs=inputs,
        output=output,
        work=scratch,
        cache=work / "cache",
        log=lambda line: print(line, file=sys.stderr),
        settings=described.settings(recipe),
    )
    result: dict[str, Any] = described.load()(ctx)
    return result


def ours(work: Path, epochs: float, **overrides: Any) -> dict[str, Any]:
    """The step, as `phi3 run` runs it."""
    from phi3_assets.steps import LORA_ADAPTER

    inputs = {name: work / name for name in ("base_model", "formatted_corpus")}
    metrics = step(LORA_ADAPTER, work, inputs, num_train_epochs=epochs, replay_share=0.0, **batch_of(work), **overrides)
    return {"tokens_per_s": metrics["supervised_tokens_per_s"], "adapter": str(work / LORA_ADAPTER.name)}


def ours_sdpa(work: Path, epochs: float) -> dict[str, Any]:
    """The step with torch's attention, whatever its default on this machine."""
    return ours(work, epochs, attn_implementation="sdpa")


def olive_defaults(work: Path, epochs: float) -> dict[str, Any]:
    """Olive's LoRA pass with nothing set but our precision and the number of epochs."""
    return olive_side(work, epochs, "olive-defaults", {}, {})


def olive_seed(work: Path, epochs: float) -> dict[str, Any]:
    """Olive's LoRA pass with the values of the Phi-3 CookBook's example, by their names of today."""
    training = {
        "seed": 0,
        "data_seed": 42,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 4,
        "gradient_checkpointing": False,
        "learning_rate": 1e-4,
        "train_sampling_strategy": "group_by_length",
        "adam_beta2": 0.999,
        "max_grad_norm": 0.3,
    }
    lora = {"r": 64, "alpha": 64, "lora_dropout": 0.1, "target_modules": ["o_proj", "qkv_proj"]}
    return olive_side(work, epochs, "olive-seed", lora, training)


def olive_alike(work: Path, epochs: float) -> dict[str, Any]:
    """Olive's LoRA pass with our batch, rate and order by length."""
    recipe = default_recipe()
    training = {
        **batch_of(work),
        "gradient_checkpointing": False,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.lr_scheduler_type,
        "train_sampling_strategy": "group_by_length",
        "max_grad_norm": recipe.max_grad_norm,
    }
    lora = {
        "r": recipe.lora_r,
        "alpha": recipe.lora_alpha,
        "lora_dropout": recipe.lora_dropout,
        "target_modules": list(recipe.target_modules),
    }
    return olive_side(work, epochs, "olive-alike", lora, training)


def olive_side(work: Path, epochs: float, name: str, lora: dict[str, Any], training: dict[str, Any]) -> dict[str, Any]:
    """Olive's own pass, own collator and own order, on the rows and masks of our corpus."""
    from phi3_assets.olive import corpus
    from phi3_assets.olive.passes import olive_log, run_pass

    with olive_log():
        corpus.register()
        timer, callback = make_timer()
        config = {
            **lora,
            "torch_dtype": default_recipe().torch_dtype,
            "train_data_config": corpus.data_config(work / "formatted_corpus" / corpus.TRAIN_FILE, one_epoch()),
            "training_args": {**training, "num_train_epochs": epochs, "disable_tqdm": False} | precision(),
        }
        # Olive's pass builds the Trainer itself and takes no callbacks; this is where a notebook puts its own bar.
        with mock.patch("transformers.trainer.DEFAULT_PROGRESS_CALLBACK", callback):
            run_pass("LoRA", config, work / "base_model", work / name)
    return {"tokens_per_s": supervised(work) * epochs / timer["s"], "adapter": str(work / name / "adapter")}


def trl_packed(work: Path, epochs: float) -> dict[str, Any]:
    """TRL's SFTTrainer with rows packed; without flash attention they see one another."""
    return trl(work, epochs, packing=True)


def trl(work: Path, epochs: float, *, packing: bool = False) -> dict[str, Any]:
    """TRL's SFTTrainer on the same rows."""
    import pyarrow.parquet as pq
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
    from trl import SFTConfig, SFTTrainer

    recipe = default_recipe()
    rows = Dataset(pq.read_table(work / "formatted_corpus" / "train.parquet", columns=["input_ids", "labels"]))
    model = AutoModelForCausalLM.from_pretrained(work / "base_model", dtype=getattr(torch, recipe.torch_dtype))
    timer, callback = make_timer()
    set_seed(0)
    trainer = SFTTrainer(
        model=model,
        processing_class=AutoTokenizer.from_pretrained(work / "base_model"),
        train_dataset=rows,
        peft_config=lora_config(LoraConfig),
        callbacks=[callback],
        args=SFTConfig(
            output_dir=str(work / "trl"),
            num_train_epochs=epochs,
            **batch_of(work),
            learning_rate=recipe.learning_rate,
            lr_scheduler_type=recipe.lr_scheduler_type,
            max_grad_norm=recipe.max_grad_norm,
            train_sampling_strategy="random" if packing else "group_by_length",
            packing=packing,
            gradient_checkpointing=False,
            **precision(),
            max_length=max(map(len, rows["input_ids"])) if packing else None,
            save_strategy="no",
            logging_steps=50,
            report_to="none",
            disable_tqdm=True,
        ),
    )
    trainer.train()
    trainer.model.save_pretrained(work / "trl")
    return {"tokens_per_s": supervised(work) * epochs / timer["s"], "adapter": str(work / "trl")}


def peft(work: Path, epochs: float) -> dict[str, Any]:
    """A bare loop over the batches of ours, padded and with a mask, as a careful person would write it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.nn.utils.rnn import pad_sequence
    from transformers import AutoModelForCausalLM, get_scheduler, set_seed

    from phi3_assets.olive import corpus
    from phi3_assets.olive.configs import corpus_order

    recipe = default_recipe()
    order = corpus_order(
        recipe.model_dump() | {"num_train_epochs": epochs, "train_batch_rows": recipe.train_batch_rows}
    )
    rows = corpus.read_corpus(work / "formatted_corpus" / corpus.TRAIN_FILE, order)
    set_seed(0)
    base = AutoModelForCausalLM.from_pretrained(work / "base_model", dtype=getattr(torch, recipe.torch_dtype))
    base.config.use_cache = False
    model = get_peft_model(base, lora_config(LoraConfig)).train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=0.0)
    size = order.step_rows
    steps = -(-len(rows) // size)
    schedule = get_scheduler(recipe.lr_scheduler_type, optimiser, 0, steps)
    started = time.perf_counter()
    at_once = batch_of(work)["per_device_train_batch_size"]
    for at in range(0, len(rows), size):
        batch = [rows[number] for number in range(at, min(at + size, len(rows)))]
        learnt = sum(int((row["labels"] != -100).sum()) for row in batch)
        for part in (batch[first : first + at_once] for first in range(0, len(batch), at_once)):
            inputs = {
                "input_ids": pad_sequence([row["input_ids"] for row in part], batch_first=True, padding_value=2),
                "labels": pad_sequence([row["labels"] for row in part], batch_first=True, padding_value=-100),
                "attention_mask": pad_sequence([torch.ones_like(row["labels"]) for row in part], batch_first=True),
            }
            with torch.autocast("cpu", torch.bfloat16, enabled=precision()["bf16"]):
                loss = model(**inputs, num_items_in_batch=learnt).loss
            loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, recipe.max_grad_norm)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
    seconds = time.perf_counter() - started
    model.save_pretrained(work / "peft")
    return {"tokens_per_s": supervised(work) * epochs / seconds, "adapter": str(work / "peft")}


def default_recipe() -> Any:
    """The default recipe."""
    from phi3_assets.core.recipe_file import load_recipe

    return load_recipe("smol-cpu")


def precision() -> dict[str, bool]:
    """Arguments of a trainer: all sides multiply in the type that ours does on this machine."""
    return {"use_cpu": True, "bf16": default_recipe().torch_dtype == "bfloat16"}


def lora_config(kind: Any) -> Any:
    """PEFT's configuration of the default recipe's adapter."""
    recipe = default_recipe()
    return kind(
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=list(recipe.target_modules),
        task_type="CAUSAL_LM",
    )


def one_epoch() -> Any:
    """Every row once."""
    from phi3_assets.olive.corpus import CorpusOrder

    return CorpusOrder(num_train_epochs=1.0, max_steps=-1, step_rows=1, group_by_length=False, data_seed=42)


def supervised(work: Path) -> int:
    """Answer tokens of one epoch."""
    from phi3_assets.olive import corpus

    return corpus.read_corpus(work / "formatted_corpus" / corpus.TRAIN_FILE, one_epoch()).supervised_tokens


def make_timer() -> tuple[dict[str, float], Any]:
    """A callback that writes the seconds between the first step's start and the last one's end into the dictionary."""
    from transformers import TrainerCallback

    timer: dict[str, float] = {}

    class Timer(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            timer["start"] = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            timer["s"] = time.perf_counter() - timer["start"]

    return timer, Timer()


def held_out_nll(work: Path, adapter: str) -> float:
    """Mean NLL per token of the test set's answers, in nats."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from phi3_assets.training.batches import Attending, collate

    base = AutoModelForCausalLM.from_pretrained(work / "base_model", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter).eval()
    items = [json.loads(line) for line in (work / "formatted_corpus" / "test.jsonl").open(encoding="utf-8")]
    total, count = 0.0, 0
    with torch.inference_mode():
        for at in range(0, len(items), 8):
            rows = [
                {
                    "input_ids": torch.tensor(item["prompt_ids"] + item["answer_ids"]),
                    "labels": torch.tensor([-100] * len(item["prompt_ids"]) + item["answer_ids"]),
                }
                for item in items[at : at + 8]
            ]
            batch = collate(rows, 0, Attending.of(base.config, torch.float32, "sdpa"))
            tokens = len(batch["shift_labels"])
            total, count = total + float(model(**batch).loss) * tokens, count + tokens
    return total / count


SIDES: dict[str, Callable[[Path, float], dict[str, Any]]] = {
    "ours": ours,
    "ours sdpa": ours_sdpa,
    "olive defaults": olive_defaults,
    "olive seed": olive_seed,
    "olive alike": olive_alike,
    "trl": trl,
    "trl packed": trl_packed,
    "peft": peft,
}


def main(side: str, work: str, epochs: str) -> None:
    """One side, in this process; prints its numbers as the last line."""
    from phi3_assets.models import environment

    environment.prepare()
    directory = Path(work)
    directory.mkdir(parents=True, exist_ok=True)
    if side == "prepare":
        print(json.dumps(prepare(directory, float(epochs))))
        return
    numbers = SIDES[side](directory, float(epochs))
    adapter = numbers.pop("adapter")
    print(json.dumps({**numbers, "nll": held_out_nll(directory, adapter)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
