"""What `benchmarks quantize` asks of each model, the table it shows, and which point it chooses."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.evaluation import metrics
from phi3_assets.evaluation.general import load_general
from phi3_assets.evaluation.items import Item
from phi3_assets.evaluation.kept_scores import KeptScores, VariantScores
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.steps.scoring import Scoring, context_tokens

ANSWER_TOKENS = 48
Numbers = dict[str, float]


class Asked:
    """One list of questions and the general suite, put to models; what this machine scored before is kept.

    Attributes:
        torch: Numbers of "base" and "merged".
        prompt: The tokens of a prompt of median length.
    """

    def __init__(self, home: Path, items: Sequence[Item], folders: Mapping[str, Path], tokenizer: Any) -> None:
        """`folders` has base_model and merged_model."""
        self.items, self._tokenizer = items, tokenizer
        self.prompt = sorted((item.prompt_ids for item in items), key=len)[len(items) // 2]
        suite = load_general(tokenizer, context_tokens(folders["base_model"]))
        kept = KeptScores(LocalArtifactStore(home=str(home)).cache_path, print)
        self._scoring = Scoring(kept, items, suite, ANSWER_TOKENS, print)
        self.torch = {
            variant: self._numbers(self._scoring.score(variant, folders, lambda _: None).scores)
            for variant in ("base", "merged")
        }

    def int4(self, folder: Path) -> Numbers:
        """Of an int4 model: bytes of graph and weights, and what it says."""
        numbers = self._numbers(self._scoring.int4(folder)[0])
        base, merged = self.torch["base"]["nll"], self.torch["merged"]["nll"]
        size = sum(path.stat().st_size for path in folder.glob("model.onnx*"))
        return {"bytes": size, **numbers, "gain_kept": (base - numbers["nll"]) / (base - merged)}

    def _numbers(self, scores: VariantScores) -> Numbers:
        records = [metrics.new_record(item) for item in self.items]
        for record, score in zip(records, scores.raw, strict=True):
            answer = self._tokenizer.decode(list(score.generated_ids), skip_special_tokens=True).strip()
            record["variants"]["it"] = metrics.judge("it", record, score, answer)
        summary = metrics.summarise(records, "it")
        general = scores.general["general_nll"]
        return {"exact_match": summary["exact_match"], "nll": summary["nll"], "general_nll": general}


def best(found: Mapping[str, Numbers], torch: Mapping[str, Numbers], bars: Mapping[str, float], plain: str) -> str:
    """The point that is small enough and loses least: answers first, then what the corpus does not teach.

    Raises:
        UserError: None is small enough.
    """
    small = [name for name, one in found.items() if one["bytes"] <= bars["size"] * found[plain]["bytes"]]
    if not small:
        raise UserError(f"No point takes at most {bars['size']} of the bytes of {plain}. Name others with --points.")

    def loss(name: str) -> tuple[bool, float]:
        one = found[name]
        answers = bars["exact_match"] * torch["merged"]["exact_match"]
        keeps = one["exact_match"] >= answers and one["gain_kept"] >= bars["gain_kept"]
        return not keeps, one["nll"] - torch["merged"]["nll"] + one["general_nll"] - torch["merged"]["general_nll"]

    return min(small, key=loss)


def show(title: str, torch: Mapping[str, Numbers], found: Mapping[str, Numbers]) -> None:
    """Print a table."""
    print(
        f"\n{title}\n{'':36}{'MB':>8}{'exact match':>13}{'answer NLL':>12}{'gain kept':>11}{'general NLL':>13}", end=""
    )
    print(f"{'tokens/s':>10}" if any("tokens_per_s" in one for one in found.values()) else "")
    for name, one in (*torch.items(), *found.items()):
        size = f"{one['bytes'] / 1e6:.1f}" if "bytes" in one else ""
        kept = f"{one['gain_kept']:.4f}" if "gain_kept" in one else ""
        speed = f"{one['tokens_per_s']:.1f}" if "tokens_per_s" in one else ""
        print(
            f"{name:36}{size:>8}{one['exact_match']:>13.1%}{one['nll']:>12.4f}{kept:>11}{one['general_nll']:>13.3f}"
            f"{speed:>10}".rstrip()
        )


def decode_speed(model: Path, prompt: Sequence[int], tokens: int = 128, *, by_itself: bool = False) -> float:
    """Greedy tokens per second after a prompt; `by_itself`: on as many threads as ONNX Runtime chooses itself."""
    import onnxruntime_genai

    from phi3_assets.models import genai

    loaded = onnxruntime_genai.Model(str(model)) if by_itself else genai.load_model(model)
    generator = genai.new_generator(loaded, len(prompt) + tokens, min_length=len(prompt) + tokens)
    generator.append_tokens(list(prompt))
    started = time.perf_counter()
    while not generator.is_done():
        generator.generate_next_token()
    return tokens / (time.perf_counter() - started)
