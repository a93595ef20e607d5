"""Way 1: base model and LoRA adapter with PEFT. The adapter stays apart: small to ship, easy to swap.

python adapter.py "Your question" [BASE_MODEL LORA_ADAPTER]

Without the directories: those that were made last in the home that this script lies in.
"""

import json
import sys
from pathlib import Path

from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer

HOME = Path(__file__).resolve().parents[1]


def latest(folder: str, name: str) -> Path:
    """Directory of what was made last."""
    identity: str = json.loads((HOME / f"gen-model/.pointers/latest/{name}.json").read_text())["identity"]
    return HOME / folder / name / identity[:16]


question, *directories = sys.argv[1:]
base_model, lora_adapter = directories or (latest("model-cache", "base_model"), latest("gen-model", "lora_adapter"))
tokenizer = AutoTokenizer.from_pretrained(base_model)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_model), lora_adapter)
messages = [{"role": "user", "content": question}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
model.generate(**prompt, max_new_tokens=128, do_sample=False, streamer=streamer)
