"""Smoke test of this bundle; run it on the device with `python smoke_test.py`.

It needs Python and onnxruntime-genai, nothing else. It checks every file against release.json, loads the model, asks
it the questions in smoke.json, and checks that prompts are those of the training and that answers end by themselves.
Exit status 0: all is well.
"""

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

BUNDLE = Path(__file__).resolve().parent


def check_files(bundle: Path) -> list[str]:
    """Compare every file with release.json; returns what is wrong."""
    problems = []
    release = json.loads((bundle / "release.json").read_text(encoding="utf-8"))
    for name, entry in release["files"].items():
        path = bundle / name
        if not path.is_file():
            problems.append(f"{name} is missing")
            continue
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256") if sys.version_info >= (3, 11) else _digest(file)
        if digest.hexdigest() != entry["sha256"]:
            problems.append(f"{name} was changed")
    return problems


def _digest(file: Any) -> Any:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest


def generate(model: Any, prompt: list[int], ends: set[int], max_new_tokens: int) -> tuple[list[int], bool, float]:
    """One greedy answer.

    Returns:
        Its tokens without the end token, whether it ended by itself, and the seconds it took.
    """
    import onnxruntime_genai as og

    params = og.GeneratorParams(model)
    params.set_search_options(do_sample=False, max_length=len(prompt) + max_new_tokens)
    generator = og.Generator(model, params)
    start = time.perf_counter()
    generator.append_tokens(prompt)
    tokens: list[int] = []
    stopped = False
    while not generator.is_done():
        generator.generate_next_token()
        token = int(generator.get_next_tokens()[0])  # get_sequence() leaves the end token out
        if token in ends:
            stopped = True
            break
        tokens.append(token)
    return tokens, stopped, time.perf_counter() - start


def ask(bundle: Path) -> list[dict[str, Any]]:
    """Ask the model the questions of smoke.json.

    Returns:
        For each: its faults, whether the answer is the one of the evaluation token for token, the tokens of the answer,
        and the seconds that it took.
    """
    import onnxruntime_genai as og

    smoke = json.loads((bundle / "smoke.json").read_text(encoding="utf-8"))
    model = og.Model(str(bundle / "model"))
    tokenizer = og.Tokenizer(model)
    ends = set(tokenizer.eos_token_ids)
    asked = []
    for question in smoke["questions"]:
        text = tokenizer.apply_chat_template(json.dumps(question["messages"]), add_generation_prompt=True)
        prompt = [int(token) for token in tokenizer.encode(text)]
        tokens, stopped, seconds = generate(model, prompt, ends, smoke["max_new_tokens"])
        faults = []
        if prompt != question["prompt_ids"]:
            faults.append("chat template or tokenizer give another prompt than in training")
        if question["stopped"] and not stopped:
            faults.append("the answer does not end by itself")
        same = tokens == question["answer_ids"]
        asked.append({"faults": faults, "same": same, "tokens": len(tokens), "seconds": seconds})
    return asked


def main() -> int:
    """Run all checks and print one line for each."""
    problems = check_files(BUNDLE)
    print(f"files: {'; '.join(problems) or 'all as released'}")
    if problems:
        return 1
    asked = ask(BUNDLE)
    for number, one in enumerate(asked, 1):
        told = "FAILED: " + "; ".join(one["faults"]) if one["faults"] else "ok"
        print(f"question {number}: {told}, {one['tokens']} tokens, {one['tokens'] / one['seconds']:.1f} tokens/s")
    # Rounding differs between processors, so another wording is worth a look but is no fault.
    print(f"answers token for token as evaluated: {sum(one['same'] for one in asked)} of {len(asked)}")
    failed = any(one["faults"] for one in asked)
    print("FAILED" if failed else "passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
