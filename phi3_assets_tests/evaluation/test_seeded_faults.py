"""Real models with a fault seeded into them, through the real step, held back by the real checks.

The model is tiny and learns twenty-four facts by heart; it is scored on them. That is no honest test of learning, but
the gate only sees scores.
"""

import json
import shutil
import subprocess
import sys

import pytest

from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.core.step import StepContext
from phi3_assets.evaluation.gate import read_evaluation
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.steps import RELEASE_BUNDLE
from phi3_assets.steps.evaluate import evaluate_variants
from phi3_assets.steps.release import bundle_release
from phi3_assets_tests.evaluation.gated import publish_report, through_the_checks
from phi3_assets_tests.evaluation.tiny import export, make_base, make_tokenizer, write_corpus

pytest_plugins = ["phi3_assets_tests.evaluation.tiny"]
WORDS = (
    "red blue green black white grey pink brown one two three four five six seven eight cat dog cow hen pig fox owl bee"
)
FACTS = [(f"What does code {number} mean?", f"{word} it is.") for number, word in enumerate(WORDS.split())]
# So small a model loses more to rounding than the default model.
TINY = {"gate_min_gain_kept": 0.8, "gate_min_stop_rate": 0.9, "gate_max_general_perplexity_ratio": 1e12}


def learn(base, output, facts):
    """Train an adapter on the facts, the answers' tokens alone in the loss, and merge it; returns both directories."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    rows = [json.loads(line) for line in (write_corpus(output / "train", base, facts) / "test.jsonl").open()]
    longest = max(len(row["prompt_ids"] + row["answer_ids"]) for row in rows)
    ids, labels = torch.zeros(len(rows), longest, dtype=torch.long), torch.full((len(rows), longest), -100)
    for index, row in enumerate(rows):
        tokens = row["prompt_ids"] + row["answer_ids"]
        ids[index, : len(tokens)] = torch.tensor(tokens)
        labels[index, len(row["prompt_ids"]) : len(tokens)] = torch.tensor(row["answer_ids"])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a model gains nothing from two, and beside other tests it loses a lot
    torch.manual_seed(0)
    modules = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=32, lora_alpha=64, target_modules=modules)
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(80):
        loss = model(ids, attention_mask=(ids != 0).long(), labels=labels).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    torch.set_num_threads(threads)  # of all later tests of this process too
    model.save_pretrained(output / "adapter")
    model.merge_and_unload().save_pretrained(output / "merged")
    make_tokenizer(output / "merged")
    return output / "adapter", output / "merged"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base") / "base", initializer_range=0.05)


@pytest.fixture(scope="module")
def judge(base, tmp_path_factory):
    def through_the_step(adapter, merged, int4):
        root = tmp_path_factory.mktemp("judged")
        (root / "output").mkdir()
        inputs = {
            "formatted_corpus": write_corpus(root / "corpus", base, FACTS),
            "base_model": base,
            "lora_adapter": adapter,
            "merged_model": merged,
            "onnx_int4_model": int4,
        }
        evaluate_variants(StepContext({"max_new_tokens": 12, "test_items": 0}, inputs, root / "output", root, root))
        through_the_step.reports.append(root / "output")
        report = publish_report(LocalArtifactStore(home=str(root / "home")), *read_evaluation(root / "output"))
        return through_the_checks(root / "home", report, **TINY)

    through_the_step.reports = []
    return through_the_step


@pytest.fixture(scope="module")
def good(base, tmp_path_factory):
    root = tmp_path_factory.mktemp("good")
    adapter, merged = learn(base, root, FACTS)
    return adapter, merged, export(merged, root / "int4", "int4")


def test_a_model_that_learnt_is_fit_and_its_smoke_test_sees_answers_end(judge, good, base, tmp_path):
    outcome = judge(*good)
    assert outcome.released, outcome.refused
    inputs = {"base_model": base, "onnx_int4_model": good[2], "eval_report": judge.reports[-1]}
    params = RELEASE_BUNDLE.params(load_recipe("tiny-test"))
    (tmp_path / "bundle").mkdir()
    bundle_release(StepContext(params, inputs, tmp_path / "bundle", tmp_path, tmp_path))
    smoke = json.loads((tmp_path / "bundle" / "smoke.json").read_text())
    assert all(question["stopped"] for question in smoke["questions"])
    done = subprocess.run([sys.executable, tmp_path / "bundle" / "smoke_test.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3" in done.stdout


def test_shuffled_answers_are_refused(base, judge, tmp_path):
    answers = [answer for _, answer in FACTS]
    shuffled = [(question, answers[(index + 7) % len(answers)]) for index, (question, _) in enumerate(FACTS)]
    adapter, merged = learn(base, tmp_path, shuffled)
    outcome = judge(adapter, merged, export(merged, tmp_path / "int4", "int4"))
    assert not outcome.released
    sentence = outcome.refused["answers_were_learnt"]
    assert "questions and answers of the training rows may not belong together" in sentence


def test_a_broken_embedding_in_int4_is_refused(judge, good, tmp_path):
    import numpy as np
    import onnx
    from onnx import numpy_helper

    adapter, merged, int4 = good
    broken = shutil.copytree(int4, tmp_path / "int4")
    model = onnx.load(broken / "model.onnx")
    weights = next(one for one in model.graph.initializer if "embed_tokens" in one.name)
    weights.CopyFrom(numpy_helper.from_array(np.roll(numpy_helper.to_array(weights), 1, axis=0), weights.name))
    for path in broken.glob("model.onnx*"):
        path.unlink()
    onnx.save(model, broken / "model.onnx")
    outcome = judge(adapter, merged, broken)
    assert not outcome.released
    assert {"answers_were_learnt", "int4_keeps_the_gain"} <= outcome.refused.keys()
    sentence = outcome.refused["int4_keeps_the_gain"]
    assert "of the likelihood that fine-tuning gained, less than the 80.0% that is needed" in sentence
