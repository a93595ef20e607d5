"""Way 3: the int4 model with ONNX Runtime GenAI. What a device runs; needs onnxruntime-genai alone.

python int4.py "Your question" [ONNX_INT4_MODEL]

Without the directory: the one that was made last in the home that this script lies in.
"""

import json
import sys
from pathlib import Path

import onnxruntime_genai as og

HOME = Path(__file__).resolve().parents[1]


def latest(name: str) -> Path:
    """Directory of what was made last."""
    identity: str = json.loads((HOME / f"gen-model/.pointers/latest/{name}.json").read_text())["identity"]
    return HOME / "gen-model" / name / identity[:16]


question, *directories = sys.argv[1:]
model = og.Model(str(directories[0] if directories else latest("onnx_int4_model")))
tokenizer = og.Tokenizer(model)
messages = json.dumps([{"role": "user", "content": question}])
prompt = tokenizer.encode(tokenizer.apply_chat_template(messages, add_generation_prompt=True))
params = og.GeneratorParams(model)
# The cache is allocated for max_length: say how much is needed, or it is the whole context.
params.set_search_options(do_sample=False, max_length=len(prompt) + 128)
generator = og.Generator(model, params)
generator.append_tokens(prompt)
text = tokenizer.create_stream()
while not generator.is_done():
    generator.generate_next_token()
    print(text.decode(generator.get_next_tokens()[0]), end="", flush=True)
print()
