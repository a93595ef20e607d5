"""Way 2: the merged model with transformers alone. One directory, no PEFT.

python merged.py "Your question" [MERGED_MODEL]

Without the directory: the one that was made last in the home that this script lies in.
"""

import json
import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer

HOME = Path(__file__).resolve().parents[1]


def latest(name: str) -> Path:
    """Directory of what was made last."""
    identity: str = json.loads((HOME / f"gen-model/.pointers/latest/{name}.json").read_text())["identity"]
    return HOME / "gen-model" / name / identity[:16]


question, *directories = sys.argv[1:]
merged_model = directories[0] if directories else latest("merged_model")
tokenizer = AutoTokenizer.from_pretrained(merged_model)
model = AutoModelForCausalLM.from_pretrained(merged_model)
messages = [{"role": "user", "content": question}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
model.generate(**prompt, max_new_tokens=128, do_sample=False, streamer=streamer)
