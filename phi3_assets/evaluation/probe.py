"""Entry point of the process that measures int4: a request on stdin, one JSON line of numbers on stdout."""

import json
import sys
from pathlib import Path

from phi3_assets.evaluation import genai_scorer
from phi3_assets.models.genai import load_model


def main() -> None:
    """Load the model, measure it and print the numbers."""
    request = json.load(sys.stdin)
    speed = genai_scorer.speed(load_model(Path(request["model"])), request["prompt_ids"])
    print(json.dumps(speed.to_dict()))


if __name__ == "__main__":
    main()
