"""Recovery: scales learn, integers stay, and the int4 model answers as the torch side says it would.

int4 once answered three of four held-out questions that the merged model answers all of, and no rule objected.
"""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from phi3_assets.core import memory
from phi3_assets.core.errors import UserError
from phi3_assets.core.sealing import seal
from phi3_assets.models import genai
from phi3_assets.models.directory import copy_model
from phi3_assets.olive import configs, corpus
from phi3_assets.olive.int4_configs import quantising_passes
from phi3_assets.olive.passes import olive_log, run_pass
from phi3_assets.quantising import forecast, learning, need, recovery
from phi3_assets.quantising.blocks import load_student
from phi3_assets.quantising.divergence import BATCH_TOKENS, batches_of, divergence, hidden_of, mean_divergence
from phi3_assets.quantising.taught import Taught
from phi3_assets.steps import ONNX_INT4_MODEL
from phi3_assets.training.replay import REPLAY_FILE, write_texts
from phi3_assets_tests.steps.alone import assert_same, metrics_of
from phi3_assets_tests.steps.conftest import Chain, Made, RunStep, config_of, tiny_recipe
from phi3_assets_tests.steps.killing_recovery import FIELDS, quantise

STEPS = FIELDS["int4_recovery_steps"]


@pytest.fixture(scope="module")
def inputs(tiny_chain: Chain) -> dict[str, Path]:
    return tiny_chain.inputs("merged_model", "formatted_corpus")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the models before and after the recovery are kept."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def recovered(inputs: dict[str, Path], run_step: RunStep, kept: Path) -> Made:
    return recover_and_keep(inputs, run_step, kept)


def recover_and_keep(inputs: dict[str, Path], run_step: RunStep, kept: Path, **fields: str) -> Made:
    """A recovered int4 model; the directories that it was made of are copied to `kept` before they go."""
    real = recovery.write_learnt

    def write_and_keep(new: Any, quantised: Path, target: Path) -> None:
        real(new, quantised, target)
        shutil.copytree(quantised, kept / "before")
        shutil.copytree(target, kept / "after")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recovery, "write_learnt", write_and_keep)
        return run_step(ONNX_INT4_MODEL, inputs, **FIELDS, **fields)


@pytest.fixture(scope="module")
def uninterrupted(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("uninterrupted")
    assert quantise(inputs, root) == 0
    return root


def tensors(directory: Path) -> dict[str, torch.Tensor]:
    return {name: one for path in sorted(directory.glob("*.safetensors")) for name, one in load_file(path).items()}


def prompts(inputs: dict[str, Path]) -> list[list[int]]:
    lines = (inputs["formatted_corpus"] / "test.jsonl").read_text().splitlines()
    return [json.loads(line)["prompt_ids"] for line in lines]


def genai_logits(model: Any, ids: list[int]) -> Any:
    generator = genai.new_generator(model, len(ids) + 1)
    generator.append_tokens(ids)
    return np.asarray(generator.get_output("logits")[0])


def test_scales_and_norms_move_and_integers_do_not(recovered: Made, kept: Path) -> None:
    before, after = tensors(kept / "before"), tensors(kept / "after")
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if name.endswith(".scales") or "norm" in name}


def test_divergence_falls_and_all_of_it_is_told(recovered: Made) -> None:
    metrics = recovered.metrics
    assert metrics["recovery_steps"] == STEPS
    assert metrics["recovery_divergence_after"] < 0.7 * metrics["recovery_divergence_before"]
    assert 0 < metrics["recovery_largest_scale_change"] < 0.2
    assert [one["step"] for one in recovered.progress if "step" in one] == list(range(1, STEPS + 1))
    assert recovered.progress[-1]["fraction"] == 1


def test_what_the_training_replayed_is_learnt_from_too(
    inputs: dict[str, Path], recovered: Made, kept: Path, run_step: RunStep, tiny_chain: Chain, tmp_path: Path
) -> None:
    """It learnt from the corpus alone, and int4 forgot a third more of the language than the merged model had."""
    write_texts(tiny_chain.base_model, 12, 0, "float32", tmp_path / REPLAY_FILE)
    made = recover_and_keep({**inputs, "lora_adapter": tmp_path}, run_step, tmp_path)
    assert any(line.startswith("12 texts that the base model wrote") for line in made.log)
    teacher = AutoModelForCausalLM.from_pretrained(inputs["merged_model"], dtype=torch.float32)
    columns = pq.read_table(tmp_path / REPLAY_FILE).to_pylist()
    rows = [{name: torch.tensor(one) for name, one in row.items()} for row in columns]
    with_texts, without = (
        mean_divergence(teacher, load_student(folder / "after", torch.float32), rows) for folder in (tmp_path, kept)
    )
    assert with_texts < 0.95 * without


@pytest.mark.parametrize("hidden_size", [1, 100_000])
def test_the_teacher_is_asked_once_about_rows_that_come_again(
    inputs: dict[str, Path], hidden_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In both layouts; what it said is what it says."""
    order = corpus.CorpusOrder(1.0, 9, step_rows=8, group_by_length=True, data_seed=0)
    rows = corpus.read_corpus(inputs["formatted_corpus"] / "train.parquet", order)
    teacher = AutoModelForCausalLM.from_pretrained(inputs["merged_model"], dtype=torch.float32)
    teacher.config.hidden_size = hidden_size  # decides between the layouts
    monkeypatch.setattr("phi3_assets.quantising.taught.KEPT_BYTES", 1 << 40)
    taught = Taught(teacher, rows)
    for at in range(0, len(rows), 8):
        (batch,) = batches_of([rows[place] for place in range(at, at + 8)], config_of(hidden_size))
        computed = hidden_of(teacher, batch, torch.float32)
        with monkeypatch.context() as patch:
            patch.setattr("phi3_assets.quantising.taught.hidden_of", None)
            kept = taught.of(batch, range(at, at + 8))
        assert torch.allclose(kept, computed, atol=1e-5)
    once = corpus.read_corpus(inputs["formatted_corpus"] / "train.parquet", replace(order, max_steps=2))
    assert torch.equal(
        Taught(teacher, once).of(batch, range(8)), hidden_of(teacher, batch, torch.float32)
    )  # not worth it: computed


def test_every_part_tells_how_far_it_is(recovered: Made) -> None:
    """int4 was silent but for the recovery: while Gptq ran, a minute of the default model's seven, and at its end."""
    fractions = [one["fraction"] for one in recovered.progress]
    assert fractions == sorted(fractions)
    learning = [one["fraction"] for one in recovered.progress if "step" in one]
    assert sum(fraction < learning[0] for fraction in fractions) > 4  # layers of Gptq
    assert sum(fraction > learning[-1] for fraction in fractions) > 2  # layers that the builder reads, and the end


def test_int4_answers_as_torch_predicts(recovered: Made, kept: Path, inputs: dict[str, Path]) -> None:
    """And not as the model before the recovery, which would be the case if its scales were exported."""
    sides = {name: load_student(kept / name, torch.float32) for name in ("before", "after")}
    loaded = genai.load_model(recovered.path)
    errors = {"before": 0.0, "after": 0.0}
    for ids in prompts(inputs):
        found = genai_logits(loaded, ids)
        for name, student in sides.items():
            with torch.no_grad():
                wanted = student(input_ids=torch.tensor([ids])).logits[0].numpy()
            errors[name] += float(np.abs(found - wanted).mean())
    assert errors["after"] < 0.5 * errors["before"]


def test_student_before_it_learns_is_olives_model(kept: Path, recovered: Made, inputs: dict[str, Path]) -> None:
    from olive.model import HfModelHandler

    with olive_log():
        olives = HfModelHandler(model_path=str(kept / "before")).load_model()
        ours = load_student(kept / "before", torch.float32)
    ids = torch.tensor([prompts(inputs)[0]])
    with torch.no_grad():
        assert torch.allclose(ours(input_ids=ids).logits, olives(input_ids=ids).logits, atol=1e-6)


def test_gradient_of_a_change_is_that_of_its_definition(kept: Path, recovered: Made) -> None:
    """The layers compute it by themselves, so as not to keep their weights; here torch does."""
    student = load_student(kept / "before", torch.float32)
    blocks = [module for module in student.modules() if hasattr(module, "learnt_scales")]
    assert {module.integers.dtype for module in blocks} == {torch.int8}
    for module in blocks:
        weight = module()
        direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        (found,) = torch.autograd.grad((weight * direction).sum(), module.change)
        integers = module.integers.view(*module.scales.shape, -1)
        plain = (integers * module.scales[..., None] * (1 + module.change)[..., None]).view(weight.shape)
        assert torch.allclose(weight, plain)
        (wanted,) = torch.autograd.grad((plain * direction).sum(), module.change)
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_batches_sum_to_the_same_loss_however_rows_are_cut_and_laid_out(
    kept: Path, recovered: Made, inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, student = (load_student(kept / name, torch.float32) for name in ("after", "before"))
    rows = corpus.read_corpus(
        inputs["formatted_corpus"] / "train.parquet", corpus.CorpusOrder(1.0, 1, 8, group_by_length=False, data_seed=0)
    )
    step = [rows[at] for at in range(8)]
    sums = []
    for tokens, hidden_size, batches, shared in (
        (BATCH_TOKENS, 1, 1, False),
        (BATCH_TOKENS, 100_000, 1, True),
        (1, 1, 8, False),
        (128, 100_000, 2, True),
    ):
        monkeypatch.setattr("phi3_assets.quantising.divergence.BATCH_TOKENS", tokens)
        cut = batches_of(step, config_of(hidden_size))
        assert len(cut) >= batches
        assert any(batch.visible is not None for batch in cut) == shared
        with torch.no_grad():
            sums.append(sum(float(divergence(teacher, student, batch)) for batch in cut))
    assert sums == pytest.approx([sums[0]] * 4, rel=1e-4)
    assert sums[0] > 0


@pytest.mark.parametrize("hidden_size", [1, 100_000])
def test_arithmetic_in_bfloat16_learns_in_float32(
    hidden_size: int, kept: Path, recovered: Made, inputs: dict[str, Path]
) -> None:
    """As on a GPU, in both layouts of rows."""
    teacher = load_student(kept / "after", torch.bfloat16).bfloat16().requires_grad_(False)
    student = load_student(kept / "before", torch.bfloat16)
    rows = corpus.read_corpus(
        inputs["formatted_corpus"] / "train.parquet", corpus.CorpusOrder(1.0, 1, 8, group_by_length=False, data_seed=0)
    )
    (batch,) = batches_of([rows[at] for at in range(8)], config_of(hidden_size))
    loss = divergence(teacher, student, batch)
    loss.backward()
    assert 0 < float(loss.detach()) < 20
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.dtype == torch.float32, name
            assert float(parameter.grad.abs().max()) > 0, name


@pytest.mark.parametrize(("number", "resumed"), [(signal.SIGKILL, 6), (signal.SIGTERM, 7)])
def test_killed_recovery_resumes_and_ends_in_the_same_bytes(
    number: int, resumed: int, inputs: dict[str, Path], uninterrupted: Path, tmp_path: Path
) -> None:
    assert quantise(inputs, tmp_path, 7, number) != 0
    assert [path.name for path in (tmp_path / "work" / "checkpoints").iterdir()] == [f"checkpoint-{resumed}"]
    assert quantise(inputs, tmp_path) == 0
    assert metrics_of(tmp_path)["recovery_resumed_from_step"] == resumed
    assert_same(uninterrupted / "output", tmp_path / "output")
    assert list((tmp_path / "work").iterdir()) == []


def test_checkpoint_of_other_integers_is_not_resumed(
    inputs: dict[str, Path], uninterrupted: Path, tmp_path: Path
) -> None:
    """Gptq on another machine may round otherwise; scales that were learnt for other integers would be wrong."""
    assert quantise(inputs, tmp_path, 7, signal.SIGTERM) != 0
    folder = tmp_path / "work" / "checkpoints" / "checkpoint-7"
    state = torch.load(folder / "recovery.pt", weights_only=True)
    state["of"]["integers"] = {"model.safetensors": "another"}
    torch.save(state, folder / "recovery.pt")
    seal(folder, folder.name)
    assert quantise(inputs, tmp_path) == 0
    assert "checkpoint of step 7 is not resumed from: it is of other integers" in (tmp_path / "log").read_text()
    assert metrics_of(tmp_path)["recovery_resumed_from_step"] == 0
    assert_same(uninterrupted / "output", tmp_path / "output")


def test_damaged_integers_are_made_anew(inputs: dict[str, Path], uninterrupted: Path, tmp_path: Path) -> None:
    assert quantise(inputs, tmp_path, 7, signal.SIGTERM) != 0
    path = tmp_path / "work" / "rtn" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert quantise(inputs, tmp_path) == 0
    assert_same(uninterrupted / "output", tmp_path / "output")


def test_without_recovery_the_bytes_are_those_of_olives_passes(
    inputs: dict[str, Path], run_step: RunStep, tmp_path: Path
) -> None:
    off = {**FIELDS, "int4_recovery_steps": 0, "int4_embedding_bits": 8}
    made = run_step(ONNX_INT4_MODEL, inputs, **off)
    assert not [name for name in made.metrics if name.startswith("recovery")]
    params = ONNX_INT4_MODEL.params(tiny_recipe(**off))
    model: Any = inputs["merged_model"]
    with olive_log():
        corpus.register()
        passes = quantising_passes(model, params, 512, inputs["formatted_corpus"] / "train.parquet")
        for name, config in passes.items():
            given = {key: value for key, value in config.items() if key != "type"}
            model = run_pass(config["type"], given, model, tmp_path / name, provider=configs.PROVIDERS["cpu"])
    for name in ("model.onnx", "model.onnx.data"):
        assert (made.path / name).read_bytes() == (tmp_path / "tie" / name).read_bytes()


def test_embeddings_in_4_bits_are_smaller(recovered: Made, inputs: dict[str, Path], run_step: RunStep) -> None:
    wide = run_step(ONNX_INT4_MODEL, inputs, **{**FIELDS, "int4_embedding_bits": 8, "int4_recovery_steps": 1})
    assert recovered.metrics["model_bytes"] < wide.metrics["model_bytes"] - 512 * 64 // 2 + 100
    assert recovered.metrics["generated_tokens"] > 0


def test_model_in_bfloat16_is_recovered_too(inputs: dict[str, Path], run_step: RunStep, tmp_path: Path) -> None:
    """As Phi-3-mini is; what is learnt is written in float32, in which the device computes."""
    half = tmp_path / "merged"
    half.mkdir()
    copy_model(inputs["merged_model"], half)
    for path in half.glob("*.safetensors"):
        save_file({name: one.to(torch.bfloat16) for name, one in load_file(path).items()}, path, {"format": "pt"})
    config = json.loads((half / "config.json").read_text())
    (half / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    made = run_step(ONNX_INT4_MODEL, {**inputs, "merged_model": half}, **FIELDS)
    assert made.metrics["recovery_divergence_after"] < 0.7 * made.metrics["recovery_divergence_before"]
    assert made.metrics["generated_tokens"] > 0


def test_multiplying_in_bfloat16_recovers_as_much(
    recovered: Made, inputs: dict[str, Path], run_step: RunStep, kept: Path, tmp_path: Path
) -> None:
    made = recover_and_keep(inputs, run_step, tmp_path, torch_dtype="bfloat16")
    before = recovered.metrics["recovery_divergence_before"]
    assert made.metrics["recovery_divergence_before"] == before
    assert made.metrics["recovery_divergence_after"] == pytest.approx(
        recovered.metrics["recovery_divergence_after"], abs=0.05 * before
    )
    exact, halved = tensors(kept / "after"), tensors(tmp_path / "after")
    assert any(not torch.equal(exact[name], halved[name]) for name in exact)


def test_too_little_memory_is_refused_before_a_model_is_loaded(
    inputs: dict[str, Path], run_step: RunStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 0)
    monkeypatch.setattr(need.Forecast, "begin", lambda *given: None)  # quantising itself would be refused sooner
    monkeypatch.setattr(recovery, "load_student", lambda *given: pytest.fail("a model was loaded"))
    with pytest.raises(
        UserError, match=r"needs about .* of memory even block by block \(teacher .*Set int4_recovery_steps: 0"
    ):
        run_step(ONNX_INT4_MODEL, inputs, **FIELDS)


def test_recomputing_to_fit_gives_the_same_bytes(
    recovered: Made, inputs: dict[str, Path], run_step: RunStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast.Memory, "choose_or_refuse", lambda self, log: forecast.Way.RECOMPUTING)
    made = run_step(ONNX_INT4_MODEL, inputs, **FIELDS)
    assert_same(recovered.path, made.path)


def test_divergence_that_is_not_finite_is_told(
    inputs: dict[str, Path], run_step: RunStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "rate", lambda step, steps: float("inf"))
    with pytest.raises(UserError, match="Recovery broke down.*at step 2 of 12. Set int4_recovery_steps: 0"):
        run_step(ONNX_INT4_MODEL, inputs, **FIELDS)


def test_rate_warms_up_and_ends_at_zero() -> None:
    rates = [learning.rate(step, 111) for step in range(111)]
    assert rates[0] == 0.1
    assert rates[9] == rates[10] == 1
    assert rates == rates[:10] + sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001
    assert [learning.rate(step, 1) for step in range(1)] == [1]


@pytest.mark.parametrize("fields", [{"int4_recovery_steps": 5}, {"int4_embedding_bits": 4}])
def test_recovery_needs_gptq(fields: dict[str, int]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(fields))}: needs int4_algorithm gptq"):
        tiny_recipe(**fields)


def test_a_runtime_that_samples_is_greedy_all_the_same(recovered: Made, inputs: dict[str, Path]) -> None:
    """Foundry Local turns sampling on unless a request says otherwise, and answered wrongly by chance."""
    search = json.loads((recovered.path / "genai_config.json").read_text())["search"]
    assert (search["do_sample"], search["top_k"]) == (False, 1)
    model = genai.load_model(recovered.path)

    def answers(**options: Any) -> list[list[int]]:
        return [list(genai.greedy(model, ids, 8, **options)) for ids in prompts(inputs)]

    greedy = answers()
    assert [answers(do_sample=True) for _ in range(3)] == [greedy] * 3
    assert answers(do_sample=True, top_k=50) != greedy  # as it was
