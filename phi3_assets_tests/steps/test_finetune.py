"""Fine-tuning: the masks reach the loss, the same seed gives the same bytes, and a killed run ends like any other."""

import json
import re
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.steps import LORA_ADAPTER, MERGED_MODEL, ONNX_INT4_MODEL
from phi3_assets.training.measured import TrainingMetrics, read_adapter_metrics
from phi3_assets_tests.steps.alone import assert_same
from phi3_assets_tests.steps.conftest import Chain, Made, RunStep
from phi3_assets_tests.steps.killing import train

WEIGHTS = "adapter_model.safetensors"
QLORA = {"method": "qlora", "compute_dtype": "float32", "max_steps": 1}


def test_adapter_learns_and_reports(tiny_adapter: Made) -> None:
    metrics = tiny_adapter.metrics
    assert metrics["final_loss"] < metrics["first_loss"]
    assert metrics["trainable_parameters"] == 5_120
    assert metrics["steps"] == 5
    assert metrics["epochs"] == 4.0
    assert metrics["b_norm_min"] > 0
    assert metrics["resumed_from_step"] == 0
    assert [numbers["step"] for numbers in tiny_adapter.progress] == [1, 2, 3, 4, 5]
    assert tiny_adapter.progress[-1]["fraction"] == 1.0
    assert {"loss", "learning_rate", "grad_norm", "tokens_per_s"} <= set(tiny_adapter.progress[-1])
    assert len(tiny_adapter.notes) == 5
    assert re.fullmatch(
        r"step 5/5 epoch 4\.000 loss \S+ learning_rate \S+ grad_norm \S+ tokens_per_s \d+", tiny_adapter.notes[-1]
    )


def test_metrics_are_read_back_as_they_were_measured(tiny_adapter: Made) -> None:
    """Check and UI agreed with the step on keys of a dictionary; a key that changed was found when a run failed."""
    read = read_adapter_metrics(json.loads(json.dumps(tiny_adapter.metrics)))
    assert isinstance(read, TrainingMetrics)
    assert read.to_dict() == tiny_adapter.metrics
    assert read.eval_loss is None
    with pytest.raises(UserError, match="no final_loss: another version"):
        read_adapter_metrics({name: value for name, value in tiny_adapter.metrics.items() if name != "final_loss"})


def test_artefact_holds_four_files_and_no_local_path(tiny_adapter: Made, tiny_base: Made) -> None:
    names = sorted(path.name for path in tiny_adapter.path.iterdir())
    assert names == ["adapter_config.json", WEIGHTS, "history.json", "loss.png"]
    assert json.loads((tiny_adapter.path / "adapter_config.json").read_text())["base_model_name_or_path"] is None
    assert (tiny_adapter.path / "loss.png").stat().st_size < 100_000


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_trainings_give_the_same_bytes(dtype: str, inputs: dict[str, Path], run_step: RunStep) -> None:
    made = [run_step(LORA_ADAPTER, inputs, lora_dropout=0.1, torch_dtype=dtype) for _ in range(2)]
    for path in made[0].path.iterdir():
        assert (made[1].path / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", 1),
        ("data_seed", 1),
        ("group_by_length", False),
        ("lora_dropout", 0.2),
        ("weight_decay", 0.5),
        ("adam_beta2", 0.9),
        ("max_grad_norm", 0.01),
        ("lr_scheduler_type", "cosine"),
        ("warmup_steps", 2),
        ("lora_alpha", 32.0),
        ("max_steps", 2),
        ("gradient_accumulation_steps", 2),
        ("torch_dtype", "bfloat16"),
    ],
)
def test_every_field_changes_the_adapter(field, value, inputs, tiny_reference, run_step) -> None:
    """A field that changed nothing would only make an equal adapter look new."""
    made = run_step(LORA_ADAPTER, inputs, **{field: value})
    assert (made.path / WEIGHTS).read_bytes() != (tiny_reference.path / WEIGHTS).read_bytes()


@pytest.fixture(scope="module")
def tiny_reference(inputs: dict[str, Path], run_step: RunStep) -> Made:
    return run_step(LORA_ADAPTER, inputs)


def test_first_loss_is_that_of_the_masked_labels(tiny_chain: Chain, run_step: RunStep) -> None:
    """Against transformers' own loss: of the answers' tokens alone, and not of the whole text."""
    import torch
    from transformers import AutoModelForCausalLM

    inputs = tiny_chain.inputs("base_model", "formatted_corpus")
    rows = pq.read_table(tiny_chain.formatted_corpus / "train.parquet").to_pylist()
    made = run_step(LORA_ADAPTER, inputs, per_device_train_batch_size=len(rows), max_steps=1)
    model = AutoModelForCausalLM.from_pretrained(tiny_chain.base_model)
    masked, whole, count = 0.0, 0.0, 0
    with torch.no_grad():
        for row in rows:
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
            supervised = int((labels != -100).sum())
            masked += float(model(input_ids=ids, labels=labels).loss) * supervised
            whole += float(model(input_ids=ids, labels=ids).loss) / len(rows)
            count += supervised
    assert made.metrics["first_loss"] == pytest.approx(masked / count, abs=1e-5)
    assert abs(whole - masked / count) > 0.01  # the two can be told apart here


def test_accumulated_batches_weigh_tokens_not_batches(inputs: dict[str, Path], run_step: RunStep) -> None:
    """The 2024 gradient accumulation bug: rows of unequal length were averaged batch by batch."""
    import torch
    from safetensors.torch import load_file

    whole, parts = (
        run_step(
            LORA_ADAPTER, inputs, per_device_train_batch_size=size, gradient_accumulation_steps=8 // size, max_steps=3
        )
        for size in (8, 1)
    )
    left, right = load_file(whole.path / WEIGHTS), load_file(parts.path / WEIGHTS)
    for name, tensor in left.items():
        torch.testing.assert_close(right[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", ["dora", "qlora"])
def test_other_methods_go_through_to_int4(method, inputs, run_step, tiny_reference) -> None:
    adapter = run_step(LORA_ADAPTER, inputs, method=method, compute_dtype="float32", num_train_epochs=4.0)
    assert adapter.metrics["final_loss"] < adapter.metrics["first_loss"]
    config = json.loads((adapter.path / "adapter_config.json").read_text())
    assert config["use_dora"] == (method == "dora")
    assert config["target_modules"] == ["o_proj", "qkv_proj"]  # Olive's QLoRA would take every linear layer
    merged = run_step(MERGED_MODEL, {"base_model": inputs["base_model"], "lora_adapter": adapter.path})
    assert merged.metrics["dtype"] == "float32"
    assert "quantization_config" not in (merged.path / "config.json").read_text()
    assert run_step(ONNX_INT4_MODEL, {"merged_model": merged.path}).metrics["generated_tokens"] > 0


@pytest.mark.parametrize(
    ("field", "value"), [("quant_type", "fp4"), ("double_quant", False), ("compute_dtype", "bfloat16")]
)
def test_every_field_of_qlora_changes_the_adapter(field, value, inputs, qlora_reference, run_step) -> None:
    made = run_step(LORA_ADAPTER, inputs, **{**QLORA, field: value})
    assert (made.path / WEIGHTS).read_bytes() != (qlora_reference.path / WEIGHTS).read_bytes()


@pytest.fixture(scope="module")
def qlora_reference(inputs: dict[str, Path], run_step: RunStep) -> Made:
    return run_step(LORA_ADAPTER, inputs, **QLORA)


@pytest.fixture(scope="module")
def uninterrupted(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("uninterrupted")
    assert train(inputs, root) == 0
    return root / "output"


def test_killed_training_resumes_and_ends_bit_equal(inputs, uninterrupted: Path, tmp_path: Path) -> None:
    """Also across an epoch and between two points of the loss curve; a half-written checkpoint is not resumed from."""
    assert train(inputs, tmp_path, kill_at=12) == 9
    checkpoints = tmp_path / "work" / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["checkpoint-10", "checkpoint-11"]
    (checkpoints / "checkpoint-11" / "trainer_state.json").write_text('{"cut off')
    assert train(inputs, tmp_path) == 0
    assert_same(uninterrupted, tmp_path / "output")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, -signal.SIGTERM),
        pytest.param(signal.SIGINT, 1, marks=pytest.mark.slow),  # 1: KeyboardInterrupt ended the script
    ],
)
def test_signal_writes_a_checkpoint_first(number, code, inputs, uninterrupted: Path, tmp_path: Path) -> None:
    """Before any checkpoint is due by the clock; and the signal then does what it does to any process."""
    assert train(inputs, tmp_path, kill_at=8, number=number) == code
    (checkpoint,) = (tmp_path / "work" / "checkpoints").iterdir()
    assert checkpoint.name == "checkpoint-9"  # the signal came while step 8 was logged
    assert train(inputs, tmp_path) == 0
    assert_same(uninterrupted, tmp_path / "output")


def test_target_modules_of_another_model_are_refused(inputs: dict[str, Path], run_step: RunStep) -> None:
    """PhiCookBook #185: q_proj and k_proj do not exist in Phi-3."""
    with pytest.raises(UserError, match=r"no linear layer 'q_proj'.*qkv_proj"):
        run_step(LORA_ADAPTER, inputs, target_modules=["o_proj", "q_proj"])


def test_loss_that_is_not_finite_stops(inputs: dict[str, Path], run_step: RunStep) -> None:
    with pytest.raises(UserError, match=r"loss is .* at step .*Lower learning_rate"):
        run_step(LORA_ADAPTER, inputs, learning_rate=1e20, max_grad_norm=1e20, num_train_epochs=20.0)


def test_inert_adapter_is_refused(inputs: dict[str, Path], run_step: RunStep) -> None:
    with pytest.raises(UserError, match=r"adapter is inert.*learning_rate"):
        run_step(LORA_ADAPTER, inputs, learning_rate=1e-30, warmup_steps=1, max_steps=1)


def test_corpus_without_rows_is_refused(inputs: dict[str, Path], run_step: RunStep, tmp_path: Path) -> None:
    table = pq.read_table(inputs["formatted_corpus"] / "train.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "train.parquet")
    with pytest.raises(UserError, match="no training rows"):
        run_step(LORA_ADAPTER, {**inputs, "formatted_corpus": tmp_path})


def test_row_that_teaches_nothing_is_refused(inputs: dict[str, Path], run_step: RunStep, tmp_path: Path) -> None:
    rows = pq.read_table(inputs["formatted_corpus"] / "train.parquet")
    labels = rows["labels"].to_pylist()
    labels[2] = [-100] * len(labels[2])
    table = rows.set_column(rows.column_names.index("labels"), "labels", pa.array(labels, pa.list_(pa.int32())))
    pq.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"Row 2 .*no label to learn"):
        run_step(LORA_ADAPTER, {**inputs, "formatted_corpus": tmp_path})
