"""Way 1: base model and LoRA adapter with PEFT. The adapter stays apart: small to ship, easy to swap.

python adapter.py BASE_MODEL LORA_ADAPTER "Your question"
"""

import sys

from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer

base_model, lora_adapter, question = sys.argv[1:4]
tokenizer = AutoTokenizer.from_pretrained(base_model)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_model), lora_adapter)
messages = [{"role": "user", "content": question}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
model.generate(**prompt, max_new_tokens=128, do_sample=False, streamer=streamer)
