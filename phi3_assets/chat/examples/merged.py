"""Way 2: the merged model with transformers alone. One directory, no PEFT.

python merged.py "Your question" [MERGED_MODEL]

Without the directory: the champion of the home that this script lies in.
"""

import json
import os
import sys
from pathlib import Path

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
merged_model = directories[0] if directories else champion("merged_model")
tokenizer = AutoTokenizer.from_pretrained(merged_model)
model = AutoModelForCausalLM.from_pretrained(merged_model)
messages = [{"role": "user", "content": question}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
model.generate(**prompt, max_new_tokens=128, do_sample=False, streamer=streamer)
