"""Way 3: the int4 model with ONNX Runtime GenAI. What a device runs; needs onnxruntime-genai alone.

python int4.py "Your question" [ONNX_INT4_MODEL]

Without the directory: the champion of the home that this script lies in.
"""

import json
import os
import sys
from pathlib import Path

import onnxruntime_genai as og

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
model = og.Model(str(directories[0] if directories else champion("onnx_int4_model")))
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
