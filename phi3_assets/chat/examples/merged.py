"""Way 2: the merged model with transformers alone. One directory, no PEFT.

python merged.py MERGED_MODEL "Your question"
"""

import sys

from transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer

merged_model, question = sys.argv[1:3]
tokenizer = AutoTokenizer.from_pretrained(merged_model)
model = AutoModelForCausalLM.from_pretrained(merged_model)
messages = [{"role": "user", "content": question}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
model.generate(**prompt, max_new_tokens=128, do_sample=False, streamer=streamer)
