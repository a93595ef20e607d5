"""Way 1: base model and LoRA adapter with PEFT. The adapter stays apart: small to ship, easy to swap.

python adapter.py "Your question" [BASE_MODEL LORA_ADAPTER]

Without the directories: the champion's, of the home that this script lies in.
"""

import json
import os
import sys
from pathlib import Path

from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer

HOME = Path(__file__).resolve().parents[1]


def champion(name: str) -> Path:
    """Directory of what the champion was made of; of several products, that of the one in PHI3_PRODUCT."""
    product = os.environ.get("PHI3_PRODUCT", "*")
    files = sorted((HOME / "ledger" / "products").glob(f"{product}/champion.json"))
    if len(files) != 1:
        sys.exit(f"Name a product in PHI3_PRODUCT; those with a champion: {[file.parent.name for file in files]}")
    history = json.loads(files[0].read_text())["history"]
    decisions = [one for one in history if one["action"] in ("promote", "rollback")]
    identity: str = decisions[-1]["decision"]["made_of"][name]["identity"]
    return HOME / ("model-cache" if name == "base_model" else "gen-model") / name / identity[:16]


question, *directories = sys.argv[1:]
base_model, lora_adapter = directories or (champion("base_model"), champion("lora_adapter"))
tokenizer = AutoTokenizer.from_pretrained(base_model)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_model), lora_adapter)
messages = [{"role": "user", "content": question}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
model.generate(**prompt, max_new_tokens=128, do_sample=False, streamer=streamer)
